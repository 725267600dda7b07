"""Strata: cameras, products or shifts whose images have a calibration of their own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from anomem.errors import InputError
from anomem.types import IntArray

__all__ = ["COLUMN", "Strata", "numbered", "unknown_stratum"]

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

    @classmethod
    def stored(cls, facts: Mapping[str, Any], numbers: npt.ArrayLike | None) -> Strata | None:
        """Return strata from the facts of a stored calibration and the numbers beside them; None without strata."""
        if "strata" not in facts:
            return None
        return cls(tuple(facts["strata"]), np.asarray(numbers).astype(np.intp), facts["strata_by"])

    def facts(self) -> dict[str, Any]:
        """Return names and rule for a manifest."""
        return {"strata": list(self.names), "strata_by": self.by}

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


def unknown_stratum(stratum: str | None, known: Iterable[str]) -> InputError:
    """Return the error for an image of no stratum, or of one without calibration normals."""
    names = ", ".join(known) or "none"
    if stratum is None:
        return InputError(f"strata are required: each has a threshold of its own; name one per image ({names})")
    return InputError(
        f"stratum {stratum!r} has no calibration normals, so no alpha below 1 (known: {names}); calibrate on normals "
        "of all strata"
    )
