"""Labels of images from the folders around them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from anomem.errors import InputError
from anomem.runtime.words import class_of, mentions_defect
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

    The deepest class word counts. Without one, images in a folder beside a folder of normal images are anomalous, as
    are those in a folder whose name has a word for anomalous images among others.

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
        A folder of normal images, unless named by `normal`, lies inside a folder of anomalous images.
    """
    label_of = _labeller(normal)
    folders = {parts[: i + 1] for parts in set(below) for i in range(len(parts))}
    around_good = {folder[:-1] for folder in folders if label_of(folder[-1]) == NORMAL}
    known = {parts: _placed(parts, label_of, around_good) for parts in set(below)}
    for parts, placed in known.items():
        if normal is None and placed.label == NORMAL and placed.at is not None:
            _check_around(parts[: placed.at + 1], label_of, around_good, place)
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


def _placed(parts: tuple[str, ...], label_of: Callable[[str], int | None], around_good: set[tuple[str, ...]]) -> Placed:
    labels = [label_of(part) for part in parts]
    named = [i for i, label in enumerate(labels) if label is not None]
    at = named[-1] if named else -1
    beside = [i for i, label in enumerate(labels) if label is None and parts[:i] in around_good]
    if beside and not named:
        return Placed(ANOMALOUS, beside[0])
    mentioned = [i for i in range(at + 1, len(parts)) if mentions_defect(parts[i])]
    if mentioned and (not named or labels[at] == NORMAL):
        return Placed(ANOMALOUS, mentioned[-1], True)
    return Placed(labels[at], at, True) if named else Placed()


def _check_around(
    parts: tuple[str, ...],
    label_of: Callable[[str], int | None],
    around_good: set[tuple[str, ...]],
    place: Path,
) -> None:
    """Refuse a folder of normal images inside one of anomalous images."""
    for i, part in enumerate(parts[:-1]):
        label = label_of(part)
        if label == ANOMALOUS or (label is None and parts[:i] in around_good):
            raise InputError(
                f"{place}: {'/'.join(parts)} holds normal images by its name, {part}/ around it "
                f"anomalous ones; rename one of the two, or name the class with --normal {parts[-1]} "
                f"(normal={parts[-1]!r})"
            )
