"""Recalibration: eligible images, and the colour scale of their maps."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt

from anomem.errors import AnomemWarning, CalibrationError, ImageError, InputError
from anomem.runtime.blend import blended
from anomem.runtime.calibration import Calibration, calibrate, check_alpha
from anomem.runtime.scoring import ImageResult, PreparedImages
from anomem.types import FloatArray

__all__ = ["CALIBRATE_MAX", "Fresh", "MapScale", "calibrated_anew", "fresh_normals", "seen_before", "unseen"]

CALIBRATE_MAX = 2048
"""Maximum number of calibration images."""

SCALE_IMAGES = 64
SCALE_RANGES = 3
"""Full brightness of a map is so many times the range of 99.9 % of the normals' pixels."""
"""Number of calibration images used for the colour scale."""


def unseen(images: PreparedImages, seen: frozenset[int]) -> list[int]:
    """Choose images to calibrate on.

    Parameters
    ----------
    images : PreparedImages
        Normals.
    seen : frozenset of int
        Content hashes of the images used for training, tuning or labels.

    Returns
    -------
    list of int
        Positions of unseen images, without duplicates, in order; at most :data:`CALIBRATE_MAX`, drawn by content
        independently of order and names. A warning names the number left out.

    Raises
    ------
    InputError
        No image is left.
    """
    first: dict[int, int] = {}
    unreadable: list[int] = []
    for position, index in enumerate(images.indices):
        try:
            digest = images.source.digest(int(index))
        except ImageError:
            if not images.skip_bad:
                raise
            unreadable.append(position)
            continue
        if digest not in seen:
            first.setdefault(digest, position)
    if len(first) + len(unreadable) < len(images):
        known = len(images) - len(first) - len(unreadable)
        line = f"left out {known} images that the model has learnt from or that stand there twice"
        warnings.warn(line, AnomemWarning, stacklevel=4)
    if not first:
        raise InputError("no image to calibrate on is new to the model; give normals that it has not seen")
    if len(first) <= CALIBRATE_MAX:
        return sorted([*first.values(), *unreadable])  # scoring reports why they cannot be read
    line = f"calibrating on {CALIBRATE_MAX} of {len(first)} images, drawn by content: more hardly sharpen a promise"
    warnings.warn(line, AnomemWarning, stacklevel=4)
    drawn = sorted(first, key=lambda digest: hashlib.sha256(digest.to_bytes(8, "big")).digest())
    return sorted(first[digest] for digest in drawn[:CALIBRATE_MAX])


@dataclass(frozen=True)
class Fresh:
    """Request to calibrate on fresh normals.

    Parameters
    ----------
    alpha : float or None
        Promised false-alarm rate; None for the former one, if there are enough normals.
    groups, strata : sequence or None
        One entry per image.
    strata_by : str
        Rule that names the strata.
    blend : bool
        Keep the former scores beside the fresh ones; see `anomem.runtime.blend.blended`.
    """

    alpha: float | None = None
    groups: Sequence[Hashable | None] | None = None
    strata: Sequence[str] | None = None
    strata_by: str = ""
    blend: bool = False

    def subset(self, positions: Sequence[int]) -> Fresh:
        """Return the request for some of the images."""
        columns = {"groups": self.groups, "strata": self.strata}
        chosen = {name: None if column is None else [column[i] for i in positions] for name, column in columns.items()}
        return replace(self, groups=chosen["groups"], strata=chosen["strata"])  # type: ignore[arg-type]

    def check(self, n: int) -> None:
        """Check, before scoring, that n fresh normals carry alpha, unless they are blended."""
        if self.alpha is None or self.blend:
            return
        # Scores in any order lead to the same refusal.
        calibrate(np.zeros(n), self.alpha, groups=self.groups, strata=self.strata)


def seen_before(digests: Mapping[str, frozenset[int]], fresh: Fresh) -> frozenset[int]:
    """Return the content hashes of images that cannot calibrate; for a blend those of the former calibration, too."""
    roles = ("learn", "tune", "labelled", "calibration")[: 4 if fresh.blend else 3]
    return frozenset().union(*(digests[role] for role in roles))


def fresh_normals(images: PreparedImages, seen: frozenset[int], fresh: Fresh) -> tuple[PreparedImages, Fresh]:
    """Choose images to calibrate on, with their groups and strata; see `unseen`.

    Raises
    ------
    InputError
        No image is new to the model, or the number of groups differs from that of images.
    CalibrationError
        Alpha too small for the number of images or groups.
    """
    check_alpha(fresh.alpha, len(images) if not fresh.blend else CALIBRATE_MAX)
    if fresh.groups is not None and len(fresh.groups) != len(images):
        raise InputError(f"groups has {len(fresh.groups)} entries for {len(images)} images; give one per image")
    chosen = unseen(images, seen)
    wanted = fresh.subset(chosen)
    wanted.check(len(chosen))
    return images.subset(chosen), wanted


def calibrated_anew(
    scores: npt.ArrayLike, fresh: Fresh, former: Calibration, precision: str | None = None
) -> Calibration:
    """Calibrate on fresh scores, by default at the former alpha if there are enough scores."""
    if fresh.blend:
        return blended(former, scores, fresh.alpha, fresh.groups, precision)
    found = partial(
        calibrate,
        scores,
        precision=precision or former.precision,
        groups=fresh.groups,
        strata=fresh.strata,
        strata_by=fresh.strata_by,
    )
    if fresh.alpha is not None:
        return found(fresh.alpha)
    try:
        return found(former.alpha)
    except CalibrationError:
        return found(None)


class MapScale:
    """Colour scale of a model, collected from the maps of its first calibration normals.

    Examples
    --------
    >>> MapScale().result()
    (0.0, 1.0)
    """

    def __init__(self) -> None:
        self._values: list[FloatArray] = []

    def add(self, result: ImageResult) -> None:
        """Add the map of an image's highest-scoring tile, if any."""
        if result.tile_map is not None and len(self._values) < SCALE_IMAGES:
            self._values.append(result.tile_map.ravel())

    def result(self) -> tuple[float, float]:
        """Limits (low, high): normal pixels are dark, full brightness is three times the normals' range."""
        if not self._values:
            return 0.0, 1.0
        low, top = np.quantile(np.concatenate(self._values), (0.5, 0.999))
        return float(low), float(max(low + SCALE_RANGES * (top - low), low + 1e-6))
