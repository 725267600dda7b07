"""Standard streams: reopened if closed, able to print every file name."""

from __future__ import annotations

import codecs
import io
import os
import select
import sys

_ERRORS = "anomem-names"


def open_streams() -> None:
    """Open closed standard streams, and let all of them print any file name.

    Services, ``2>&-`` and pythonw close them. A closed descriptor must be replaced: otherwise the next opened file gets
    its number, and with it the stderr output of libraries.
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


def silence_unread_streams() -> bool:
    """Redirect output streams whose reader has gone, so that Python's flush at exit does not fail.

    Returns
    -------
    bool
        True if there was one; False if a pipe to another process broke.
    """
    unread = [descriptor for descriptor in (1, 2) if _unread(descriptor)]
    for descriptor in unread:
        os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
    return bool(unread)


def _unread(descriptor: int) -> bool:
    if not hasattr(select, "poll"):
        return True
    poll = select.poll()
    poll.register(descriptor, 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def _shown(error: UnicodeError) -> tuple[bytes, int]:
    """Encode characters missing from an encoding: undecodable bytes of file names as they are, others escaped."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return b"".join(map(_bytes, text)), error.end


def _bytes(character: str) -> bytes:
    code = ord(character)
    return bytes([code - 0xDC00]) if 0xDC80 <= code <= 0xDCFF else character.encode("ascii", "backslashreplace")
