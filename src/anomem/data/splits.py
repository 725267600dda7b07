"""Split of normals into *learn*, *tune* and *calibrate*, by content."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, fields

import numpy as np

from anomem.errors import AnomemWarning, InputError
from anomem.runtime.recalibration import CALIBRATE_MAX
from anomem.types import IntArray

__all__ = ["FEW", "Split", "fold_normals", "groups_of", "split_normals", "split_within"]

FEW = 30
"""Number of normals below which each part gets a third."""

_FOLDS, _FOLDS_OF_FEW, _FEW_FOLDED = 5, 10, 50
"""Number of folds; below 50 normals ten, so that each memory lacks a tenth only."""

_LEARN, _TUNE, _CALIBRATE = range(3)


@dataclass(frozen=True)
class Split:
    """Indices of disjoint parts that together contain all normals.

    Parameters
    ----------
    learn : ndarray of intp, sorted
        Normals for training the backbone and the memory.
    tune : ndarray of intp, sorted
        Normals for standardisation, early stopping and the second stage.
    calibrate : ndarray of intp, sorted
        Normals for p-values only: one image per group, so that they are independent.
    beside : ndarray of intp, sorted
        Other images of those groups, used only in p-values that count groups.
    """

    learn: IntArray
    tune: IntArray
    calibrate: IntArray
    beside: IntArray


def split_normals(digests: Sequence[int], groups: Sequence[Hashable | None] | None = None, *, seed: int) -> Split:
    """Split normals without dividing equal contents or groups.

    *tune* gets 15 % (at least 8, at most 1,024), *calibrate* 20 % (at least 10, at most 2,048),
    *learn* the rest; below 30 normals, or 30 groups of them, each gets a third. Images of equal content,
    and images of one group, stay together, which may shift the sizes; no part is empty. The parts
    depend only on contents, groups and seed, not on the order of the images.

    Parameters
    ----------
    digests : sequence of int, length N
        Content hashes.
    groups : sequence of hashable or None, length N, optional
        Part, lot or burst that must not be split; None for a group of its own.
    seed : int
        Random seed of the split.

    Returns
    -------
    Split

    Raises
    ------
    InputError
        Fewer than 3 normals, fewer than 3 that may be separated, or different lengths.

    Warns
    -----
    AnomemWarning
        Fewer than 30 normals.

    Examples
    --------
    >>> split = split_normals(range(100), seed=0)
    >>> len(split.learn), len(split.tune), len(split.calibrate)
    (65, 15, 20)
    """
    n = len(digests)
    if groups is not None and len(groups) != n:
        raise InputError(f"{len(groups)} groups for {n} images; give one each (None: no group)")
    if n < 3:
        raise InputError(f"{n} normal images: at least 3 are needed, 30 or more are advisable")
    units = _units([int(digest) for digest in digests], groups)
    if len(units) < 3:
        raise InputError(
            f"{n} normal images, but only {len(units)} that may be separated (equal images and "
            f"images of one group stay together): at least 3 are needed"
        )
    few = n < FEW or (groups is not None and len(units) < FEW)
    if few:
        found = f"{n} normal images" if n < FEW else f"{len(units)} groups of normal images"
        warnings.warn(
            f"only {found}: a third each to learn, tune and calibrate; {FEW} or more are advisable",
            AnomemWarning,
            stacklevel=2,
        )
    shuffled = _shuffled(units, digests, seed)
    parts = _assign(shuffled, _targets(n, few=few))
    learn, tune, held_out = (np.array(sorted(part), dtype=np.intp) for part in parts)
    unit_of = {i: number for number, unit in enumerate(units) for i in unit}
    first: dict[int, int] = {}
    for i in sorted(held_out.tolist(), key=lambda i: (int(digests[i]), i)):
        first.setdefault(unit_of[i], i)
    calibrate = np.array(sorted(first.values()), dtype=np.intp)
    return Split(learn, tune, calibrate, np.setdiff1d(held_out, calibrate))


def split_within(
    digests: Sequence[int],
    groups: Sequence[Hashable | None] | None,
    strata: Sequence[str] | None,
    *,
    seed: int,
) -> Split:
    """Split the normals of each stratum by `split_normals`, so that each calibrates on normals of its own.

    Raises
    ------
    InputError
        As for `split_normals`, in any stratum.
    """
    if strata is None:
        return split_normals(digests, groups, seed=seed)
    parts: list[Split] = []
    for name in sorted(set(strata)):
        chosen = np.asarray([i for i, stratum in enumerate(strata) if stratum == name], dtype=np.intp)
        own = None if groups is None else [groups[int(i)] for i in chosen]
        try:
            split = split_normals([digests[int(i)] for i in chosen], own, seed=seed)
        except InputError as error:
            raise InputError(f"stratum {name!r}: {error}") from error
        parts.append(Split(*(chosen[part] for part in (split.learn, split.tune, split.calibrate, split.beside))))
    return Split(
        *(np.sort(np.concatenate([getattr(part, f.name) for part in parts])).astype(np.intp) for f in fields(Split))
    )


def fold_normals(digests: Sequence[int], groups: Sequence[int], *, seed: int) -> IntArray:
    """Assign each normal to a fold without dividing groups.

    There are 5 folds, 10 below 50 normals, and never more than groups. Large groups come first, each into the smallest
    fold. The folds depend only on contents, groups and seed, not on the order of the images.

    Parameters
    ----------
    digests : sequence of int, length N
        Content hashes.
    groups : sequence of int, length N
        Group of each image, as of :func:`groups_of`.
    seed : int
        Random seed.

    Returns
    -------
    ndarray of intp, (N,)
        Folds from 0.

    Raises
    ------
    InputError
        Fewer than 3 groups.

    Examples
    --------
    >>> int(fold_normals(range(6), [0, 0, 1, 2, 3, 3], seed=0).max())
    3
    """
    units: dict[int, list[int]] = {}
    for i, group in enumerate(groups):
        units.setdefault(group, []).append(i)
    if len(units) < 3:
        raise InputError(
            f"{len(digests)} normal images, but only {len(units)} that may be separated (equal images and "
            f"images of one group stay together): at least 3 are needed"
        )
    count = min(_FOLDS_OF_FEW if len(digests) < _FEW_FOLDED else _FOLDS, len(units))
    folds, sizes = np.zeros(len(digests), dtype=np.intp), [0] * count
    for unit in sorted(_shuffled(list(units.values()), digests, seed), key=len, reverse=True):
        smallest = sizes.index(min(sizes))
        folds[unit] = smallest
        sizes[smallest] += len(unit)
    return folds


def groups_of(digests: Sequence[int], groups: Sequence[Hashable | None] | None = None) -> list[int]:
    """Return (N,) numbers of the groups kept together: images linked by content or group, also indirectly."""
    units = _units([int(digest) for digest in digests], groups)
    numbers = {i: number for number, unit in enumerate(units) for i in unit}
    return [numbers[i] for i in range(len(digests))]


def _targets(n: int, *, few: bool) -> list[int]:
    """Return the sizes of learn, tune and calibrate for ``n`` separable images."""
    if few:
        third, left = divmod(n, 3)
        return [third + (left > 0), third, third + (left > 1)]
    tune = min(max(round(0.15 * n), 8), 1024)
    calibrate = min(max(round(0.20 * n), 10), CALIBRATE_MAX)
    return [n - tune - calibrate, tune, calibrate]


def _units(digests: Sequence[int], groups: Sequence[Hashable | None] | None) -> list[list[int]]:
    """Join indices linked by equal content or group, also indirectly."""
    parent = list(range(len(digests)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    first: dict[tuple[str, Hashable], int] = {}
    for i, digest in enumerate(digests):
        keys: list[tuple[str, Hashable]] = [("content", digest)]
        if groups is not None and groups[i] is not None:
            keys.append(("group", groups[i]))
        for key in keys:
            parent[root(i)] = root(first.setdefault(key, i))
    units: dict[int, list[int]] = {}
    for i in range(len(digests)):
        units.setdefault(root(i), []).append(i)
    return list(units.values())


def _shuffled(units: list[list[int]], digests: Sequence[int], seed: int) -> list[list[int]]:
    """Order units by a seeded hash of their content, independently of the input order."""

    def draw(unit: list[int]) -> bytes:
        content = min(int(digests[i]) for i in unit)
        return hashlib.sha256(f"{seed} {content}".encode()).digest()

    return sorted(units, key=draw)


def _assign(units: list[list[int]], targets: list[int]) -> list[list[int]]:
    """Assign each unit to the part with the largest deficit; the last ones to empty parts."""
    # Groups larger than half of the smallest part are placed first, while there is room.
    limit = max(min(targets) // 2, 1)
    giants = sorted((unit for unit in units if len(unit) > limit), key=len, reverse=True)
    order = giants + [unit for unit in units if len(unit) <= limit]
    parts: list[list[int]] = [[], [], []]
    for place, unit in enumerate(order):
        empty = [part for part in (_LEARN, _CALIBRATE, _TUNE) if not parts[part]]
        left = len(order) - place
        allowed = empty if left <= len(empty) else (_LEARN, _CALIBRATE, _TUNE)
        chosen = max(allowed, key=lambda part: targets[part] - len(parts[part]))
        parts[chosen].extend(unit)
    return parts
