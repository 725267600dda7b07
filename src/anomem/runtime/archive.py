"""Zips read in place: a zip is a folder, and a path may continue inside it (``parts.zip/train/good/0.png``)."""

from __future__ import annotations

import os
import re
import threading
import zipfile
from functools import cached_property, lru_cache
from pathlib import Path, PurePosixPath

from anomem.errors import ImageError, InputError, one_line
from anomem.runtime.limits import MAX_FOLDER_DEPTH

__all__ = ["Archive", "open_zip", "zip_around"]

_ZIP_SUFFIXES = frozenset({".zip", ".npz"})
_ROOT = re.compile(r"/|[A-Za-z]:")
_ENCRYPTED = 0x1
_METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA})


class Archive:
    """Open zip, with thread-safe reads of entries by name.

    Parameters
    ----------
    path : Path
        Zip file.

    Raises
    ------
    InputError
        Not a readable zip.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._zip = zipfile.ZipFile(path)
        except Exception as error:  # unpackers raise nearly everything on damaged files
            reason = getattr(error, "strerror", None) or one_line(error)
            raise InputError(f"{path}: not a readable zip ({reason}); copy it again") from error
        self._path = path
        self._lock = threading.Lock()
        self._entries: dict[str, zipfile.ZipInfo] = {}
        self._own_folders: set[str] = set()
        self._fault: str | None = None
        for entry in self._zip.infolist():
            self._add(entry)

    def _add(self, entry: zipfile.ZipInfo) -> None:
        written = entry.filename.replace("\\", "/")  # by tools of Windows
        name = str(PurePosixPath(written))
        if _ROOT.match(written) or ".." in written.split("/"):
            self._fault = self._fault or f"{entry.filename!r} leads out of the zip; pack the folder again"
        elif name.count("/") > MAX_FOLDER_DEPTH:
            deep = f"more than {MAX_FOLDER_DEPTH} folders inside one another; move the images further up"
            self._fault = self._fault or deep
        elif written.endswith("/") or name == ".":
            self._own_folders.add(name.removeprefix("."))
        elif name in self._entries:
            self._fault = self._fault or f"holds {name} twice; pack the folder again"
        else:
            self._entries[name] = entry
            self._fault = self._fault or _unreadable(entry, name)

    @cached_property
    def names(self) -> frozenset[str]:
        """Names of the files, with ``/``; those that lead out of the zip are left out."""
        return frozenset(self._entries)

    @cached_property
    def folders(self) -> dict[str, tuple[list[str], list[str]]]:
        """Folders and files directly in each folder, sorted; the zip itself is ``""``."""
        index: dict[str, tuple[set[str], set[str]]] = {"": (set(), set())}
        for path in self._entries:
            folder, _, name = path.rpartition("/")
            _add_folder(index, folder)[1].add(name)
        for folder in self._own_folders:
            _add_folder(index, folder)
        return {folder: (sorted(below), sorted(files)) for folder, (below, files) in index.items()}

    def check(self) -> None:
        """Refuse a zip that is not a plain copy of a folder.

        Raises
        ------
        InputError
            An entry leads out of the zip, occurs twice, is encrypted or packed with a method that is not read.
        """
        if self._fault is not None:
            raise InputError(f"{self._path}: {self._fault}")

    def read(self, name: str, max_bytes: int) -> bytes:
        """Read an entry; ImageError if it is damaged, encrypted, or declared larger than `max_bytes`."""
        entry = self._entries[name]
        if entry.file_size > max_bytes:  # zipfile unpacks no more than that
            problem = f"unpacks to {entry.file_size:,} bytes, more than the limit of {max_bytes:,}"
            raise ImageError(str(self._path / name), f"{problem}; leave it out")
        return self.head(name, entry.file_size)

    def head(self, name: str, size: int) -> bytes:
        """Read the first bytes of an entry, or all; ImageError if it is damaged or encrypted."""
        entry, label = self._entries[name], str(self._path / name)
        fault = _unreadable(entry, name)
        if fault is not None:
            raise ImageError(label, fault)
        try:
            with self._lock, self._zip.open(entry) as stream:
                return stream.read(size) if size < entry.file_size else stream.read()
        except Exception as error:  # as above
            raise ImageError(label, f"cannot be read ({one_line(error)}); copy the zip again") from error


def open_zip(path: Path) -> Archive:
    """Open a zip, or return the one already open.

    Raises
    ------
    InputError
        The file is missing, or not a readable zip.
    """
    try:
        facts = path.stat()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; check the path") from error
    # Keyed by size and time, since the file may change, and by process, since a fork must not share the file position.
    return _cached(path, (facts.st_size, facts.st_mtime_ns), os.getpid())


@lru_cache(maxsize=16)
def _cached(path: Path, _state: tuple[int, int], _process: int) -> Archive:
    return Archive(path)


def zip_around(path: str | Path) -> tuple[Archive, str] | None:
    """Return the zip that contains a path, and the name inside it; None outside zips.

    Parameters
    ----------
    path : str or Path
        Path into a zip, or the zip itself, whose name inside is ``""``. Only ``.zip`` and ``.npz`` are zips.

    Raises
    ------
    InputError
        As for `open_zip`.
    """
    if not any(suffix in os.fspath(path).lower() for suffix in _ZIP_SUFFIXES):
        return None
    place = Path(path)
    for zipped in (place, *place.parents):
        if zipped.suffix.lower() in _ZIP_SUFFIXES and _is_file(zipped):
            inner = place.relative_to(zipped).as_posix()
            return open_zip(zipped), "" if inner == "." else inner
    return None


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _add_folder(index: dict[str, tuple[set[str], set[str]]], folder: str) -> tuple[set[str], set[str]]:
    """Return the entry of a folder in an index; add it and the folders around it first."""
    if folder not in index:
        parent, _, name = folder.rpartition("/")
        _add_folder(index, parent)[0].add(name)
        index[folder] = (set(), set())
    return index[folder]


def _unreadable(entry: zipfile.ZipInfo, name: str) -> str | None:
    if entry.flag_bits & _ENCRYPTED:
        return f"{name} is encrypted; unpack the zip with its password, and give the folder"
    if entry.compress_type not in _METHODS:
        return f"{name} is packed with method {entry.compress_type}, which is not read; pack the folder again"
    return None
