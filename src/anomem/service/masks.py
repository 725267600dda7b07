"""Masks of labelled defects: brushed as PNG, or polygons."""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from anomem.errors import InputError
from anomem.runtime.images import decode, read_mask
from anomem.service.images import Images
from anomem.types import BoolArray

__all__ = ["keep_mask"]


def keep_mask(
    images: Images, sha256: str, png: str | None, polygons: Sequence[Sequence[tuple[float, float]]], max_pixels: int
) -> str | None:
    """Keep a mask in the image store, in the frame of its image, and return its hash; None for an empty one.

    Parameters
    ----------
    images : Images
    sha256 : str
        Image of the mask.
    png : str or None
        Image file, base64; pixels that are not black are defective.
    polygons : sequence of sequences of (x, y)
        In pixels of the image; each has at least three corners.
    max_pixels : int
        Size limit.

    Raises
    ------
    InputError
        Not base64, not an image, of another shape, or too few corners.
    """
    if png is None and not polygons:
        return None
    content = images.read(sha256)
    height, width = decode(content, name="image", max_pixels=max_pixels).shape[:2]
    mask = np.zeros((height, width), bool)
    if png is not None:
        mask |= read_mask(_bytes(png), (height, width), name="mask_png", image=content, max_pixels=max_pixels)
    mask |= _filled(polygons, height, width)
    if not mask.any():
        return None
    stream = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8) * 255).save(stream, format="PNG")
    return images.put(stream.getvalue(), "mask").sha256


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text.partition(",")[2] if text.startswith("data:") else text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InputError("mask_png: is not base64; send the PNG's bytes in base64") from error


def _filled(polygons: Sequence[Sequence[tuple[float, float]]], height: int, width: int) -> BoolArray:
    picture = Image.new("1", (width, height))
    draw = ImageDraw.Draw(picture)
    for polygon in polygons:
        if len(polygon) < 3:
            raise InputError(f"polygons: one has {len(polygon)} corners; draw at least 3")
        # Corners far outside would make the filling slow.
        corners = [(min(max(x, -width), 2 * width), min(max(y, -height), 2 * height)) for x, y in polygon]
        draw.polygon(corners, fill=1)
    return np.asarray(picture, bool)
