"""Files, and images inside files: entries of a zip, records of an array file, a box of a larger image.

A path may lead into a file::

    cifar10.zip/test/cat/0001.png               an entry of a zip
    train-images-idx3-ubyte/00042.pgm           a record of an array file, counted from 0
    pneumoniamnist.npz/val_images.npy/00003.pgm a record of an array file inside a zip
    img000001.png/box-10-20-200-220.ppm         rows 10 to 199, columns 20 to 219 of an image
    clip.mp4#000123                             a frame of a video
    labels.json/12.regions                      a mask: the regions of an image of an annotation tool's export

so that whatever a set is made of, every image has a path, and its content a hash. Records, boxes and frames read as PNM
files.
"""

from __future__ import annotations

import io
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from anomem.data.annotations import MASK_SUFFIX, read_regions
from anomem.data.official.records import read_records
from anomem.data.video import is_frame, read_frame
from anomem.errors import ImageError, InputError
from anomem.runtime import images
from anomem.runtime.files import exists, is_file, is_folder, read_regular, scan
from anomem.runtime.images import IMAGE_SUFFIXES, decode
from anomem.runtime.limits import MAX_PIXELS, MAX_UNPACKED_BYTES, image_bytes
from anomem.types import BoolArray, UInt8Image

__all__ = ["entries", "file_size", "read_array", "read_file", "read_mask"]


def read_file(path: str | Path, max_bytes: int = MAX_UNPACKED_BYTES, *, max_pixels: int = MAX_PIXELS) -> bytes:
    """Read a file, or the content of a path into a file.

    Parameters
    ----------
    path : str or Path
    max_bytes : int
        Maximum size, unpacked.
    max_pixels : int
        Maximum number of pixels of a video frame.

    Returns
    -------
    bytes
        Content of the file or zip entry, or the record or box as a PNM file.

    Raises
    ------
    ImageError
        The file, entry, record or box is missing or too large.
    """
    place = Path(path)
    try:
        return read_regular(place, str(place), max_bytes)
    except (FileNotFoundError, NotADirectoryError):
        pass  # not on the disk by itself
    if is_frame(place):
        return _pnm(read_frame(place, max_pixels))
    if not exists(place.parent) or is_folder(place.parent):
        raise ImageError(str(place), "there is no such file; check the path")
    try:
        return _pnm(_box(place) if place.stem.startswith("box-") else _record(place))
    except ImageError:
        raise
    except InputError as error:  # an error of the file around the image, reported as the image's
        raise ImageError(str(place), str(error)) from error


def file_size(path: str | Path) -> int:
    """Return the size in bytes of a file or of a path into a file; ImageError as for `read_file`."""
    place = Path(path)
    return place.stat().st_size if is_file(place) else len(read_file(place))


def read_array(path: str | Path) -> npt.NDArray[np.uint8]:
    """Open an array file as its records; see `anomem.data.official.records` for the formats.

    Parameters
    ----------
    path : str or Path
        File, or entry of a zip.

    Returns
    -------
    ndarray
        Records along the first axis. A file on disk is memory-mapped if its format allows it.
    """
    place = Path(path)
    return _cached_array(place, _stamp(place))


def read_mask(
    path: str | Path,
    height_width: tuple[int, int] | None = None,
    *,
    image: str | Path | None = None,
    max_pixels: int = MAX_PIXELS,
) -> BoolArray:
    """Read a defect mask, in which pixels that are not black are defective; a folder is the union of its masks.

    Parameters
    ----------
    path : str or Path
        Path, possibly into a file; masks inside files must have 8 bits.
    height_width : (int, int), optional
        Size of the upright image; the mask is resized to it (nearest pixel).
    image : str or Path, optional
        Image of the mask, whose EXIF orientation may apply to it.
    max_pixels : int
        Maximum number of pixels.

    Returns
    -------
    ndarray of bool, shape (H, W)

    Raises
    ------
    ImageError
        As for `read_file` and `anomem.runtime.images.read_mask`, or a folder with masks of different sizes or without
        masks.
    """
    place = Path(path)
    if place.suffix == MASK_SUFFIX:
        return read_regions(place, height_width)
    whole = image if image is None or is_file(image) else read_file(image, image_bytes(max_pixels))
    options: dict[str, Any] = {"image": whole, "max_pixels": max_pixels}
    if is_file(place):
        return images.read_mask(place, height_width, **options)
    parts = entries(place)
    if parts:
        masks = [read_mask(part, height_width, image=image, max_pixels=max_pixels) for part in parts]
    else:
        content = read_file(place, image_bytes(max_pixels))
        masks = [images.read_mask(content, height_width, name=str(place), **options)]
    if len({mask.shape for mask in masks}) > 1:
        raise ImageError(str(place), "its masks differ in size; copy the folder again")
    union: BoolArray = np.logical_or.reduce(masks)
    return union


def entries(folder: Path) -> list[Path]:
    """List the images directly inside a folder, on disk or in a zip; empty for a missing folder."""
    names = sorted(name for name, _ in scan(folder) if not name.startswith(".")) if is_folder(folder) else []
    return [folder / name for name in names if Path(name).suffix.lower() in IMAGE_SUFFIXES]


@lru_cache(maxsize=16)
def _cached_array(path: Path, _state: tuple[int, int]) -> npt.NDArray[np.uint8]:
    return read_records(path, None if is_file(path) else read_file(path))


def _stamp(path: Path) -> tuple[int, int]:
    """Return size and time of the file on disk that contains a path, so that a changed file is reopened."""
    for place in (path, *path.parents):
        if is_file(place):
            facts = place.stat()
            return facts.st_size, facts.st_mtime_ns
    raise ImageError(str(path), "there is no such file; check the path")


def _record(path: Path) -> npt.NDArray[np.uint8]:
    records = read_array(path.parent)
    if not path.stem.isdecimal() or int(path.stem) >= len(records):
        raise ImageError(str(path), f"no record {path.stem} among {len(records):,}; check the path")
    record = np.asarray(records[int(path.stem)])
    if record.ndim not in (2, 3):
        raise ImageError(str(path), f"a record of shape {record.shape} is no image; check the path")
    return record


def _box(path: Path) -> UInt8Image:
    try:
        top, left, bottom, right = map(int, path.stem.removeprefix("box-").split("-"))
    except ValueError as error:
        raise ImageError(str(path), "a box is box-TOP-LEFT-BOTTOM-RIGHT") from error
    box = decode(read_file(path.parent), name=str(path.parent))[top:bottom, left:right]
    if 0 in box.shape:
        raise ImageError(str(path), "the box lies outside the image; check the label file")
    return box


def _pnm(image: npt.NDArray[np.uint8]) -> bytes:
    """Return (H, W) or (H, W, 3) as a binary PGM or PPM; arrays that are not uint8 are masks."""
    pixels = image if image.dtype == np.uint8 else (image != 0).astype(np.uint8) * np.uint8(255)
    height, width = pixels.shape[:2]
    stream = io.BytesIO()
    stream.write(f"P{5 if pixels.ndim == 2 else 6} {width} {height} 255\n".encode())
    stream.write(np.ascontiguousarray(pixels).tobytes())
    return stream.getvalue()
