"""Heatmap paths that mirror the folders of the images."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from anomem.cli.output import check_folder
from anomem.errors import InputError
from anomem.runtime.atomic import NAME_BYTES, shortened


@dataclass(frozen=True)
class Heatmaps:
    """Heatmap path of each image.

    Parameters
    ----------
    folder : Path
        Folder as given by the user.
    places : mapping of str to Path
        Image path -> heatmap path relative to the folder.
    """

    folder: Path
    places: Mapping[str, Path]

    def of(self, path: str) -> str:
        """Return the heatmap path of an image, relative to the current directory."""
        return str(self.folder / self.places[path])


def planned(folder: Path, images: Sequence[Path], paths: Sequence[Path]) -> Heatmaps:
    """Choose unique heatmap paths that mirror the folders of the images.

    Raises
    ------
    InputError
        The folder cannot be made or lies inside a scored one (heatmaps would be scored the next time), or a heatmap
        would overwrite another file.
    """
    from anomem.runtime.images import HEATMAP, has_title

    check_folder(folder)
    target = os.path.realpath(folder)
    for place in images:
        if place.is_dir() and Path(target).is_relative_to(os.path.realpath(place)):
            raise InputError(f"{folder}: lies inside {place}, whose images are scored; choose a folder outside")
    base = _common_folder(images)
    places: dict[str, Path] = {}
    taken: set[str] = set()
    for path in paths:
        if str(path) not in places:
            places[str(path)] = _free(_png(_relative(path, base)), taken)
    for place in places.values():
        if (folder / place).exists() and not has_title(folder / place, HEATMAP):
            raise InputError(f"{folder / place}: exists and is not a heatmap; choose another folder for heatmaps")
    return Heatmaps(folder, places)


def _common_folder(images: Sequence[Path]) -> str:
    from anomem.runtime.files import is_folder

    folders = [_absolute(place if is_folder(place) else place.parent) for place in images]
    try:
        return os.path.commonpath(folders)
    except ValueError:  # two drives
        return ""


def _relative(path: Path, base: str) -> Path:
    absolute = Path(_absolute(path))
    return absolute.relative_to(base) if base and absolute.is_relative_to(base) else Path(absolute.name)


def _absolute(path: Path) -> str:
    """Return an absolute path without following links, which are part of the mirrored structure."""
    return os.path.normpath(path.absolute())


def _png(place: Path, number: str = "") -> Path:
    """Return the heatmap name of an image, cut to the longest file name allowed."""
    ending = f"{number}.png"
    stem = place.stem + place.suffix.partition("#")[2].join(("-", "")) if "#" in place.suffix else place.stem
    return place.with_name(shortened(stem, NAME_BYTES - len(ending)) + ending)


def _free(place: Path, taken: set[str]) -> Path:
    """Return a path with a number that makes it unique, ignoring case as many file systems do."""
    chosen, attempt = place, 2
    while str(chosen).casefold() in taken:
        chosen, attempt = _png(place, f"-{attempt}"), attempt + 1
    taken.add(str(chosen).casefold())
    return chosen
