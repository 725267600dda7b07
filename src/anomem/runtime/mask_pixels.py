"""Marked pixels of mask images, in the frame of their image."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from PIL import Image

from anomem.errors import ImageError
from anomem.runtime import _pillow
from anomem.runtime._pillow import Picture
from anomem.runtime.pixels import split_alpha
from anomem.types import BoolArray

__all__ = ["in_frame", "marked", "same_aspect"]

_LOSSY_FORMATS = frozenset({"JPEG", "WEBP"})


def marked(picture: Picture, label: str) -> BoolArray:
    """Return the marked pixels of a mask, (H, W) bool: not black, or visible if the mask is drawn in alpha.

    With transparent pixels, the visible pixels are marked if they are all black or all not black; otherwise the visible
    pixels that are not black.

    Raises
    ------
    ImageError
        Every pixel is transparent, or the colour mode is not supported.
    """
    image = picture.image
    if image.mode == "F" or image.mode.startswith("I"):
        values = np.asarray(image)
        black = 0 if not picture.white_is_zero else (1 << (picture.bits or 16)) - 1
        wide: BoolArray = values > 0 if not picture.white_is_zero else values < black
        return wide
    colours, alpha = split_alpha(image, label)
    drawn: BoolArray = colours.max(axis=2) >= (128 if picture.format in _LOSSY_FORMATS else 1)
    if alpha is None:
        return drawn
    visible: BoolArray = alpha > 0
    if not visible.any():
        raise ImageError(label, "every pixel is transparent; save it without its alpha channel")
    seen = drawn[visible]
    return visible if seen.all() or not seen.any() else visible & drawn


def in_frame(
    mask: BoolArray,
    height_width: tuple[int, int],
    label: str,
    *,
    own: int = 1,
    image: str | Path | bytes | None = None,
    max_pixels: int,
) -> BoolArray:
    """Turn a mask to the orientation of its image; its resolution is unchanged.

    Parameters
    ----------
    mask : ndarray of bool, shape (h, w)
    height_width : (int, int)
        Size of the upright image.
    label : str
        Name of the mask in errors.
    own : int
        EXIF orientation of the mask, already applied.
    image : str, Path or bytes, optional
        Image whose EXIF orientation is read.
    max_pixels : int
        Maximum number of pixels of the image.

    Raises
    ------
    ImageError
        The mask has another aspect, or matches both the stored and the upright frame of the image.
    """
    orientation = 1 if image is None or own != 1 else _pillow.file_orientation(image, label, max_pixels)
    fits = same_aspect(mask.shape, height_width)
    if orientation == 1:
        if fits:
            return mask
        raise ImageError(label, _other_aspect(mask.shape, height_width))
    stored = height_width[::-1] if orientation > 4 else height_width
    if not same_aspect(mask.shape, stored):
        if fits:
            return mask
        raise ImageError(label, _other_aspect(mask.shape, height_width))
    if fits:
        problem = f"its image is turned by EXIF orientation {orientation}, and nothing says whether the mask is, too"
        raise ImageError(label, f"{problem}; save the image upright, without an orientation")
    return np.array(_pillow.turned(Image.fromarray(mask), orientation))


def same_aspect(mask_hw: tuple[int, ...], image_hw: tuple[int, ...]) -> bool:
    """Return True for two sizes of the same aspect, up to 2 % and rounding to whole pixels.

    Examples
    --------
    >>> same_aspect((50, 110), (100, 220)), same_aspect((100, 220), (220, 100))
    (True, False)
    """
    (h, w), (height, width) = mask_hw, image_hw
    slack = 0.02 + 0.5 / min(h, height) + 0.5 / min(w, width)
    return abs(math.log(h * width / (w * height))) <= slack


def _other_aspect(mask_hw: tuple[int, ...], height_width: tuple[int, int]) -> str:
    found = f"{mask_hw[1]} x {mask_hw[0]} pixels are of another shape than its image's"
    return f"{found} {height_width[1]} x {height_width[0]}: draw it on the image as it is shown upright"
