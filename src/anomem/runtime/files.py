"""Safe file access: folders and regular files of bounded size, on the disk or inside a zip."""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from anomem.errors import ImageError, one_line
from anomem.runtime.archive import Archive, zip_around

__all__ = ["exists", "in_zip", "is_file", "is_folder", "open_regular", "read_head", "read_regular", "scan"]


def is_file(path: str | Path) -> bool:
    """Return True for an existing regular file on the disk; False also for an invalid path."""
    try:
        return Path(path).is_file()
    except (OSError, ValueError):  # too long a name, a zero byte
        return False


def exists(path: str | Path) -> bool:
    """Return True for an existing path, also inside a zip; False also for an invalid path."""
    try:
        if Path(path).exists():
            return True
    except (OSError, ValueError):
        return False
    zipped = zip_around(path)
    return zipped is not None and (zipped[1] in zipped[0].names or zipped[1] in zipped[0].folders)


def in_zip(path: str | Path) -> bool:
    """Return True for an existing file inside a zip."""
    return _entry(path) is not None


def is_folder(path: str | Path | os.DirEntry[str]) -> bool:
    """Return True for an existing folder, a zip and a folder inside one; False also for an invalid path.

    A zip as a directory entry is a file: zips inside folders are not searched.
    """
    try:
        on_disk = (path if isinstance(path, os.DirEntry) else Path(path)).is_dir()
    except (OSError, ValueError):  # also a link to itself
        return False
    if on_disk or isinstance(path, os.DirEntry):
        return on_disk
    zipped = zip_around(path)
    return zipped is not None and zipped[1] in zipped[0].folders


def scan(folder: Path) -> list[tuple[str, bool]]:
    """List the entries directly in a folder, on the disk or in a zip.

    Returns
    -------
    list of (str, bool)
        Name, and True for a folder; unsorted.

    Raises
    ------
    OSError
        The folder is missing, not a folder or not readable.
    InputError
        The zip is not readable, or not a plain copy of a folder.
    """
    zipped = None if folder.is_dir() else zip_around(folder)
    if zipped is None or zipped[1] not in zipped[0].folders:
        return [(entry.name, is_folder(entry)) for entry in os.scandir(folder)]
    zipped[0].check()
    folders, files = zipped[0].folders[zipped[1]]
    return [*((name, True) for name in folders), *((name, False) for name in files)]


def read_head(path: Path, size: int) -> bytes:
    """Read the first bytes of a regular file, on the disk or in a zip; OSError or ImageError if it cannot be read."""
    zipped = _entry(path)
    if zipped is not None:
        return zipped[0].head(zipped[1], size)
    if not stat.S_ISREG(path.stat().st_mode):  # a pipe may block, a device may never end
        raise OSError(errno.EINVAL, "not a regular file")
    with path.open("rb") as stream:
        return stream.read(size)


def open_regular(path: str | Path, label: str, max_bytes: int) -> BinaryIO:
    """Open a regular file, or an entry of a zip, and refuse pipes and devices, which may block or never end.

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
    except (FileNotFoundError, NotADirectoryError):
        zipped = _entry(path)
        if zipped is None:
            raise
        return io.BytesIO(zipped[0].read(zipped[1], max_bytes))
    except ImageError:
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


def _entry(path: str | Path) -> tuple[Archive, str] | None:
    """Return the zip and name of a file inside a zip; None for other paths."""
    zipped = zip_around(path)
    return zipped if zipped is not None and zipped[1] in zipped[0].names else None


def _check(facts: os.stat_result, label: str, max_bytes: int) -> None:
    if not stat.S_ISREG(facts.st_mode):
        kind = "a folder" if stat.S_ISDIR(facts.st_mode) else "a pipe, device or socket"
        raise ImageError(label, f"is {kind}, not a file; name an image file")
    if facts.st_size > max_bytes:
        raise _too_large(label, facts.st_size, max_bytes)


def _too_large(label: str, size: int, max_bytes: int) -> ImageError:
    problem = f"{size:,} bytes are more than the limit of {max_bytes:,}"
    return ImageError(label, f"{problem}; leave it out, or raise max_pixels (--max-pixels), which raises it too")
