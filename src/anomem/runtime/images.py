"""Image files and arrays as (H, W, 3) uint8, and the one resize that everything uses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from anomem.errors import ImageError, InputError
from anomem.runtime._pillow import load
from anomem.runtime.atomic import atomic_path
from anomem.types import BoolArray, FloatArray, UInt8Image

__all__ = [
    "IMAGE_SUFFIXES",
    "MAX_PIXELS",
    "as_rgb",
    "decode",
    "has_title",
    "read_mask",
    "resize",
    "resize_map",
    "resize_mask",
    "write_png",
]

MAX_PIXELS = 120_000_000
"""Images with more pixels than this are refused before anything is decoded."""

IMAGE_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".jpe", ".tif", ".tiff", ".bmp", ".webp", ".gif"} | {".pbm", ".pgm", ".ppm", ".pnm"}
)
"""Suffixes of image files, in lower case."""

_LOSSY_FORMATS = frozenset({"JPEG", "WEBP"})


def decode(source: str | Path | bytes, *, name: str | None = None, max_pixels: int = MAX_PIXELS) -> UInt8Image:
    """Decode one image to RGB, turned upright by its EXIF orientation.

    Reads JPEG, PNG, TIFF, BMP, WebP, GIF and PNM, recognised by content, not by suffix; of several
    frames or pages the first. 16-bit grey is divided by 257 and rounded, never stretched or
    clipped; float grey must lie in [0, 1]; palettes, grey and CMYK become RGB; an alpha channel is
    dropped and the colours under it stay as stored.

    Safe to call from several threads; no setting of Pillow is read or changed on the way, except
    that WebP beyond Pillow's own limit (179 million pixels by default) is always refused.

    Parameters
    ----------
    source : str, Path or bytes
        A file, or a file's content.
    name : str, optional
        What errors call the image; the path by default.
    max_pixels : int
        The largest width times height accepted, checked in the header.

    Returns
    -------
    ndarray of uint8, shape (H, W, 3)
        A writable array of its own.

    Raises
    ------
    ImageError
        The file is missing, empty, damaged, too large or not an image.
    """
    label = name or ("image bytes" if isinstance(source, bytes) else str(source))
    return _to_rgb(load(source, label, max_pixels), label)


def as_rgb(array: npt.ArrayLike, *, name: str = "array") -> UInt8Image:
    """Turn an array into an RGB image without stretching its range.

    Parameters
    ----------
    array : array_like, shape (H, W) or (H, W, 1 | 3 | 4)
        bool, uint8, uint16 (divided by 257) or float in [0, 1]. A fourth channel is dropped.
    name : str
        What errors call the image.

    Returns
    -------
    ndarray of uint8, shape (H, W, 3)
        Shares memory with ``array`` where nothing had to change.

    Raises
    ------
    ImageError
        Another shape or dtype, no pixels, or float values outside [0, 1].

    Examples
    --------
    >>> as_rgb(np.array([[0.0, 1.0]]))[0].tolist()
    [[0, 0, 0], [255, 255, 255]]
    """
    values = np.asarray(array)
    if values.ndim == 2:
        values = values[:, :, None]
    if values.ndim != 3 or values.shape[2] not in (1, 3, 4) or 0 in values.shape:
        shape = np.shape(array)
        raise ImageError(name, f"shape {shape} is not an image: give (H, W) or (H, W, 1, 3 or 4)")
    levels = _to_uint8(values[:, :, :3], name)
    if levels.shape[2] == 1:
        levels = np.repeat(levels, 3, axis=2)
    return np.ascontiguousarray(levels)


def resize(image: UInt8Image, height_width: tuple[int, int]) -> UInt8Image:
    """Resize an image with a triangle filter, antialiased when it shrinks.

    Every image that is fitted or scored goes through this function, so that scores do not depend on
    which tool resized.

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
    values: npt.NDArray[np.floating[Any]],
    height_width: tuple[int, int],
    *,
    region: tuple[float, float, float, float] | None = None,
) -> FloatArray:
    """Resize an anomaly map with the same filter as images; a constant map stays exactly constant.

    Parameters
    ----------
    values : ndarray of float32, shape (h, w)
    height_width : (int, int)
        The new size.
    region : (top, left, height, width), optional
        The part of ``values`` that is to fill the new size, in its own pixels, fractions allowed.

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
    # Whole numbers alone: a pixel's centre on an edge falls on the same side everywhere.
    rows, columns = (
        (2 * np.arange(new) + 1) * old // (2 * new) for old, new in zip(mask.shape, height_width, strict=True)
    )
    resized: BoolArray = mask[rows[:, None], columns]
    return resized


def read_mask(path: str | Path, height_width: tuple[int, int] | None = None) -> BoolArray:
    """Read a defect mask: whatever is not black is defect.

    JPEG and WebP do not keep exact zeros, so that there the limit is half of white. In other
    formats masks of 0 and 1 work as well as masks of 0 and 255.

    Parameters
    ----------
    path : str or Path
        An image file of any format that `decode` reads.
    height_width : (int, int), optional
        Resize to this size (nearest pixel).

    Returns
    -------
    ndarray of bool, shape (H, W)

    Raises
    ------
    ImageError
        As for `decode`.
    """
    image = load(path, str(path), MAX_PIXELS)
    if image.mode == "F" or image.mode.startswith("I"):
        mask = np.asarray(image) > 0
    else:
        darkest_defect = 128 if image.info["source_format"] in _LOSSY_FORMATS else 1
        mask = _to_rgb(image, str(path)).max(axis=2) >= darkest_defect
    return mask if height_width is None else resize_mask(mask, height_width)


def write_png(path: str | Path, image: npt.NDArray[np.uint8], *, title: str = "") -> None:
    """Write a PNG that appears whole or not at all.

    Parameters
    ----------
    path : str or Path
    image : ndarray of uint8, shape (H, W, 3) or (H, W)
    title : str
        Text that the file carries; see `has_title`.

    Raises
    ------
    InputError
        ``image`` is something else, or the folder cannot be written.
    """
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.shape[2:] not in ((), (3,)):
        raise InputError(f"{path}: a PNG takes (H, W[, 3]) uint8, not {image.shape} {image.dtype}")
    facts = PngInfo()
    if title:
        facts.add_text("Title", title)
    with atomic_path(path) as part:
        Image.fromarray(np.ascontiguousarray(image)).save(part, format="PNG", pnginfo=facts)


def has_title(path: str | Path, title: str) -> bool:
    """Tell whether a file is a PNG that `write_png` has given this title."""
    try:
        with Image.open(path, formats=("PNG",)) as image:
            return image.info.get("Title") == title
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return False


def _to_rgb(image: Image.Image, label: str) -> UInt8Image:
    if image.mode.startswith("I;16"):
        return as_rgb(np.asarray(image), name=label)
    if image.mode == "F":
        return as_rgb(np.asarray(image), name=label)
    if image.mode == "I":
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise ImageError(label, "32-bit values outside 0 to 65535: save it with 8 or 16 bits")
        return as_rgb(values.astype(np.uint16), name=label)
    image.info.pop("transparency", None)  # else Pillow converts by it, and warns about palettes
    try:
        return np.array(image.convert("RGB"))
    except ValueError as error:
        raise ImageError(label, f"colour mode {image.mode}: save it as RGB") from error


def _to_uint8(values: npt.NDArray[Any], name: str) -> UInt8Image:
    if values.dtype == np.uint8:
        return values
    if values.dtype == np.bool_:
        return values.astype(np.uint8) * np.uint8(255)
    if values.dtype.kind == "u" and values.dtype.itemsize == 2:
        # 257 takes 65535 to 255; half of it rounds to the nearest, and there are no ties.
        return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if values.dtype.kind == "f":
        low, high = float(values.min()), float(values.max())
        if not (low >= -1e-6 and high <= 1 + 1e-6):
            found = f"float values from {low:.4g} to {high:.4g}"
            raise ImageError(name, f"{found}: scale them to [0, 1] or give uint8")
        return np.rint(np.clip(values.astype(np.float32), 0, 1) * 255).astype(np.uint8)
    raise ImageError(name, f"dtype {values.dtype}: give uint8, uint16, bool or float in [0, 1]")


def _resample(
    array: npt.NDArray[Any],
    height_width: tuple[int, int],
    box: tuple[float, float, float, float] | None = None,
) -> Image.Image:
    height, width = height_width
    if height < 1 or width < 1:
        raise InputError(f"cannot resize to {height} x {width}: both sides must be at least 1")
    return Image.fromarray(np.ascontiguousarray(array)).resize((width, height), Image.Resampling.BILINEAR, box)
