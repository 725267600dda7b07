"""Uniform access to folders and zips; errors about missing files name the place to request them."""

from __future__ import annotations

import csv
import io
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path

from anomem.data.official.inside import read_file
from anomem.errors import InputError
from anomem.runtime.archive import open_zip
from anomem.runtime.files import is_folder
from anomem.runtime.images import IMAGE_SUFFIXES

__all__ = ["Tree", "open_tree"]


class Tree(ABC):
    """Copy of an image set. Places in it are relative to its root, with ``/``; ``""`` is the root.

    Parameters
    ----------
    root : Path
        Folder, zip, or folder inside the zip.
    ask : str
        Provider and place to request the images; the end of every error about missing files.
    """

    def __init__(self, root: Path, ask: str) -> None:
        self.root, self.ask = root, ask

    @abstractmethod
    def listing(self, place: str = "") -> tuple[list[str], list[str]]:
        """Return the visible folders and files directly in a folder, sorted; two empty lists if it is missing."""

    @abstractmethod
    def at(self, place: str) -> Tree:
        """Return a folder of this copy as a separate copy."""

    def path(self, place: str = "") -> Path:
        """Return the path of a place, possibly into a file."""
        return self.root / place

    def folders(self, place: str = "") -> list[str]:
        """Return the names of the folders directly in a folder, without ``ground_truth``."""
        return [name for name in self.listing(place)[0] if name != "ground_truth"]

    def images(self, place: str = "", *, deep: bool = False) -> list[str]:
        """Return the places of the images in a folder, sorted; with ``deep`` also in the folders below."""
        folders, files = self.listing(place)
        found = [_join(place, name) for name in files if Path(name).suffix.lower() in IMAGE_SUFFIXES]
        if deep:
            for name in folders:
                found += self.images(_join(place, name), deep=True)
        return found

    def has(self, place: str) -> bool:
        """Return True for an existing file or folder."""
        parent, _, name = place.rpartition("/")
        return not name or any(name in names for names in self.listing(parent))

    def need(self, *places: str) -> str:
        """Return the first existing place of several; InputError if there is none."""
        found = next((place for place in places if self.has(place)), None)
        if found is None:
            others = f" (nor {', '.join(places[1:])})" if places[1:] else ""
            raise self.absent(f"{self.path(places[0])}: absent{others}")
        return found

    def need_images(self, place: str, *, deep: bool = False) -> list[str]:
        """List the images of a folder; InputError if it is missing or empty."""
        found = self.images(self.need(place), deep=deep)
        if not found:
            raise self.absent(f"{self.path(place)}: 0 images")
        return found

    def absent(self, what: str) -> InputError:
        """Return an error on missing files with the files found and the place to request the set."""
        folders, files = self.listing()
        names = [f"{name}/" for name in folders] + files
        there = f"found {', '.join(names[:6])}{', ...' if len(names) > 6 else ''}" if names else "the folder is empty"
        return InputError(f"{what}; {there}; {self.ask}")

    def text(self, place: str) -> str:
        """Read a text file; InputError if it is missing."""
        content = read_file(self.path(self.need(place)))
        try:
            return content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise InputError(f"{self.path(place)}: not UTF-8; copy it again") from error

    def rows(self, place: str) -> Iterator[tuple[str, list[str]]]:
        """Return file position and cells of each non-empty line of a CSV file; InputError if it is missing."""
        reader = csv.reader(io.StringIO(self.text(place), newline=""))
        for cells in reader:
            if any(map(str.strip, cells)):
                yield f"{self.path(place)}:{reader.line_num}", [cell.strip() for cell in cells]

    def table(self, place: str, columns: Mapping[str, tuple[str, ...]]) -> Iterator[tuple[str, dict[str, str]]]:
        """Read a CSV file with a header.

        Parameters
        ----------
        place : str
        columns : mapping
            Possible names of each required column, in lower case.

        Yields
        ------
        where, cells : str, dict
            File position of each row, and its cells by the keys of ``columns``.
        """
        rows = self.rows(place)
        header = [name.casefold() for name in next(rows, ("", []))[1]]
        at = {key: next((header.index(n) for n in names if n in header), None) for key, names in columns.items()}
        for key, index in at.items():
            if index is None:
                raise InputError(f"{self.path(place)}: no column {columns[key][0]!r} (found: {', '.join(header)})")
        for where, cells in rows:
            if len(cells) < len(header):
                raise InputError(f"{where}: {len(cells)} cells under {len(header)} columns; copy the file again")
            yield where, {key: cells[index] for key, index in at.items() if index is not None}


class FolderTree(Tree):
    """Copy in a folder."""

    def listing(self, place: str = "") -> tuple[list[str], list[str]]:
        """List the folder on disk."""
        folders: list[str] = []
        files: list[str] = []
        try:
            with os.scandir(self.path(place)) as entries:
                for entry in entries:
                    if _is_visible(entry.name):
                        (folders if is_folder(entry) else files).append(entry.name)
        except (FileNotFoundError, NotADirectoryError):
            return [], []
        except OSError as error:
            raise InputError(f"{self.path(place)}: {error.strerror}; name a readable folder") from error
        return sorted(folders), sorted(files)

    def at(self, place: str) -> Tree:
        """Return a subfolder as a copy."""
        return FolderTree(self.path(place), self.ask)


class ZipTree(Tree):
    """Copy in a zip, or in a folder inside it.

    Parameters
    ----------
    file : Path
        Zip file.
    ask : str
        As for `Tree`.
    inner : str
        Folder inside the zip.
    """

    def __init__(self, file: Path, ask: str, inner: str = "") -> None:
        super().__init__(file / inner, ask)
        self._file, self._inner = file, inner

    def listing(self, place: str = "") -> tuple[list[str], list[str]]:
        """List the folder from the names in the zip."""
        folders, files = open_zip(self._file).folders.get(_join(self._inner, place), ([], []))
        return list(filter(_is_visible, folders)), list(filter(_is_visible, files))

    def at(self, place: str) -> Tree:
        """Return a subfolder as a copy."""
        return ZipTree(self._file, self.ask, _join(self._inner, place))


def open_tree(root: Path, ask: str) -> Tree:
    """Open a folder or a zip.

    Raises
    ------
    InputError
        Neither a folder nor a zip.
    """
    if root.is_dir():
        return FolderTree(root, ask)
    if root.is_file() and root.suffix.lower() == ".zip":
        open_zip(root)
        return ZipTree(root, ask)
    if root.is_file():
        raise InputError(f"{root}: a {root.suffix or 'nameless'} file; unpack it, or give a folder or a zip; {ask}")
    raise InputError(f"{root}: absent; {ask}")


def _is_visible(name: str) -> bool:
    return not name.startswith((".", "__MACOSX"))


def _join(place: str, name: str) -> str:
    return f"{place}/{name}" if place and name else place or name
