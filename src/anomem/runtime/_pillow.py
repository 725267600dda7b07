"""Image files opened by Pillow, without a setting that a whole process shares."""

from __future__ import annotations

import io
from pathlib import Path
from typing import IO

from PIL import Image, ImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.PpmImagePlugin import PpmImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from anomem.errors import ImageError, one_line

__all__ = ["load"]

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


class _Tiff(TiffImageFile):
    def load_prepare(self) -> None:
        # Skips the parent's own size check, which obeys a limit shared by the whole process.
        if self._tile_size == self.size:
            ImageFile.ImageFile.load_prepare(self)
        else:
            super().load_prepare()


def load(source: str | Path | bytes, label: str, max_pixels: int) -> Image.Image:
    """Decode the first frame of an image, upright; ``info["source_format"]`` names its format.

    Parameters
    ----------
    source : str, Path or bytes
        A file, or a file's content.
    label : str
        What errors call the image.
    max_pixels : int
        The largest width times height accepted, checked before anything is decoded.

    Raises
    ------
    ImageError
        The file is missing, empty, damaged, too large or not an image.
    """
    if isinstance(source, bytes):
        return _load_stream(io.BytesIO(source), label, max_pixels)
    path = Path(source)
    try:
        if path.exists() and not path.is_file():  # a pipe would block, a device might never end
            kind = "a folder" if path.is_dir() else "not a regular file"
            raise ImageError(label, f"is {kind}, not an image: name an image file")
        with path.open("rb") as stream:
            return _load_stream(stream, label, max_pixels)
    except FileNotFoundError as error:
        raise ImageError(label, "there is no such file: check the path") from error
    except (OSError, ValueError) as error:
        if isinstance(error, ImageError):
            raise
        raise ImageError(label, f"cannot be read ({one_line(error)})") from error


def _load_stream(stream: IO[bytes], label: str, max_pixels: int) -> Image.Image:
    prefix = stream.read(16)
    stream.seek(0)
    opener = _opener(prefix, label)
    try:
        # Not Image.open: it warns or fails by a limit that the whole process shares.
        image = opener(stream, label)
        _check_size(image, label, max_pixels)
        image.load()
        source_format = opener.format
        upright = _upright(image)
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # decoders raise nearly everything on damaged files
        reason = f"damaged or incomplete {opener.format} file ({one_line(error)})"
        raise ImageError(label, f"{reason}: copy it again or leave it out") from error
    upright.info["source_format"] = source_format
    return upright


def _opener(prefix: bytes, label: str) -> type[ImageFile.ImageFile]:
    starts: tuple[tuple[tuple[bytes, ...], type[ImageFile.ImageFile]], ...] = (
        ((b"\xff\xd8\xff",), JpegImageFile),
        ((b"\x89PNG\r\n\x1a\n",), PngImageFile),
        ((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), _Tiff),
        ((b"BM",), BmpImageFile),
        ((b"GIF87a", b"GIF89a"), GifImageFile),
        ((b"P1", b"P2", b"P3", b"P4", b"P5", b"P6"), PpmImageFile),
    )
    if not prefix:
        raise ImageError(label, "the file is empty: copy it again or leave it out")
    if prefix[:4] == b"RIFF" and prefix[8:12] == b"WEBP":
        return WebPImageFile
    for magic, opener in starts:
        if prefix.startswith(magic):
            return opener
    known = "JPEG, PNG, TIFF, BMP, WebP, GIF or PNM"
    raise ImageError(label, f"not an image by its content: convert it to {known}, or leave it out")


def _check_size(image: Image.Image, label: str, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        size = f"{width} x {height} pixels are more than the limit of {max_pixels}"
        raise ImageError(label, f"{size}: shrink or cut it, or raise max_pixels")


def _upright(image: Image.Image) -> Image.Image:
    try:
        method = _ORIENTATIONS.get(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # noqa: BLE001 - unreadable metadata does not make the pixels wrong
        return image
    return image if method is None else image.transpose(method)
