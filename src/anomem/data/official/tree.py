"""A folder or a zip, listed alike; what is absent is named together with where it can be asked for."""

from __future__ import annotations

import csv
import io
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path

from anomem.data.official.inside import open_zip, read_file
from anomem.errors import InputError
from anomem.runtime.images import IMAGE_SUFFIXES

__all__ = ["Tree", "open_tree"]


class Tree(ABC):
    """A copy of an image set. Places in it are written relative to its root, with ``/``; ``""`` is the root itself.

    Parameters
    ----------
    root : Path
        The folder, the zip, or a folder inside the zip.
    ask : str
        Whose images these are and where they can be asked for: the end of every error about something absent.
    """

    def __init__(self, root: Path, ask: str) -> None:
        self.root, self.ask = root, ask

    @abstractmethod
    def listing(self, place: str = "") -> tuple[list[str], list[str]]:
        """Visible folders and files directly in a folder, sorted; two empty lists where there is no such folder."""

    @abstractmethod
    def at(self, place: str) -> Tree:
        """Open a folder of this copy as a copy of its own."""

    def path(self, place: str = "") -> Path:
        """Path of a place; it may go on inside a file."""
        return self.root / place

    def folders(self, place: str = "") -> list[str]:
        """Names of the folders directly in a folder, ``ground_truth`` left out."""
        return [name for name in self.listing(place)[0] if name != "ground_truth"]

    def images(self, place: str = "", *, deep: bool = False) -> list[str]:
        """Places of the images in a folder, sorted; with ``deep`` those of the folders below it too."""
        folders, files = self.listing(place)
        found = [_join(place, name) for name in files if Path(name).suffix.lower() in IMAGE_SUFFIXES]
        if deep:
            for name in folders:
                found += self.images(_join(place, name), deep=True)
        return found

    def has(self, place: str) -> bool:
        """Whether there is such a file or folder."""
        parent, _, name = place.rpartition("/")
        return not name or any(name in names for names in self.listing(parent))

    def need(self, *places: str) -> str:
        """Return the first of several places that is there; InputError naming the first when none is."""
        found = next((place for place in places if self.has(place)), None)
        if found is None:
            others = f" (nor {', '.join(places[1:])})" if places[1:] else ""
            raise self.absent(f"{self.path(places[0])}: absent{others}")
        return found

    def need_images(self, place: str, *, deep: bool = False) -> list[str]:
        """List the images of a folder that must hold some; InputError when it is absent or empty."""
        found = self.images(self.need(place), deep=deep)
        if not found:
            raise self.absent(f"{self.path(place)}: 0 images")
        return found

    def absent(self, what: str) -> InputError:
        """Say what is absent, what is there instead, and where to ask."""
        folders, files = self.listing()
        names = [f"{name}/" for name in folders] + files
        there = f"found {', '.join(names[:6])}{', ...' if len(names) > 6 else ''}" if names else "the folder is empty"
        return InputError(f"{what}; {there}; {self.ask}")

    def text(self, place: str) -> str:
        """Read a text file that must be there."""
        content = read_file(self.path(self.need(place)))
        try:
            return content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise InputError(f"{self.path(place)}: not UTF-8: copy it again") from error

    def rows(self, place: str) -> Iterator[tuple[str, list[str]]]:
        """Read a CSV file that must be there: for each line that is not empty where it stands, and its cells."""
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
            For each column that is needed the names it may have, in lower case.

        Yields
        ------
        where, cells : str, dict
            Where the row stands, and its cells by the keys of ``columns``.
        """
        rows = self.rows(place)
        header = [name.casefold() for name in next(rows, ("", []))[1]]
        at = {key: next((header.index(n) for n in names if n in header), None) for key, names in columns.items()}
        for key, index in at.items():
            if index is None:
                raise InputError(f"{self.path(place)}: no column {columns[key][0]!r} (found: {', '.join(header)})")
        for where, cells in rows:
            if len(cells) < len(header):
                raise InputError(f"{where}: {len(cells)} cells under {len(header)} columns: copy the file again")
            yield where, {key: cells[index] for key, index in at.items() if index is not None}


class FolderTree(Tree):
    """A folder."""

    def listing(self, place: str = "") -> tuple[list[str], list[str]]:
        """Look into the folder now."""
        folders: list[str] = []
        files: list[str] = []
        try:
            with os.scandir(self.path(place)) as entries:
                for entry in entries:
                    if not entry.name.startswith("."):
                        (folders if entry.is_dir() else files).append(entry.name)
        except (FileNotFoundError, NotADirectoryError):
            return [], []
        except OSError as error:
            raise InputError(f"{self.path(place)}: {error.strerror}: name a readable folder") from error
        return sorted(folders), sorted(files)

    def at(self, place: str) -> Tree:
        """Open a folder below."""
        return FolderTree(self.path(place), self.ask)


class ZipTree(Tree):
    """A zip, or a folder in it.

    Parameters
    ----------
    file : Path
        The zip.
    ask : str
        As for `Tree`.
    inner : str
        The folder in it.
    """

    def __init__(self, file: Path, ask: str, inner: str = "") -> None:
        super().__init__(file / inner, ask)
        self._file, self._inner = file, inner

    def listing(self, place: str = "") -> tuple[list[str], list[str]]:
        """Look it up among the names in the zip."""
        return open_zip(self._file).folders.get(_join(self._inner, place), ([], []))

    def at(self, place: str) -> Tree:
        """Open a folder below."""
        return ZipTree(self._file, self.ask, _join(self._inner, place))


def open_tree(root: Path, ask: str) -> Tree:
    """Open a folder or a zip.

    Raises
    ------
    InputError
        Neither of them.
    """
    if root.is_dir():
        return FolderTree(root, ask)
    if root.is_file() and root.suffix.lower() == ".zip":
        open_zip(root)
        return ZipTree(root, ask)
    if root.is_file():
        raise InputError(f"{root}: a {root.suffix or 'nameless'} file: unpack it, or give a folder or a zip; {ask}")
    raise InputError(f"{root}: absent; {ask}")


def _join(place: str, name: str) -> str:
    return f"{place}/{name}" if place and name else place or name
