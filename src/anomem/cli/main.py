"""Entry point of the command ``anomem``; imports nothing before interrupts are handled."""

# The part of `signal` in C: its enumerations take longer to import than all else up to here.
import _signal as signal  # type: ignore[import-not-found]
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

_WORDS = {"SIGTERM": "terminated", "SIGHUP": "hung up"}
_ENDING = ("SIGINT", "SIGTERM", "SIGHUP")


def main() -> None:
    """Run the command line of this process and exit with its code."""
    # Before the command handles signals itself, there is nothing to clean up: exit without a traceback.
    _handle(_leave)
    code = run(sys.argv[1:])
    # A signal during shutdown must not print a traceback.
    _handle(signal.SIG_DFL)
    sys.exit(code)


def run(arguments: "Sequence[str]") -> int:
    """Run one command and return its exit code."""
    from anomem.cli.group import run

    return run(arguments)


def _handle(handler: object) -> None:
    """Handle the signals that end a process, except those ignored by the parent (``nohup``)."""
    for name in _ENDING:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


def _leave(number: int, frame: "FrameType | None") -> None:
    """Exit at once; an exception would pass through libraries during their import."""
    del frame
    word = next((word for name, word in _WORDS.items() if getattr(signal, name, None) == number), "interrupted")
    try:
        os.write(2, f"anomem: {word}; nothing was written\n".encode())
    finally:
        os._exit(128 + number)


if __name__ == "__main__":
    main()
