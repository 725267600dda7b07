"""Locks on open files; the operating system frees the lock of a process however it ended."""

from __future__ import annotations

import sys

from anomem.errors import InputError

__all__ = ["lock_file"]


def lock_file(descriptor: int, problem: str) -> None:
    """Lock an open file until it is closed; InputError with `problem` if another process has the lock."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise InputError(problem) from error
