"""Standard streams that are closed, or that cannot show every file name."""

from __future__ import annotations

import codecs
import io
import os
import sys

_ERRORS = "anomem-names"


def open_streams() -> None:
    """Let every standard stream exist, and write whatever a file name may hold.

    Services, ``2>&-`` and pythonw close them. What is written there is lost; but a closed descriptor must be taken:
    else the next file that is opened gets its number, and what a library writes to stderr.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest free number is this one
    codecs.register_error(_ERRORS, _shown)
    for name in ("stdin", "stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w", encoding="utf-8"))  # noqa: PTH123, SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_ERRORS)


def _shown(error: UnicodeError) -> tuple[bytes, int]:
    """Bytes for what an encoding lacks: those of file names that are no text as they are, other characters escaped."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return b"".join(map(_bytes, text)), error.end


def _bytes(character: str) -> bytes:
    code = ord(character)
    return bytes([code - 0xDC00]) if 0xDC80 <= code <= 0xDCFF else character.encode("ascii", "backslashreplace")
