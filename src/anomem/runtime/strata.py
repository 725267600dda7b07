"""Strata: cameras, products or shifts whose images have a calibration of their own."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from anomem.errors import InputError
from anomem.runtime.groups import Groups, matched_in_paths
from anomem.runtime.sources import ImageSource
from anomem.types import IntArray

__all__ = ["COLUMN", "Strata", "numbered", "required", "resolve_strata"]

COLUMN = "stratum"
"""Column of a table that names the strata by default."""


@dataclass(frozen=True, eq=False)
class Strata:
    """Stratum of each calibration score.

    Parameters
    ----------
    names : tuple of str
        Names, sorted.
    numbers : ndarray of intp, shape (n,)
        Position in `names` of each score's stratum; every name occurs.
    by : str
        Rule that names an image's stratum: a table's column, "folder", or a regular expression; empty if unknown.

    Raises
    ------
    InputError
        Numbers and names do not fit together.
    """

    names: tuple[str, ...]
    numbers: IntArray
    by: str = ""

    def __post_init__(self) -> None:
        """Check that names and numbers fit together."""
        known = np.unique(self.numbers).tolist()
        if self.numbers.ndim != 1 or known != list(range(len(self.names))) or list(self.names) != sorted(self.names):
            raise InputError("strata: names and numbers do not fit together; fit again")
        self.numbers.flags.writeable = False

    def __eq__(self, other: object) -> bool:
        """Return True for the same strata of the same scores."""
        if not isinstance(other, Strata):
            return NotImplemented
        same_rule = (self.names, self.by) == (other.names, other.by)
        return same_rule and np.array_equal(self.numbers, other.numbers)

    def __hash__(self) -> int:
        """Return a hash consistent with equality."""
        return hash((self.names, self.by))

    def positions(self, name: str) -> IntArray:
        """Return the positions of a stratum's scores."""
        return np.flatnonzero(self.numbers == self.names.index(name))


def numbered(strata: Sequence[str], by: str = "") -> Strata:
    """Return the strata of scores from the name of each.

    Examples
    --------
    >>> strata = numbered(["left", "right", "left"])
    >>> strata.names, strata.numbers.tolist()
    (('left', 'right'), [0, 1, 0])
    """
    names = tuple(sorted(set(strata)))
    place = {name: number for number, name in enumerate(names)}
    return Strata(names, np.asarray([place[name] for name in strata], dtype=np.intp), by)


def required(strata: Sequence[Hashable | None], names: Iterable[str]) -> tuple[str, ...]:
    """Return the stratum of each image as text.

    Parameters
    ----------
    strata : sequence of hashable or None
        One entry per image.
    names : iterable of str
        Names of the images, for the error.

    Raises
    ------
    InputError
        An image without a stratum.
    """
    missing = [name for name, stratum in zip(names, strata, strict=True) if stratum in (None, "")]
    if missing:
        raise InputError(
            f"{missing[0]}: has no stratum, as {len(missing):,} of {len(strata):,} images; name one per image"
        )
    return tuple(map(str, strata))


def resolve_strata(strata: Groups, source: ImageSource) -> tuple[str, ...]:
    """Return the stratum of each image.

    Parameters
    ----------
    strata : sequence or str
        One entry per image; or "folder" for the name of the image's folder; or a regular expression searched in each
        path, whose first parenthesis, or else whole match, is the name.
    source : ImageSource
        The images.

    Raises
    ------
    InputError
        Sequence of another length, an image without a stratum, an invalid expression, or images without paths.
    """
    names = [source.name(i) for i in range(len(source))]
    if isinstance(strata, str):
        return required(_by_rule(strata, source), names)
    found = len(strata) if strata is not None and hasattr(strata, "__len__") else "no"
    if strata is None or found != len(source):
        raise InputError(
            f"strata has {found} entries for {len(source)} images; give one per image, or 'folder' or a regular "
            "expression"
        )
    return required(strata, names)


def _by_rule(rule: str, source: ImageSource) -> Sequence[Hashable | None]:
    if rule == "folder":
        # The folder's own name, since new images lie elsewhere than those of the fit.
        return matched_in_paths(r"([^/]+)/[^/]*$", source, "strata")
    return matched_in_paths(rule, source, "strata")
