"""Result of one scored image."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np

from anomem.runtime.calibration import Calibration
from anomem.runtime.scoring import ImageResult
from anomem.types import FloatArray

__all__ = ["Scored", "describe"]


@dataclass(frozen=True)
class Scored:
    """Result of one image.

    Parameters
    ----------
    index : int
        Position of the image in the input.
    name : str
        Path, or position in an array.
    digest : int
        Content hash.
    score : float
        Raw anomaly score, higher = more anomalous; NaN if `error` is set.
    p_value : float
        Conformal p-value, (1 + #{calibration scores >= score}) / (n + 1).
    anomalous : bool
        True if p_value <= alpha.
    map : ndarray or None
        (H, W) float32 in the image's own frame and size.
    error : str or None
        Reason why the image could not be read.
    stratum : str or None
        Stratum whose calibration judged the image; None without strata.
    group : hashable or None
        Group of the image; None for a group of its own.
    """

    index: int
    name: str
    digest: int
    score: float
    p_value: float
    anomalous: bool
    map: FloatArray | None = None
    error: str | None = None
    stratum: str | None = None
    group: Hashable | None = None


def describe(
    result: ImageResult,
    name: str,
    calibration: Calibration,
    *,
    stratum: str | None = None,
    group: Hashable | None = None,
) -> Scored:
    """Return a network's result with its p-value, verdict and map in the image's own frame."""
    if result.error is not None:
        return Scored(result.index, name, 0, np.nan, np.nan, False, None, result.error, stratum, group)
    scores, known = np.asarray([result.score], dtype=np.float32), calibration.of(stratum)
    return Scored(
        result.index,
        name,
        result.digest,
        float(scores[0]),
        float(known.p_value(scores)[0]),
        bool(known.decide(scores)[0]),
        result.map,
        stratum=stratum,
        group=group,
    )
