"""Labels of images from the folders around them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from anomem.errors import InputError
from anomem.runtime.words import class_of
from anomem.types import ANOMALOUS, NORMAL

__all__ = ["Placed", "classify", "match_class"]


@dataclass(frozen=True)
class Placed:
    """Label of an image from its folders.

    Parameters
    ----------
    label : int or None
        0 normal, 1 anomalous, None if no folder gives a label.
    at : int or None
        Index of the folder that gives the label.
    named : bool
        True if the folder's name gives the label; False if it lies beside a folder of normal images.
    """

    label: int | None = None
    at: int | None = None
    named: bool = False


def classify(below: Sequence[tuple[str, ...]], normal: str | None, place: Path) -> list[Placed]:
    """Label images by the class words in their folders, at any depth.

    The deepest class word counts. Without one, images in a folder beside a folder of normal images are anomalous.

    Parameters
    ----------
    below : sequence of tuple of str
        Folders around each image, from the outermost.
    normal : str or None
        Class folder of normal images, instead of class words.
    place : Path
        Data set, for errors.

    Returns
    -------
    list of Placed

    Raises
    ------
    InputError
        A folder of normal images lies inside a folder of anomalous images.
    """
    label_of = _labeller(normal)
    folders = {parts[: i + 1] for parts in set(below) for i in range(len(parts))}
    around_good = {folder[:-1] for folder in folders if label_of(folder[-1]) == NORMAL}
    known = {parts: _placed(parts, label_of, around_good, place) for parts in set(below)}
    return [known[parts] for parts in below]


def match_class(place: Path, below: Iterable[tuple[str, ...]], normal: str) -> str:
    """Return the name of the requested class folder as spelled on disk.

    Raises
    ------
    InputError
        No match, or several that differ only in case.
    """
    counts = Counter(name for parts in set(below) for name in parts)
    if normal in counts:
        return normal
    matches = [name for name in counts if name.casefold() == normal.casefold()]
    if len(matches) == 1:
        return matches[0]
    first = ", ".join(dict.fromkeys(parts[0] for parts in sorted(set(below)) if parts)) or "no class folder"
    raise InputError(f"{place}: no class {normal!r}; found: {first}")


def _labeller(normal: str | None) -> Callable[[str], int | None]:
    if normal is None or class_of(normal) == NORMAL:
        return class_of

    def label_of(name: str) -> int | None:
        if name == normal:
            return NORMAL
        return ANOMALOUS if class_of(name) == ANOMALOUS else None

    return label_of


def _placed(
    parts: tuple[str, ...],
    label_of: Callable[[str], int | None],
    around_good: set[tuple[str, ...]],
    place: Path,
) -> Placed:
    labels = [label_of(part) for part in parts]
    named = [i for i, label in enumerate(labels) if label is not None]
    beside = [i for i, label in enumerate(labels) if label is None and parts[:i] in around_good]
    if not named:
        return Placed(ANOMALOUS, beside[0]) if beside else Placed()
    at = named[-1]
    above = [i for i in (*named, *beside) if i < at and labels[i] != NORMAL]
    if labels[at] == NORMAL and above:
        raise InputError(
            f"{place}: {'/'.join(parts[: at + 1])} holds normal images by its name, {parts[above[0]]}/ around it "
            f"anomalous ones; rename one of the two, or name the class with --normal CLASS (normal=)"
        )
    return Placed(labels[at], at, True)
