"""Images as (H, W, 3) uint8: decoding, conversion, resizing, writing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from anomem.errors import ImageError, InputError
from anomem.runtime import _pillow, mask_pixels
from anomem.runtime.atomic import atomic_path
from anomem.runtime.limits import MAX_PIXELS
from anomem.runtime.pixels import Reading, array_to_rgb, peak_of, picture_to_rgb
from anomem.types import BoolArray, FloatArray, RealArray, UInt8Image

__all__ = [
    "HEATMAP",
    "IMAGE_SUFFIXES",
    "MAX_PIXELS",
    "as_rgb",
    "decode",
    "has_title",
    "peak_level",
    "read_image",
    "read_mask",
    "resize",
    "resize_map",
    "resize_mask",
    "write_png",
]

IMAGE_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".jpe", ".tif", ".tiff", ".bmp", ".webp", ".gif"} | {".pbm", ".pgm", ".ppm", ".pnm"}
)
"""Suffixes of image files, in lower case."""

HEATMAP = "anomem heatmap"
"""Title text in heatmap files: they are no images to learn from or to score, and heatmaps replace only them."""


def decode(
    source: str | Path | bytes, *, name: str | None = None, max_pixels: int = MAX_PIXELS, bits: int = 16
) -> UInt8Image:
    """Decode an image to RGB, turned upright by its EXIF orientation.

    Reads JPEG, PNG, TIFF, BMP, WebP, GIF and PNM, recognised by content, not by suffix; of several
    frames or pages the first. 16-bit grey is divided by 257 and rounded, never stretched; `bits`
    gives the range of a camera of fewer bits. Float grey must lie in [0, 1]; palettes,
    grey and CMYK become RGB; transparent pixels are composed on mid-grey (127).

    Safe to call from several threads; no setting of Pillow is read or changed on the way, except
    that WebP beyond Pillow's own limit (179 million pixels by default) is always refused.

    Parameters
    ----------
    source : str, Path or bytes
        File, or content of a file.
    name : str, optional
        Name of the image in errors; the path by default.
    max_pixels : int
        Maximum number of pixels (width times height), checked in the header; the limit on the
        file's bytes follows from it.
    bits : {8, 10, 12, 14, 16}
        Bits used by 16-bit samples: 2 ** bits - 1 is white. 8-bit images are unchanged.

    Returns
    -------
    ndarray of uint8, shape (H, W, 3)
        Writable array.

    Raises
    ------
    ImageError
        The file is missing, empty, damaged, too large, transparent everywhere or not an image.
    """
    label = name or ("image bytes" if isinstance(source, bytes) else str(source))
    return read_image(source, label, Reading(max_pixels, bits))


def read_image(source: str | Path | bytes | Image.Image, label: str, reading: Reading) -> UInt8Image:
    """Decode a file, a file's content or a Pillow image; see `decode`."""
    if isinstance(source, Image.Image):
        picture = _pillow.picture_of(source, label, reading.max_pixels)
    else:
        picture = _pillow.load(source, label, reading.max_pixels, deep=reading.bits != 16)
    try:
        return picture_to_rgb(picture, label, reading)
    except MemoryError as error:
        raise ImageError(label, "needs more memory than there is; shrink it, cut it or leave it out") from error


def peak_level(source: str | Path | bytes, label: str, max_pixels: int = MAX_PIXELS) -> int | None:
    """Return the largest 16-bit sample of an image; None for one of 8 bits or of floats.

    Raises
    ------
    ImageError
        As for `decode`.
    """
    if not _pillow.is_deep(source, label, max_pixels):
        return None
    return peak_of(_pillow.load(source, label, max_pixels, deep=True))


def as_rgb(array: npt.ArrayLike, *, name: str = "array", bits: int = 16) -> UInt8Image:
    """Turn an array into an RGB image without stretching its range.

    Parameters
    ----------
    array : array_like, shape (H, W) or (H, W, 1 | 3 | 4)
        bool, uint8, uint16 (divided by 257) or float in [0, 1]. A fourth channel is alpha:
        transparent pixels are composed on mid-grey (127).
    name : str
        Name of the image in errors.
    bits : {8, 10, 12, 14, 16}
        Bits that uint16 values use.

    Returns
    -------
    ndarray of uint8, shape (H, W, 3)
        RGB image; shares memory with ``array`` if no conversion was needed.

    Raises
    ------
    ImageError
        Other shape or dtype, no pixels, float values outside [0, 1], or transparent everywhere.

    Examples
    --------
    >>> as_rgb(np.array([[0.0, 1.0]]))[0].tolist()
    [[0, 0, 0], [255, 255, 255]]
    """
    return array_to_rgb(array, name, Reading(bits=bits))


def resize(image: UInt8Image, height_width: tuple[int, int]) -> UInt8Image:
    """Resize an image with a triangle filter, antialiased on reduction.

    All images for fitting and scoring are resized by this function, so that scores do not depend on
    the resizing tool.

    Parameters
    ----------
    image : ndarray of uint8, shape (h, w, 3)
    height_width : (int, int)
        The new size.

    Returns
    -------
    ndarray of uint8, shape (H, W, 3)

    Raises
    ------
    InputError
        ``image`` is something else, or a side of the new size is below 1.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise InputError(f"resize takes (H, W, 3) uint8, not {image.shape} {image.dtype}")
    return np.array(_resample(image, height_width))


def resize_map(
    values: RealArray,
    height_width: tuple[int, int],
    *,
    region: tuple[float, float, float, float] | None = None,
) -> FloatArray:
    """Resize an anomaly map with the filter of `resize`; a constant map stays exactly constant.

    Parameters
    ----------
    values : ndarray of float32, shape (h, w)
    height_width : (int, int)
        The new size.
    region : (top, left, height, width), optional
        Part of ``values`` that fills the new size, in pixels of ``values``, fractions allowed.

    Returns
    -------
    ndarray of float32, shape (H, W)

    Raises
    ------
    InputError
        ``values`` is not a map, or a side of the new size is below 1.
    """
    if values.ndim != 2 or 0 in values.shape:
        raise InputError(f"resize_map takes (h, w), not {values.shape}")
    box = None
    if region is not None:
        top, left, height, width = region
        box = (left, top, left + width, top + height)
    source = np.asarray(values, np.float32)
    return np.array(_resample(source, height_width, box))


def resize_mask(mask: BoolArray, height_width: tuple[int, int]) -> BoolArray:
    """Resize a mask by the nearest pixel: (h, w) bool to (H, W) bool."""
    # Integer arithmetic, so that ties round alike on every machine.
    rows, columns = (
        (2 * np.arange(new) + 1) * old // (2 * new) for old, new in zip(mask.shape, height_width, strict=True)
    )
    resized: BoolArray = mask[rows[:, None], columns]
    return resized


def read_mask(
    source: str | Path | bytes,
    height_width: tuple[int, int] | None = None,
    *,
    name: str | None = None,
    image: str | Path | bytes | None = None,
    max_pixels: int = MAX_PIXELS,
) -> BoolArray:
    """Read a defect mask, in which pixels that are not black are defective.

    JPEG and WebP do not preserve exact zeros, so their limit is half of white. In other formats masks
    of 0 and 1 work like masks of 0 and 255. If some pixels are transparent, the visible pixels are
    defective, or, if only some visible pixels are black, the visible pixels that are not black.

    Parameters
    ----------
    source : str, Path or bytes
        Image of any format read by `decode`.
    height_width : (int, int), optional
        Size of the upright image; the mask is resized to it (nearest pixel).
    name : str, optional
        Name of the mask in errors; the path by default.
    image : str, Path or bytes, optional
        Image of the mask. A mask drawn on the pixels as stored is turned by the image's EXIF
        orientation.
    max_pixels : int
        As for `decode`.

    Returns
    -------
    ndarray of bool, shape (H, W)

    Raises
    ------
    ImageError
        As for `decode`; or the mask's shape does not match the image's, or matches it in two orientations.
    """
    label = name or ("mask bytes" if isinstance(source, bytes) else str(source))
    picture = _pillow.load(source, label, max_pixels)
    mask = mask_pixels.marked(picture, label)
    if height_width is None:
        return mask
    if not mask.any():  # nothing is marked, in any orientation
        return np.zeros(height_width, bool)
    own = picture.orientation
    mask = mask_pixels.in_frame(mask, height_width, label, own=own, image=image, max_pixels=max_pixels)
    return resize_mask(mask, height_width)


def write_png(path: str | Path, image: npt.NDArray[np.uint8], *, title: str = "") -> None:
    """Write a PNG atomically.

    Parameters
    ----------
    path : str or Path
    image : ndarray of uint8, shape (H, W, 3) or (H, W)
    title : str
        Title text stored in the file; see `has_title`.

    Raises
    ------
    InputError
        ``image`` has another shape or dtype, or the folder cannot be written.
    """
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.shape[2:] not in ((), (3,)):
        raise InputError(f"{path}: a PNG takes (H, W[, 3]) uint8, not {image.shape} {image.dtype}")
    facts = PngInfo()
    if title:
        facts.add_text("Title", title)
    with atomic_path(path) as part:
        Image.fromarray(np.ascontiguousarray(image)).save(part, format="PNG", pnginfo=facts)


def has_title(path: str | Path, title: str) -> bool:
    """Return True for a PNG written by `write_png` with this title."""
    try:
        with Image.open(path, formats=("PNG",)) as image:
            return image.info.get("Title") == title
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return False


def _resample(
    array: npt.NDArray[Any],
    height_width: tuple[int, int],
    box: tuple[float, float, float, float] | None = None,
) -> Image.Image:
    height, width = height_width
    if height < 1 or width < 1:
        raise InputError(f"cannot resize to {height} x {width}: both sides must be at least 1")
    return Image.fromarray(np.ascontiguousarray(array)).resize((width, height), Image.Resampling.BILINEAR, box)
