"""Safe file access: regular files of bounded size."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from anomem.errors import ImageError, one_line

__all__ = ["exists", "is_file", "is_folder", "open_regular", "read_regular"]


def is_file(path: str | Path) -> bool:
    """Return True for an existing regular file; False also for an invalid path."""
    try:
        return Path(path).is_file()
    except (OSError, ValueError):  # too long a name, a zero byte
        return False


def exists(path: str | Path) -> bool:
    """Return True for an existing path; False also for an invalid path."""
    try:
        return Path(path).exists()
    except (OSError, ValueError):
        return False


def is_folder(path: str | Path | os.DirEntry[str]) -> bool:
    """Return True for an existing folder; False also for an invalid path and a link to itself."""
    try:
        return (path if isinstance(path, os.DirEntry) else Path(path)).is_dir()
    except (OSError, ValueError):
        return False


def open_regular(path: str | Path, label: str, max_bytes: int) -> BinaryIO:
    """Open a regular file and refuse pipes and devices, which may block or never end.

    Parameters
    ----------
    path : str or Path
    label : str
        Name of the file in errors.
    max_bytes : int
        Maximum size.

    Raises
    ------
    FileNotFoundError, NotADirectoryError
        There is no such file.
    ImageError
        The file is not regular, too large, or cannot be opened.
    """
    try:
        _check(Path(path).stat(), label, max_bytes)
        # If a pipe replaces the file in the meantime, opening it does not wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        stream = os.fdopen(descriptor, "rb")
    except (FileNotFoundError, NotADirectoryError, ImageError):
        raise
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or one_line(error)
        raise ImageError(label, f"{reason}; check the path") from error
    try:
        _check(os.fstat(descriptor), label, max_bytes)
    except ImageError:
        stream.close()
        raise
    return stream


def read_regular(
    path: str | Path, label: str, max_bytes: int, check: Callable[[bytes, str], object] | None = None
) -> bytes:
    """Read a regular file whole; parameters and errors as for `open_regular`.

    Parameters
    ----------
    check : callable, optional
        Check of the first 16 bytes, called with them and the label before the rest is read; raises to refuse the file.
    """
    with open_regular(path, label, max_bytes) as stream:
        try:
            head = stream.read(16)
            if check is not None:
                check(head, label)
            content = head + stream.read(max_bytes)
        except OSError as error:
            raise ImageError(label, f"{error.strerror}; check the disk") from error
        except MemoryError as error:
            raise ImageError(label, "needs more memory than there is; shrink it or leave it out") from error
    if len(content) > max_bytes:  # the file grows, or its size is unknown
        raise _too_large(label, len(content), max_bytes)
    return content


def _check(facts: os.stat_result, label: str, max_bytes: int) -> None:
    if not stat.S_ISREG(facts.st_mode):
        kind = "a folder" if stat.S_ISDIR(facts.st_mode) else "a pipe, device or socket"
        raise ImageError(label, f"is {kind}, not a file; name an image file")
    if facts.st_size > max_bytes:
        raise _too_large(label, facts.st_size, max_bytes)


def _too_large(label: str, size: int, max_bytes: int) -> ImageError:
    problem = f"{size:,} bytes are more than the limit of {max_bytes:,}"
    return ImageError(label, f"{problem}; leave it out, or raise max_pixels (--max-pixels), which raises it too")
