"""One run of a command: signals, notes, and what has been written so far."""

from __future__ import annotations

import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TextIO

import click

from anomem.errors import AnomemWarning, one_line

_ENDING = ("SIGINT", "SIGTERM", "SIGHUP")
_WORDS = {"SIGTERM": "terminated", "SIGHUP": "hung up"}
_CLEANING_UP_S = 2.0


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
    _held: bool = False
    _since: float = 0.0

    def check(self) -> None:
        """Raise KeyboardInterrupt where a signal came and some library swallowed the exception."""
        if self.signal and not self._held:
            raise KeyboardInterrupt

    @contextmanager
    def putting_in_place(self, *targets: str | Path) -> Iterator[None]:
        """Hold signals back for the moment in which finished files get their names.

        Parameters
        ----------
        *targets : str or Path
            What is in place afterwards.
        """
        self.check()
        self._held = True
        try:
            yield
            self.written += [str(target) for target in targets]
        finally:
            self._held = False
        self.check()

    def receive(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal: end at once, or as soon as finished files are in place."""
        del frame
        again = self.signal and time.monotonic() - self._since < _CLEANING_UP_S
        self.signal, self._since = number, time.monotonic()
        if not again:  # pressing Ctrl-C twice must not interrupt the cleaning up
            self.check()

    def farewell(self) -> str:
        """Say how an ended command left the disk."""
        name = signal.Signals(self.signal or signal.SIGINT).name
        left = f"{', '.join(self.written)} is complete" if self.written else "nothing was written"
        return f"{_WORDS.get(name, 'interrupted')}; {left}"


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
    try:
        yield
    finally:
        for number in caught:
            signal.signal(number, before[number])


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
    sys.stderr.write(f"anomem: note: {one_line(text)}\n")


pass_session = click.make_pass_decorator(Session)
