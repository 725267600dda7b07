"""Anomaly maps as pictures, on a colour scale fixed per model."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from anomem.errors import InputError
from anomem.types import RealArray, UInt8Image

__all__ = ["colourise", "overlay"]


# Equal steps of OKLab lightness from 0.14 to 0.97, violet over red to yellow, so that a map reads
# the same in grey and for most colour-blind readers.
_ANCHORS = np.array(
    [
        (8, 3, 34),
        (40, 0, 70),
        (78, 0, 89),
        (121, 0, 95),
        (167, 1, 89),
        (205, 38, 69),
        (232, 83, 40),
        (246, 129, 16),
        (248, 174, 65),
        (243, 216, 134),
        (246, 248, 219),
    ],
    np.float64,
)
_NOT_A_NUMBER = 127
_FULL_FROM = 0.25


def _table() -> npt.NDArray[np.uint8]:
    places = np.linspace(0, len(_ANCHORS) - 1, 256)
    columns = [np.interp(places, np.arange(len(_ANCHORS)), column) for column in _ANCHORS.T]
    table: npt.NDArray[np.uint8] = np.rint(np.stack(columns, axis=1)).astype(np.uint8)
    return table


_TABLE = _table()


def colourise(values: RealArray) -> UInt8Image:
    """Map values from 0 to 1 to colours from dark violet over red to light yellow.

    Parameters
    ----------
    values : ndarray of float, shape (H, W)
        Values, clipped to [0, 1]; NaN becomes grey.

    Returns
    -------
    ndarray of uint8, shape (H, W, 3)

    Raises
    ------
    InputError
        ``values`` is not two-dimensional.
    """
    if values.ndim != 2:
        raise InputError(f"colourise takes (H, W), not {values.shape}")
    missing = np.isnan(values)
    levels = np.rint(np.clip(np.where(missing, 0, values), 0, 1) * 255).astype(np.intp)
    colours: UInt8Image = _TABLE[levels]
    colours[missing] = _NOT_A_NUMBER
    return colours


def overlay(
    image: UInt8Image,
    values: RealArray,
    low: float,
    high: float,
    opacity: float = 0.5,
) -> UInt8Image:
    """Overlay an anomaly map on its image.

    The caller fixes the scale once per model, so that the same colour means the same deviation in
    every picture. Pixels with a map value of at most ``low``, or NaN, are unchanged; from a quarter
    of the scale on, colours have full opacity.

    Parameters
    ----------
    image : ndarray of uint8, shape (H, W, 3)
    values : ndarray of float, shape (H, W)
        Anomaly map, in the image's frame.
    low, high : float
        Map values shown as 0 and 1 of `colourise`. With ``low == high``, larger values count as 1.
    opacity : float
        Maximum opacity of the colours, from 0 to 1.

    Returns
    -------
    ndarray of uint8, shape (H, W, 3)

    Raises
    ------
    InputError
        Different sizes, ``low`` above ``high`` or not finite, or an opacity outside [0, 1].
    """
    if image.ndim != 3 or image.dtype != np.uint8 or image.shape != (*values.shape, 3):
        raise InputError(f"a map of {values.shape} does not fit an image of {image.shape}")
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise InputError(f"the scale from {low} to {high} must be finite and rising")
    if not 0 <= opacity <= 1:
        raise InputError(f"opacity must be from 0 to 1, not {opacity}")
    scaled = _scaled(values, float(low), float(high))
    share = opacity * np.clip(np.where(np.isnan(scaled), 0, scaled) / _FULL_FROM, 0, 1)
    share = share[:, :, None].astype(np.float32)
    mixed = image * (1 - share) + colourise(scaled) * share
    return np.rint(mixed).astype(np.uint8)


def _scaled(values: RealArray, low: float, high: float) -> npt.NDArray[np.float32]:
    if low == high:
        above = np.where(values > high, np.float32(1), np.float32(0))
        return np.where(np.isnan(values), np.float32(np.nan), above)
    clipped = np.clip(values.astype(np.float64), low, high)
    # Halved before the difference, so that the widest finite scale does not overflow.
    return ((clipped / 2 - low / 2) / (high / 2 - low / 2)).astype(np.float32)
