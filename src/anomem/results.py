"""What scoring says of one image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from anomem.fitting import Fitted
from anomem.nn.inference import ImageResult
from anomem.types import FloatArray


@dataclass(frozen=True)
class Scored:
    """One image's result.

    Parameters
    ----------
    index : int
        Position among the images given.
    name : str
        Path, or position in an array.
    digest : int
        Content hash.
    score : float
        Raw anomaly score, higher = more anomalous; NaN where `error` is set.
    p_value : float
        Conformal p-value, (1 + #{calibration scores >= score}) / (n + 1).
    anomalous : bool
        Whether p_value <= alpha.
    map : ndarray or None
        (H, W) float32 in the image's own frame and size.
    error : str or None
        Why the image could not be read.
    """

    index: int
    name: str
    digest: int
    score: float
    p_value: float
    anomalous: bool
    map: FloatArray | None = None
    error: str | None = None


def describe(result: ImageResult, name: str, state: Fitted) -> Scored:
    """Turn a scorer's result into what a user reads: p-value, decision, and the map in the image's own frame."""
    if result.error is not None:
        return Scored(result.index, name, 0, np.nan, np.nan, False, None, result.error)
    full = None
    if result.tile_maps is not None:
        full = state.preprocessing.assemble(result.tile_maps, result.height_width)
    scores = np.asarray([result.score], dtype=np.float32)
    return Scored(
        result.index,
        name,
        result.digest,
        float(scores[0]),
        float(state.calibration.p_value(scores)[0]),
        bool(state.calibration.decide(scores)[0]),
        full,
    )
