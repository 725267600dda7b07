"""Conversion of pixel samples to 8-bit RGB: bit depth, alpha, inverted scales."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from anomem.errors import AnomemWarning, ImageError, ParameterError
from anomem.runtime._pillow import Picture
from anomem.runtime.limits import MAX_PIXELS, check_pixels
from anomem.types import UInt8Image

__all__ = ["BITS", "GREY", "Reading", "array_to_rgb", "fitting_bits", "peak_of", "picture_to_rgb", "split_alpha"]

BITS = (8, 10, 12, 14, 16)
"""Bit depths in use within 16-bit samples."""

GREY = 127
"""Grey level of transparent pixels, letterbox borders and pixels outside the region of interest."""

_DARK = 1 << 14
"""Level below which 16-bit images use at most a quarter of their range."""


@dataclass(frozen=True)
class Reading:
    """Settings for the conversion of images to 8-bit RGB.

    Parameters
    ----------
    max_pixels : int
        Maximum number of pixels per image, checked before decoding.
    bits : {8, 10, 12, 14, 16}
        Bits used by 16-bit samples: 2 ** bits - 1 is white. 8-bit images are unchanged.

    Raises
    ------
    ParameterError
        Value outside its range.
    """

    max_pixels: int = MAX_PIXELS
    bits: int = 16
    _noted: set[str] = field(default_factory=set, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.bits not in BITS:
            raise ParameterError(f"bits={self.bits!r} is not allowed; expected one of {', '.join(map(str, BITS))}")
        if self.max_pixels < 1:
            raise ParameterError(f"max_pixels={self.max_pixels!r} is not allowed; expected an integer >= 1")

    def check_peak(self, peak: int, name: str) -> None:
        """Warn once about 16-bit samples above the given bits, and once about samples using a fraction of 16 bits."""
        if peak >= 1 << self.bits:
            self._note("beyond", f"{name}: values up to {peak} are beyond {self.bits} bits and become white")
        elif self.bits == 16 and 0 < peak < _DARK:
            found = f"{name}: 16-bit values end at {peak}, so that it comes out nearly black"
            self._note("dark", f"{found}; fit with bits={fitting_bits(peak)}, or bits='auto'")

    def _note(self, kind: str, text: str) -> None:
        if kind not in self._noted:
            self._noted.add(kind)
            warnings.warn(text, AnomemWarning, stacklevel=4)


def fitting_bits(peak: int) -> int:
    """Return the smallest of `BITS` that can represent a value.

    Examples
    --------
    >>> fitting_bits(1023), fitting_bits(1024)
    (10, 12)
    """
    return next((bits for bits in BITS if peak < 1 << bits), BITS[-1])


def picture_to_rgb(picture: Picture, label: str, reading: Reading) -> UInt8Image:
    """Convert a decoded image to (H, W, 3) uint8, with transparent pixels composed on `GREY`."""
    image = picture.image
    if image.mode == "F" or image.mode.startswith("I"):
        values = np.asarray(image)
        if image.mode == "I":
            values = _as_16_bits(values, label)
        own = Reading(reading.max_pixels, 16) if picture.bits else reading
        if picture.bits:  # its header gives the white level
            values = np.minimum(values.astype(np.uint32) * 65535 // (2**picture.bits - 1), 65535).astype(np.uint16)
        rgb = array_to_rgb(values, label, own)
        rgb = np.uint8(255) - rgb if picture.white_is_zero else rgb
        clear = image.info.get("transparency")  # the one transparent level of a PNG
        if isinstance(clear, int):
            return _composed(rgb, np.where(np.asarray(image) == clear, np.uint8(0), np.uint8(255)), label)
        return rgb
    colours, alpha = split_alpha(image, label)
    if picture.low is not None:
        values = _with_lower_bytes(colours, picture.low)
        reading.check_peak(int(values.max()), label)
        colours = _scaled(values, reading.bits)
    return colours if alpha is None else _composed(colours, alpha, label)


def split_alpha(image: Image.Image, label: str) -> tuple[UInt8Image, npt.NDArray[np.uint8] | None]:
    """Split an 8-bit image into colours (H, W, 3) and alpha (H, W); alpha is None if every pixel is opaque."""
    try:
        alpha = None
        if image.has_transparency_data:
            image = image.convert("LA") if image.mode == "La" else image
            full = image.convert("RGBA")
            alpha = np.asarray(full.getchannel("A"))
            if alpha.min() < 255:
                return np.array(full.convert("RGB")), alpha
            image.info.pop(
                "transparency", None
            )  # otherwise Pillow applies it in the conversion, and warns about palettes
        return np.array(image.convert("RGB")), None
    except ValueError as error:
        raise ImageError(label, f"colour mode {image.mode}; save it as RGB") from error


def peak_of(picture: Picture) -> int | None:
    """Return the largest 16-bit sample; None for 8 bits, floats, and a white level in the header."""
    image = picture.image
    if picture.bits or image.mode == "F":
        return None
    if image.mode.startswith("I"):
        return int(np.asarray(image).max())
    if picture.low is None:
        return None
    return int(_with_lower_bytes(np.asarray(image.convert("RGB")), picture.low).max())


def array_to_rgb(array: npt.ArrayLike, name: str, reading: Reading) -> UInt8Image:
    """Convert an array to (H, W, 3) uint8; see `anomem.runtime.images.as_rgb`."""
    values = np.asarray(array)
    if values.ndim == 2:
        values = values[:, :, None]
    if values.ndim != 3 or values.shape[2] not in (1, 3, 4) or 0 in values.shape:
        shape = np.shape(array)
        raise ImageError(name, f"shape {shape} is not an image; give (H, W) or (H, W, 1, 3 or 4)")
    height, width = values.shape[:2]
    check_pixels(width, height, name, reading.max_pixels)
    if values.dtype.kind == "u" and values.dtype.itemsize == 2:
        reading.check_peak(int(values[:, :, :3].max()), name)
    levels = _levels(values, name, reading.bits)
    if levels.shape[2] == 1:
        levels = np.repeat(levels, 3, axis=2)
    if levels.shape[2] == 4:
        alpha = levels[:, :, 3]
        levels = levels[:, :, :3] if alpha.min() == 255 else _composed(levels[:, :, :3], alpha, name)
    return np.ascontiguousarray(levels)


def _levels(values: npt.NDArray[Any], name: str, bits: int) -> UInt8Image:
    if values.dtype == np.uint8:
        return values
    if values.dtype == np.bool_:
        return values.astype(np.uint8) * np.uint8(255)
    if values.dtype.kind == "u" and values.dtype.itemsize == 2:
        return _scaled(values, bits)
    if values.dtype.kind == "f":
        low, high = float(values.min()), float(values.max())
        if not (low >= -1e-6 and high <= 1 + 1e-6):
            found = f"float values from {low:.4g} to {high:.4g}"
            raise ImageError(name, f"{found}; scale them to [0, 1] or give uint8")
        return np.rint(np.clip(values.astype(np.float32), 0, 1) * 255).astype(np.uint8)
    raise ImageError(name, f"dtype {values.dtype}; give uint8, uint16, bool or float in [0, 1]")


def _scaled(values: npt.NDArray[Any], bits: int) -> UInt8Image:
    """Scale 16-bit samples so that 2 ** bits - 1 becomes 255; larger samples are clipped."""
    if bits == 16:
        # 257 takes 65535 to 255; half of it rounds to the nearest, and there are no ties.
        return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    white = (1 << bits) - 1
    scaled: UInt8Image = ((np.minimum(values, white).astype(np.uint32) * 255 + white // 2) // white).astype(np.uint8)
    return scaled


def _composed(colours: UInt8Image, alpha: npt.NDArray[np.uint8], name: str) -> UInt8Image:
    if not alpha.any():
        raise ImageError(name, "every pixel is transparent; save it without its alpha channel")
    opacity = alpha[:, :, None].astype(np.uint32)
    composed: UInt8Image = ((colours * opacity + GREY * (255 - opacity) + 127) // 255).astype(np.uint8)
    return composed


def _with_lower_bytes(upper: UInt8Image, low: Image.Image) -> npt.NDArray[np.uint16]:
    whole: npt.NDArray[np.uint16] = upper.astype(np.uint16) << np.uint16(8) | np.asarray(low)
    return whole


def _as_16_bits(values: npt.NDArray[Any], label: str) -> npt.NDArray[np.uint16]:
    if values.min() < 0 or values.max() > 65535:
        raise ImageError(label, "32-bit values outside 0 to 65535; save it with 8 or 16 bits")
    return values.astype(np.uint16)
