"""Run of a command: signals, notes, written files."""

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
"""Time between two checks for the end of an import, seconds."""
_GROUP = "anomem.cli.group"


@dataclass
class Session:
    """State of one run of a command.

    Parameters
    ----------
    signal : int
        Signal received, 0 for none.
    can_skip : bool
        True if the command has ``--skip-bad`` and was run without it.
    written : list of str
        Complete files and folders.
    left : str
        Sentence on unfinished work that is kept, for an interrupted command.
    """

    signal: int = 0
    can_skip: bool = False
    written: list[str] = field(default_factory=list)
    left: str = ""
    _inputs: list[Path] = field(default_factory=list)
    _planned: list[Path] = field(default_factory=list)
    _held: bool = False
    _since: float = 0.0

    def check(self) -> None:
        """Raise KeyboardInterrupt after a signal, in case a library swallowed the exception."""
        if self.signal and not self._held:
            raise KeyboardInterrupt

    def reads(self, *places: str | Path | None) -> None:
        """Register input files, which no output may replace.

        Parameters
        ----------
        *places : str, Path or None
            Files, or folders for all images below them. None and missing paths are ignored.
        """
        self._inputs += [Path(place) for place in places if place is not None]

    def plan(self, *targets: Path) -> None:
        """Register output files; InputError for an input or an output registered twice."""
        for target in targets:
            self.check_target(target)
            place = Path(os.path.realpath(target))
            if place in self._planned:
                raise InputError(f"{target}: two results would be written to this file; name another")
            self._planned.append(place)

    def check_inputs(self, *places: str | Path | None) -> None:
        """Register input files after the outputs; InputError if one is an output."""
        self.reads(*places)
        for target in self._planned:
            self.check_target(target)

    def check_target(self, target: str | Path) -> None:
        """Refuse a target that is the same file as an input.

        Raises
        ------
        InputError
            The target is an input of this command.
        """
        try:
            found = os.stat(target)  # noqa: PTH116 - follows links, as writing does
        except OSError:
            return
        if not stat.S_ISREG(found.st_mode):
            return
        if any(_is_part(target, found, place) for place in self._inputs):
            raise InputError(f"{target}: is read by this command; name another file for the result")

    @contextmanager
    def putting_in_place(self, *targets: str | Path) -> Iterator[None]:
        """Defer signals while finished files are moved to their places.

        Parameters
        ----------
        *targets : str or Path
            Files and folders complete at the end.
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
        """Handle a signal: end at once, or after a pending move of finished files or import."""
        if _importing(frame) and hasattr(signal, "setitimer"):
            # An exception in a library's C++ initialisation aborts the process.
            signal.signal(signal.SIGALRM, lambda _, later: self.receive(number, later))
            signal.setitimer(signal.ITIMER_REAL, _IMPORTED_S)
            return
        again = self.signal and time.monotonic() - self._since < _CLEANING_UP_S
        self.signal, self._since = number, time.monotonic()
        if not again:  # a second Ctrl-C must not interrupt the clean-up
            self.check()

    def farewell(self) -> str:
        """Return a line on the files left by an interrupted command."""
        name = signal.Signals(self.signal or signal.SIGINT).name
        written = f"{', '.join(self.written)} is complete" if self.written else "nothing was written"
        left = written if self.written else self.left or written
        return f"{_WORDS.get(name, 'interrupted')}; {left}"


def _is_part(target: str | Path, found: os.stat_result, place: Path) -> bool:
    """Return True for an input file, or an image in an input folder."""
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
    """Return True if the interrupted code runs inside an import statement."""
    while frame is not None and frame.f_globals.get("__name__") != _GROUP:  # called by a module
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


@contextmanager
def catch_signals(session: Session) -> Iterator[None]:
    """Turn the signals that end a process into KeyboardInterrupt, so that unfinished files are removed.

    Signals ignored by the parent (``nohup``, background jobs of a shell) stay ignored.
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
    """Return a hook for unraisable exceptions that drops interrupts, since `Session.check` raises them again."""
    return lambda unraisable: None if issubclass(unraisable.exc_type, KeyboardInterrupt) else hook(unraisable)


@contextmanager
def show_notes() -> Iterator[None]:
    """Show anomem's warnings as one line each, and those of libraries only with ``-W``."""
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
    """Write one line to stderr, above any progress bar."""
    # Not click.echo: a progress bar replaces sys.stderr and redraws itself below the line.
    sys.stderr.write("anomem: note: " + printable(one_line(text)) + "\n")


pass_session = click.make_pass_decorator(Session)
