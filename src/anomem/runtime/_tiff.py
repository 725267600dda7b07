"""Facts of a TIFF that Pillow ignores."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import IO, Any

import PIL
from PIL.TiffImagePlugin import ImageFileDirectory_v2, TiffImageFile

__all__ = ["described", "facts", "problem", "silence"]

_BITS, _COMPRESSION, _PHOTOMETRIC, _SAMPLES, _PLANES, _FORMAT = 258, 259, 262, 277, 284, 339
_FORMATS = {1: "unsigned", 2: "signed", 3: "float", 4: "undefined", 5: "complex", 6: "complex"}
_COLOURS = {0: "grey", 1: "grey", 2: "RGB", 3: "palette", 4: "mask", 5: "CMYK", 6: "YCbCr", 8: "Lab"}


@cache
def silence() -> None:
    """Keep libtiff from writing to stderr, as Pillow does for its warnings; errors are raised all the same.

    Of Pillow's own copy, the one that its wheels bring; another copy may serve other libraries, too.
    """
    package = Path(PIL.__file__).parent
    for file in (*package.parent.glob("pillow.libs/libtiff*"), *package.glob(".dylibs/libtiff*")):
        with suppress(OSError, AttributeError):
            ctypes.CDLL(str(file)).TIFFSetErrorHandler(None)


def facts(image: TiffImageFile) -> dict[str, Any]:
    """Return `bits` and `white_is_zero` of :class:`~anomem.runtime._pillow.Picture`."""
    bits = _numbers(image.tag_v2, _BITS, 1)
    wide = image.mode == "F" or image.mode.startswith("I")
    return {
        "bits": bits[0] if image.mode.startswith("I;16") and bits[0] < 16 else None,
        "white_is_zero": wide and _numbers(image.tag_v2, _PHOTOMETRIC, 1)[0] == 0,
    }


def problem(image: TiffImageFile) -> str | None:
    """Return the problem of a TIFF whose pixels Pillow would decode wrongly; None for any other."""
    tags = image.tag_v2
    if _numbers(tags, _FORMAT, 1)[0] == 2 and _numbers(tags, _BITS, 1)[0] == 8:
        return f"{_sentence(tags)} is not read; save it as unsigned"
    if _numbers(tags, _PLANES, 1)[0] != 2 or _numbers(tags, _COMPRESSION, 1)[0] != 1:
        return None
    inverted = _numbers(tags, _PHOTOMETRIC, 1)[0] == 0
    if set(_numbers(tags, _BITS, 1)) == {8} and not inverted:
        return None
    return f"{_sentence(tags)} in separate planes is not read; save it with its colours interleaved, or compressed"


def described(stream: IO[bytes]) -> str:
    """Return a short description of the first image of a TIFF from its tags."""
    try:
        stream.seek(0)
        tags = ImageFileDirectory_v2(stream.read(8))
        stream.seek(tags.next)
        tags.load(stream)
        return _sentence(tags)
    except Exception:  # noqa: BLE001 - a damaged directory raises nearly everything
        return "a TIFF of this kind"


def _sentence(tags: ImageFileDirectory_v2) -> str:
    bits, kinds = _numbers(tags, _BITS, 1), _numbers(tags, _FORMAT, 1)
    colours = _COLOURS.get(_numbers(tags, _PHOTOMETRIC, 1)[0], "other colours")
    samples = _numbers(tags, _SAMPLES, len(bits))[0]
    extra = samples - {"RGB": 3, "YCbCr": 3, "Lab": 3, "CMYK": 4}.get(colours, 1)
    beside = " and alpha" if extra == 1 else f" and {extra} more channels" if extra > 1 else ""
    return f"a TIFF of {bits[0]}-bit {_FORMATS.get(kinds[0], 'unknown')} {colours}{beside}"


def _numbers(tags: ImageFileDirectory_v2, tag: int, default: int) -> tuple[int, ...]:
    found = tags.get(tag, default)
    return tuple(map(int, found)) if isinstance(found, tuple) and found else (int(found),)
