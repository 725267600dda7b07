"""Masks: from a picture to pixels that are marked, in the frame of the image they belong to."""

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
    """Return the marked pixels of a mask, (H, W): those that are not black, or where it is drawn in alpha, visible.

    Of an image with transparent pixels the visible ones count, where they are all black or all not; else the visible
    ones that are not black.

    Raises
    ------
    ImageError
        Every pixel is transparent, or a colour mode that is not read.
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
        raise ImageError(label, "every pixel is transparent: save it without its alpha channel")
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
    """Turn a mask as its image is turned; its size stays.

    Parameters
    ----------
    mask : ndarray of bool, shape (h, w)
    height_width : (int, int)
        The image's size, upright.
    label : str
        Name of the mask in errors.
    own : int
        The mask's own EXIF orientation, by which it has been turned.
    image : str, Path or bytes, optional
        The image, whose EXIF orientation is looked up.
    max_pixels : int
        The largest width times height of the image.

    Raises
    ------
    ImageError
        The mask has another aspect; or it may lie in the image's frame as stored as well as in the upright one.
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
        raise ImageError(label, f"{problem}: save the image upright, without an orientation")
    return np.array(_pillow.turned(Image.fromarray(mask), orientation))


def same_aspect(mask_hw: tuple[int, ...], image_hw: tuple[int, ...]) -> bool:
    """Return whether two sizes have the same aspect, up to 2 % and the rounding of a size to whole pixels.

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
