"""What scoring says of one image."""

from __future__ import annotations

from anomem.fitting import Fitted
from anomem.runtime import scoring
from anomem.runtime.scoring import ImageResult, Scored

__all__ = ["Scored", "describe"]


def describe(result: ImageResult, name: str, state: Fitted) -> Scored:
    """Turn a scorer's result into what a user reads: p-value, decision, and the map in the image's own frame."""
    return scoring.describe(result, name, state.preprocessing, state.calibration)
