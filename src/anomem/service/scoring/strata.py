"""Strata of images for models that have a calibration per camera, product or shift."""

from __future__ import annotations

from collections.abc import Sequence

from anomem.runtime.model import Model

__all__ = ["check_stratum", "strata_for"]


def check_stratum(model: Model, stratum: str | None) -> None:
    """Refuse an image that no calibration of the model can judge.

    Raises
    ------
    InputError
        The model has strata, and none of this name.
    """
    calibration = model.calibration_
    if calibration.strata is not None:
        calibration.of(stratum or "")


def strata_for(model: Model, strata: Sequence[str | None]) -> list[str] | None:
    """Return the strata to score images with; None for a model with one calibration for all."""
    return None if model.calibration_.strata is None else [stratum or "" for stratum in strata]
