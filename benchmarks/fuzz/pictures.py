"""Readers of images and masks under damaged files."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from functools import partial
from random import Random
from typing import Any

import numpy as np
from PIL import Image

from anomem.runtime.images import decode, peak_level, read_mask
from benchmarks.fuzz.mutations import bytes_of, png_of, tiff_of
from benchmarks.fuzz.reader import Reader

__all__ = ["readers"]

_LIMIT = 1 << 21
"""Pixels per image, so that each execution has a small bound on memory."""


def readers() -> list[Reader]:
    """Return a reader per format."""
    shaped: Mapping[str, Callable[[bytes, Random], bytes]] = {"PNG": png_of, "TIFF": tiff_of}
    share = {"JPEG": 9000, "PNG": 9000, "TIFF": 14000, "BMP": 4000, "WEBP": 4000, "GIF": 4000, "PPM": 4000}
    return [
        Reader(f"image {form.lower()}", runs, partial(_damaged, _seeds(form), shaped.get(form)), _read)
        for form, runs in share.items()
    ]


def _damaged(seeds: list[bytes], shape: Callable[[bytes, Random], bytes] | None, rng: Random) -> bytes:
    seed, other = rng.choice(seeds), rng.choice(seeds)
    if shape is None or rng.random() < 0.4:
        return bytes_of(seed, rng, other)
    changed = shape(seed, rng)
    return bytes_of(changed, rng) if rng.random() < 0.1 else changed


def _read(content: bytes) -> None:
    bits = (8, 10, 12, 14, 16)[len(content) % 5]
    image = decode(content, max_pixels=_LIMIT, bits=bits)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.flags.writeable:
        raise AssertionError(f"decode returns {image.dtype} {image.shape}")
    peak_level(content, "image", _LIMIT)
    read_mask(content, image.shape[:2], image=content, max_pixels=_LIMIT)


def _saved(image: Image.Image, form: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format=form, **options)
    return stream.getvalue()


def _turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


def _seeds(form: str) -> list[bytes]:
    rng = np.random.default_rng(0)
    colour = Image.fromarray(rng.integers(0, 256, (20, 28, 3), np.uint8))
    grey, deep = colour.convert("L"), Image.fromarray(rng.integers(0, 4096, (20, 28), np.uint16))
    clear = colour.convert("RGBA")
    clear.putalpha(grey)
    real = Image.fromarray(rng.random((20, 28)).astype(np.float32))
    kinds = [colour, grey, colour.convert("P"), grey.convert("1")]
    match form:
        case "JPEG":
            turned = [_saved(colour, form, exif=_turned(o)) for o in (3, 6, 9)]
            return [
                *turned,
                _saved(grey, form),
                _saved(colour.convert("CMYK"), form),
                _saved(colour, form, progressive=True),
            ]
        case "PNG":
            moving = _saved(colour, form, save_all=True, append_images=[colour, colour])
            return [*(_saved(kind, form) for kind in (*kinds, clear, deep, grey.convert("LA"))), moving]
        case "TIFF":
            packed = [_saved(colour, form, compression=c) for c in ("tiff_lzw", "tiff_deflate", "packbits", "jpeg")]
            plain = [
                _saved(kind, form)
                for kind in (*kinds, clear, deep, real, colour.convert("CMYK"), colour.convert("LAB"))
            ]
            return [
                *packed,
                *plain,
                _saved(grey.convert("1"), form, compression="group4"),
                _saved(deep, form, compression="tiff_lzw"),
            ]
        case "WEBP":
            return [
                _saved(clear, form),
                _saved(colour, form, lossless=True),
                _saved(colour, form, save_all=True, append_images=[grey]),
            ]
        case "GIF":
            return [_saved(colour, form), _saved(colour, form, save_all=True, append_images=[clear, grey], loop=0)]
        case "PPM":
            head = (b"P2 4 3 9\n0 1 2 3 4 5 6 7 8 9 0 1\n", b"P1 3 2\n1 0 1\n0 1 0\n", b"Pf 2 2 -1\n" + bytes(16))
            return [*(_saved(kind, form) for kind in (colour, grey, grey.convert("1"), deep)), *head]
    return [_saved(kind, form) for kind in kinds]
