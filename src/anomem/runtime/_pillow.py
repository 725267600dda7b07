"""Image decoding with Pillow, independent of Pillow's process-wide settings."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

from PIL import Image, ImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.PpmImagePlugin import PpmImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from anomem.errors import ImageError, one_line
from anomem.runtime import _png, _tiff
from anomem.runtime.files import open_regular
from anomem.runtime.limits import MAX_PLAIN_BYTES, check_pixels, image_bytes

__all__ = ["Picture", "check_kind", "file_orientation", "height_width", "is_deep", "load", "picture_of", "turned"]

T = TypeVar("T")

_ORIENTATION_TAG = 0x0112
_ORIENTATIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class Picture:
    """Image decoded by Pillow, with facts from its header.

    Parameters
    ----------
    image : Image
        Image, turned upright.
    format : str
        File format.
    orientation : int
        EXIF orientation applied, 1 to 8.
    bits : int or None
        Bits per sample in the header, if the samples are stored in more.
    white_is_zero : bool
        True if the smallest value is white and Pillow does not invert it.
    low : Image or None
        Lower bytes of 16-bit colours, which Pillow drops; None unless requested.
    """

    image: Image.Image
    format: str
    orientation: int = 1
    bits: int | None = None
    white_is_zero: bool = False
    low: Image.Image | None = None


class _Tiff(TiffImageFile):
    def load_prepare(self) -> None:
        # Skips the parent's own size check, which obeys a limit shared by the whole process.
        if self._tile_size == self.size:
            ImageFile.ImageFile.load_prepare(self)
        else:
            super().load_prepare()


def load(source: str | Path | bytes, label: str, max_pixels: int, *, deep: bool = False) -> Picture:
    """Decode the first frame of an image and turn it upright.

    Parameters
    ----------
    source : str, Path or bytes
        File, or content of a file.
    label : str
        Name of the image in errors.
    max_pixels : int
        Maximum number of pixels (width times height), checked before decoding.
    deep : bool
        Decode the lower bytes of 16-bit colours too.

    Raises
    ------
    ImageError
        The file is missing, empty, damaged, too large or not an image.
    """
    with _opened(source, label, max_pixels) as stream:
        kind = check_kind(stream.read(16), label)
        _check_plain(stream, kind, label)
        try:
            return _decoded(kind, stream, label, max_pixels, deep=deep)
        except ImageError:
            raise
        except MemoryError as error:
            raise ImageError(label, "needs more memory than there is; shrink it, cut it or leave it out") from error
        except Exception as error:  # decoders raise nearly everything on damaged files
            raise ImageError(label, _complaint(kind, stream, error)) from error


def file_orientation(source: str | Path | bytes, label: str, max_pixels: int) -> int:
    """Read an image's EXIF orientation, 1 to 8; ImageError as for `load`."""
    return _from_header(source, label, max_pixels, _orientation)


def height_width(source: str | Path | bytes, label: str, max_pixels: int) -> tuple[int, int]:
    """Return the size of an upright image, read from its header; ImageError as for `load`."""
    return _from_header(source, label, max_pixels, upright_hw)


def upright_hw(image: Image.Image) -> tuple[int, int]:
    """Return height and width of a Pillow image after its EXIF orientation."""
    width, height = image.size
    return (width, height) if _orientation(image) > 4 else (height, width)


def is_deep(source: str | Path | bytes, label: str, max_pixels: int) -> bool:
    """Return True if an image's samples have more than 8 bits, read from its header; ImageError as for `load`."""
    return _from_header(source, label, max_pixels, lambda i: i.mode.startswith("I") or ";16" in _raw_mode(i))


def _from_header(
    source: str | Path | bytes, label: str, max_pixels: int, read: Callable[[ImageFile.ImageFile], T]
) -> T:
    with _opened(source, label, max_pixels) as stream:
        kind = check_kind(stream.read(16), label)
        try:
            return read(_header(kind, stream, label, max_pixels))
        except ImageError:
            raise
        except Exception as error:  # as above
            raise ImageError(label, _complaint(kind, stream, error)) from error


def check_kind(prefix: bytes, label: str) -> type[ImageFile.ImageFile]:
    """Return an image's format from the first 16 bytes of its file; ImageError for other files."""
    starts: tuple[tuple[tuple[bytes, ...], type[ImageFile.ImageFile]], ...] = (
        ((b"\xff\xd8\xff",), JpegImageFile),
        ((b"\x89PNG\r\n\x1a\n",), PngImageFile),
        ((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), _Tiff),
        ((b"BM",), BmpImageFile),
        ((b"GIF87a", b"GIF89a"), GifImageFile),
        ((b"P1", b"P2", b"P3", b"P4", b"P5", b"P6"), PpmImageFile),
    )
    if not prefix:
        raise ImageError(label, "the file is empty; copy it again or leave it out")
    if prefix[:4] == b"RIFF" and prefix[8:12] == b"WEBP":
        return WebPImageFile
    for magic, opener in starts:
        if prefix.startswith(magic):
            return opener
    known = "JPEG, PNG, TIFF, BMP, WebP, GIF or PNM"
    raise ImageError(label, f"not an image by its content; convert it to {known}, or leave it out")


def picture_of(image: Image.Image, label: str, max_pixels: int) -> Picture:
    """Return a Pillow image turned upright; ImageError as for `load`."""
    check_pixels(*image.size, label, max_pixels)
    try:
        tags = {} if getattr(image, "_im", None) else _tiff_facts(image, label)  # a loaded image cannot be read again
        orientation = _orientation(image)
        _load_pixels(image)
        return Picture(turned(image, _orientation(image)).copy(), "Pillow", orientation, **tags)
    except ImageError:
        raise
    except Exception as error:  # as in `load`
        said = one_line(error)
        raise ImageError(label, f"a Pillow image that cannot be decoded ({said}); open its file again") from error


def _orientation(image: Image.Image) -> int:
    """Return an image's EXIF orientation, 1 to 8; 1 if it is missing or unreadable."""
    try:
        found = image.getexif().get(_ORIENTATION_TAG, 1)
        return int(found) if found in _ORIENTATIONS else 1
    except Exception:  # noqa: BLE001 - unreadable metadata does not make the pixels wrong
        return 1


def turned(image: Image.Image, orientation: int) -> Image.Image:
    """Turn an image by an EXIF orientation."""
    method = _ORIENTATIONS.get(orientation)
    return image if method is None else image.transpose(method)


def _opened(source: str | Path | bytes, label: str, max_pixels: int) -> IO[bytes]:
    if isinstance(source, bytes):
        return io.BytesIO(source)
    try:
        return open_regular(source, label, image_bytes(max_pixels))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ImageError(label, "there is no such file; check the path") from error


def _header(kind: type[ImageFile.ImageFile], stream: IO[bytes], label: str, max_pixels: int) -> ImageFile.ImageFile:
    """Open an image without decoding it and without Image.open, whose pixel limit is process-wide."""
    stream.seek(0)
    try:
        image = kind(stream, label)
    except ValueError:
        if kind is not PngImageFile:
            raise
        stream.seek(0)  # more text than Pillow reads; pixels do not depend on it
        image = kind(_png.without_large_texts(stream), label)
    check_pixels(*image.size, label, max_pixels)
    return image


def _decoded(kind: type[ImageFile.ImageFile], stream: IO[bytes], label: str, max_pixels: int, *, deep: bool) -> Picture:
    image = _header(kind, stream, label, max_pixels)
    tags = _tiff_facts(image, label)
    raw_mode = _raw_mode(image)
    orientation = _orientation(image)
    _load_pixels(image)  # Pillow turns a TIFF upright and resets its tag
    low = None
    if deep and ";16" in raw_mode and image.mode in ("RGB", "RGBA"):
        low = _lower_bytes(_header(kind, stream, label, max_pixels), raw_mode)
    return Picture(turned(image, _orientation(image)), str(kind.format), orientation, low=low, **tags)


def _load_pixels(image: Image.Image) -> None:
    image.load()
    if image.mode in ("P", "PA") and image.palette is None:
        raise ValueError("without a palette")


def _tiff_facts(image: Image.Image, label: str) -> dict[str, Any]:
    """Return the facts of a TIFF that Pillow ignores; ImageError if Pillow would decode wrong pixels."""
    if not isinstance(image, TiffImageFile):
        return {}
    _tiff.silence()
    problem = _tiff.problem(image)
    if problem:
        raise ImageError(label, problem)
    return _tiff.facts(image)


def _lower_bytes(image: ImageFile.ImageFile, raw_mode: str) -> Image.Image:
    """Decode the lower byte of each 16-bit sample by giving Pillow the opposite byte order."""
    if raw_mode == "LA;16B":  # four bytes per pixel: upper, lower, and two of alpha
        swapped, image._mode = "RGBA", "RGBA"
    else:
        native = {"little": "L", "big": "B"}[sys.byteorder]
        order = raw_mode[-1].replace("N", native)
        swapped = raw_mode[:-1] + {"L": "B", "B": "L"}[order]
    image.tile = [tile._replace(args=_with_raw_mode(tile.args, swapped)) for tile in image.tile]
    image.load()
    found = turned(image, _orientation(image))
    return found.getchannel("G").convert("RGB") if raw_mode == "LA;16B" else found.convert("RGB")


def _raw_mode(image: ImageFile.ImageFile) -> str:
    args = image.tile[0].args if image.tile else ""
    return str(args[0]) if isinstance(args, tuple) and args else str(args)


def _with_raw_mode(args: Any, raw_mode: str) -> Any:
    return (raw_mode, *args[1:]) if isinstance(args, tuple) else raw_mode


def _check_plain(stream: IO[bytes], kind: type[ImageFile.ImageFile], label: str) -> None:
    """Refuse pixels stored as text that would take minutes to read."""
    if kind is not PpmImageFile:
        return
    stream.seek(0)
    plain = stream.read(2) in (b"P1", b"P2", b"P3")
    if plain and stream.seek(0, io.SEEK_END) > MAX_PLAIN_BYTES:
        raise ImageError(label, f"more than {MAX_PLAIN_BYTES >> 20} MiB of pixels as text; save it as PNG")


def _complaint(kind: type[ImageFile.ImageFile], stream: IO[bytes], error: Exception) -> str:
    """Return the reason for a failed decoding: unsupported kind or damage."""
    said = one_line(error)
    if kind is _Tiff and said == "unknown pixel mode":
        return f"{_tiff.described(stream)} is not read; save it with 8 or 16 bits per sample"
    if said.startswith(("cannot handle", "Unsupported", "unsupported", "unknown data organization")):
        return f"a kind of {kind.format} file that is not read ({said}); save it as PNG"
    return f"damaged or incomplete {kind.format} file ({said}); copy it again or leave it out"
