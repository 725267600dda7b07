"""One run of a command: signals, notes, and what has been written so far."""

from __future__ import annotations

import os
import signal
import stat
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

import click

from anomem.errors import AnomemWarning, InputError, one_line
from anomem.runtime.neutral import printable

_ENDING = ("SIGINT", "SIGTERM", "SIGHUP")
_WORDS = {"SIGTERM": "terminated", "SIGHUP": "hung up"}
_CLEANING_UP_S = 2.0
_IMPORTED_S = 0.05
"""Time between two looks whether an import is over, seconds."""
_GROUP = "anomem.cli.group"


@dataclass
class Session:
    """What one run of a command has come to.

    Parameters
    ----------
    signal : int
        The signal that asked this process to end, 0 before one came.
    can_skip : bool
        Whether the command takes ``--skip-bad`` and was run without it.
    written : list of str
        Files and folders that are complete and in place.
    """

    signal: int = 0
    can_skip: bool = False
    written: list[str] = field(default_factory=list)
    _inputs: list[Path] = field(default_factory=list)
    _planned: list[Path] = field(default_factory=list)
    _held: bool = False
    _since: float = 0.0

    def check(self) -> None:
        """Raise KeyboardInterrupt where a signal came and some library swallowed the exception."""
        if self.signal and not self._held:
            raise KeyboardInterrupt

    def reads(self, *places: str | Path | None) -> None:
        """Note files that this command reads: none of its outputs may replace one.

        Parameters
        ----------
        *places : str, Path or None
            Files, or folders, which stand for all images below them. None is passed over, and so is what does not
            exist.
        """
        self._inputs += [Path(place) for place in places if place is not None]

    def plan(self, *targets: Path) -> None:
        """Note files that this command will write, and refuse those that it reads or writes already."""
        for target in targets:
            self.check_target(target)
            place = Path(os.path.realpath(target))
            if place in self._planned:
                raise InputError(f"{target}: two results would be written to this file: name another")
            self._planned.append(place)

    def check_inputs(self, *places: str | Path | None) -> None:
        """Note files that this command reads, once they are known, and refuse an output among them."""
        self.reads(*places)
        for target in self._planned:
            self.check_target(target)

    def check_target(self, target: str | Path) -> None:
        """Refuse a target that is one of this command's inputs, under whatever name.

        Raises
        ------
        InputError
            Naming the target.
        """
        try:
            found = os.stat(target)  # noqa: PTH116 - follows links, as writing does
        except OSError:
            return
        if not stat.S_ISREG(found.st_mode):
            return
        if any(_is_part(target, found, place) for place in self._inputs):
            raise InputError(f"{target}: is read by this command: name another file for the result")

    @contextmanager
    def putting_in_place(self, *targets: str | Path) -> Iterator[None]:
        """Hold signals back for the moment in which finished files get their names.

        Parameters
        ----------
        *targets : str or Path
            What is in place afterwards.
        """
        self.check()
        for target in targets:
            self.check_target(target)
        self._held = True
        try:
            yield
            self.written += [str(target) for target in targets]
        finally:
            self._held = False
        self.check()

    def receive(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal: end at once, or as soon as finished files are in place or an import is over."""
        if _importing(frame) and hasattr(signal, "setitimer"):
            # An exception would pass through a library's start-up in C++, which aborts the process.
            signal.signal(signal.SIGALRM, lambda _, later: self.receive(number, later))
            signal.setitimer(signal.ITIMER_REAL, _IMPORTED_S)
            return
        again = self.signal and time.monotonic() - self._since < _CLEANING_UP_S
        self.signal, self._since = number, time.monotonic()
        if not again:  # pressing Ctrl-C twice must not interrupt the cleaning up
            self.check()

    def farewell(self) -> str:
        """Say how an ended command left the disk."""
        name = signal.Signals(self.signal or signal.SIGINT).name
        left = f"{', '.join(self.written)} is complete" if self.written else "nothing was written"
        return f"{_WORDS.get(name, 'interrupted')}; {left}"


def _is_part(target: str | Path, found: os.stat_result, place: Path) -> bool:
    """Whether a file is an input, or an image in a folder that is one."""
    from anomem.runtime.images import IMAGE_SUFFIXES

    try:
        given = os.stat(place)  # noqa: PTH116
    except (OSError, ValueError):
        return False
    if not stat.S_ISDIR(given.st_mode):
        return os.path.samestat(found, given)
    inside = Path(os.path.realpath(target)).is_relative_to(os.path.realpath(place))
    return inside and Path(target).suffix.lower() in IMAGE_SUFFIXES


def _importing(frame: FrameType | None) -> bool:
    """Whether code is interrupted that an import statement runs."""
    while frame is not None and frame.f_globals.get("__name__") != _GROUP:  # whose caller may be a module
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


@contextmanager
def catch_signals(session: Session) -> Iterator[None]:
    """Turn the signals that end a process into KeyboardInterrupt, so that whatever is half done is cleaned up.

    A signal that the parent told us to ignore (``nohup``, a shell's background jobs) stays ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    known = [getattr(signal, name) for name in _ENDING if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in known}
    caught = [number for number, handler in before.items() if handler is not signal.SIG_IGN]
    for number in caught:
        signal.signal(number, session.receive)
    hook, sys.unraisablehook = sys.unraisablehook, _quiet(sys.unraisablehook)
    try:
        yield
    finally:
        sys.unraisablehook = hook
        if hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number in caught:
            signal.signal(number, before[number])


def _quiet(hook: Callable[[Any], object]) -> Callable[[Any], object]:
    """Pass on what is raised where nobody can catch it, but for interrupts: `Session.check` raises them again."""
    return lambda unraisable: None if issubclass(unraisable.exc_type, KeyboardInterrupt) else hook(unraisable)


@contextmanager
def show_notes() -> Iterator[None]:
    """Show our own warnings as one line each; those of libraries only where the user asked for them (``-W``)."""
    with warnings.catch_warnings():
        if not sys.warnoptions:
            warnings.simplefilter("ignore")
        warnings.simplefilter("always", AnomemWarning)
        show = warnings.showwarning

        def one_line(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if issubclass(category, AnomemWarning):
                note(str(message))
            else:
                show(message, category, filename, lineno, file, line)

        warnings.showwarning = one_line
        yield


def note(text: str) -> None:
    """Write one line for the user on stderr, above a progress bar where there is one."""
    # Not click.echo: a progress bar stands in for sys.stderr and moves out of the way.
    sys.stderr.write("anomem: note: " + printable(one_line(text)) + "\n")


pass_session = click.make_pass_decorator(Session)
