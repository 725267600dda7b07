"""Recalibration: eligible images, and the colour scale of their maps."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Hashable, Sequence

import numpy as np
import numpy.typing as npt

from anomem.errors import AnomemWarning, ImageError, InputError
from anomem.runtime.calibration import Calibration, calibrate, check_alpha, group_numbers
from anomem.runtime.scoring import ImageResult, PreparedImages
from anomem.types import FloatArray

__all__ = ["CALIBRATE_MAX", "MapScale", "calibrated_anew", "fresh_normals", "unseen"]

CALIBRATE_MAX = 2048
"""Maximum number of calibration images."""

SCALE_IMAGES = 64
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


def fresh_normals(
    images: PreparedImages, seen: frozenset[int], alpha: float | None, groups: Sequence[Hashable | None] | None
) -> tuple[PreparedImages, list[Hashable | None]]:
    """Choose images to calibrate on, with their groups; see `unseen`.

    Raises
    ------
    InputError
        No image is new to the model, or the number of groups differs from that of images.
    CalibrationError
        Alpha too small for the number of images or groups.
    """
    if groups is not None and len(groups) != len(images):
        raise InputError(f"groups has {len(groups)} entries for {len(images)} images; give one per image")
    chosen = unseen(images, seen)
    counted: list[Hashable | None] = [None if groups is None else groups[i] for i in chosen]
    grouped = any(group is not None for group in counted)
    check_alpha(alpha, len(set(group_numbers(counted).tolist())), grouped=grouped)
    return images.subset(chosen), counted


def calibrated_anew(
    scores: npt.ArrayLike,
    alpha: float | None,
    former: Calibration,
    groups: Sequence[Hashable | None] | None,
    precision: str | None = None,
) -> Calibration:
    """Calibrate on fresh scores, by default at the former alpha if there are enough scores."""
    n = np.size(scores) if groups is None else len(set(group_numbers(groups).tolist()))
    if alpha is None and former.alpha >= 1 / (n + 1):
        alpha = former.alpha
    return calibrate(scores, alpha, precision or former.precision, groups)


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
        if result.tile_maps is not None and len(self._values) < SCALE_IMAGES:
            self._values.append(result.tile_maps[result.tile].ravel())

    def result(self) -> tuple[float, float]:
        """Limits (low, high): normal pixels are dark, full brightness is three times the normals' range."""
        if not self._values:
            return 0.0, 1.0
        low, top = np.quantile(np.concatenate(self._values), (0.5, 0.999))
        return float(low), float(max(low + 3 * (top - low), low + 1e-6))
