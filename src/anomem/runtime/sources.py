"""Image sources: files and arrays, decoded on access."""

from __future__ import annotations

import copy
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt
from PIL import Image

from anomem.errors import ImageError, InputError
from anomem.runtime import _pillow
from anomem.runtime._pillow import check_kind
from anomem.runtime.files import is_file, read_regular
from anomem.runtime.images import peak_level, read_image
from anomem.runtime.limits import MAX_PIXELS, image_bytes
from anomem.runtime.listing import image_files, warn_of_pages
from anomem.runtime.pixels import Reading, array_to_rgb
from anomem.types import ImagesLike, UInt8Image

__all__ = ["ArraySource", "Expand", "FileSource", "ImageSource", "highest_level", "open_images"]

_CHANNELS = (1, 3, 4)

OBSERVED = 256
"""Number of images whose bit depth is examined."""


class Expand(Protocol):
    """Function from a path to its image files."""

    def __call__(self, path: str | Path, /, *, among: bool) -> Sequence[str | Path]:
        """List the image files; with ``among`` (one of several paths) the path need not exist."""


class ImageSource(ABC):
    """Sequence of images read on access."""

    reading: Reading = Reading()
    """Settings for the conversion to 8-bit RGB."""

    def with_bits(self, bits: int) -> Self:
        """Return the same images with 16-bit samples read as `bits` bits; see `Reading`."""
        return self if bits == self.reading.bits else self.with_reading(replace(self.reading, bits=bits))

    def with_reading(self, reading: Reading) -> Self:
        """Return the same images with other conversion settings."""
        changed = copy.copy(self)
        changed.reading = reading
        return changed

    def peak(self, i: int) -> int | None:
        """Return the largest 16-bit sample of image ``i``; None for one of 8 bits or of floats."""
        return None

    def height_width(self, i: int) -> tuple[int, int]:
        """Return height and width of image ``i`` in pixels, upright; from its header where it has one."""
        height, width = self.load(i).shape[:2]
        return height, width

    @abstractmethod
    def __len__(self) -> int:
        """Count the images."""

    @abstractmethod
    def load(self, i: int) -> UInt8Image:
        """Read image ``i`` as (H, W, 3) uint8; ImageError when it cannot be decoded."""

    @abstractmethod
    def name(self, i: int) -> str:
        """Return the name of image ``i``: its path, or its position in the input."""

    @abstractmethod
    def digest(self, i: int) -> int:
        """Return the content hash of image ``i``: the first 8 bytes of a SHA-256, as an unsigned integer."""

    @abstractmethod
    def load_with_digest(self, i: int) -> tuple[UInt8Image, int]:
        """Return `load` and `digest` of image ``i`` from one read."""

    @abstractmethod
    def subset(self, indices: Iterable[int]) -> ImageSource:
        """Select images, in the order of ``indices``."""


def highest_level(images: ImageSource) -> int:
    """Return the largest 16-bit sample of evenly chosen images; 0 without 16-bit images."""
    chosen = np.unique(np.linspace(0, len(images) - 1, OBSERVED).round().astype(int)) if len(images) else ()
    return max((images.peak(int(i)) or 0 for i in chosen), default=0)


class FileSource(ImageSource):
    """Image files.

    Parameters
    ----------
    paths : iterable of str or Path
        Paths, opened on access; a missing file is an error when loaded.
    """

    def __init__(self, paths: Iterable[str | Path], reading: Reading | None = None) -> None:
        self._paths = tuple(paths)
        self.reading = reading or Reading()

    def __len__(self) -> int:
        """Count the images."""
        return len(self._paths)

    def content(self, i: int) -> bytes:
        """Read the bytes of file ``i``; ImageError if it cannot be read or is not an image."""
        label, limit = self.name(i), image_bytes(self.reading.max_pixels)
        try:
            return read_regular(self._paths[i], label, limit, check_kind)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise ImageError(label, "there is no such file; check the path") from error

    def load(self, i: int) -> UInt8Image:
        """Decode file ``i``."""
        return read_image(self.content(i), self.name(i), self.reading)

    def peak(self, i: int) -> int | None:
        """Return the largest 16-bit sample of file ``i``."""
        path = self._paths[i]
        return peak_level(path if is_file(path) else self.content(i), self.name(i), self.reading.max_pixels)

    def height_width(self, i: int) -> tuple[int, int]:
        """Return height and width of file ``i``, read from its header."""
        path = self._paths[i]
        return _pillow.height_width(path if is_file(path) else self.content(i), self.name(i), self.reading.max_pixels)

    def name(self, i: int) -> str:
        """Return the path of file ``i`` as given."""
        return str(self._paths[i])

    def digest(self, i: int) -> int:
        """Hash the bytes of file ``i``; ImageError if it cannot be read."""
        return _first_bytes(hashlib.sha256(self.content(i)).digest())

    def load_with_digest(self, i: int) -> tuple[UInt8Image, int]:
        """Read file ``i`` once, hash and decode it."""
        content = self.content(i)
        digest = _first_bytes(hashlib.sha256(content).digest())
        return read_image(content, self.name(i), self.reading), digest

    def subset(self, indices: Iterable[int]) -> Self:
        """Select files."""
        found = copy.copy(self)
        found._paths = tuple(self._paths[i] for i in indices)
        return found


class ArraySource(ImageSource):
    """Images in memory: arrays, tensors, Pillow images and contents of files, converted on access.

    Parameters
    ----------
    items : array, tensor, or sequence of arrays, tensors, Pillow images or bytes
        RGB or grey: (N, H, W), (N, H, W, C) or (N, C, H, W), C being 1, 3 or 4; a sequence of N
        images without the first axis; or one image (H, W) or (H, W, 3 or 4). Where both places
        could be the channels, a tensor has them first and an array last. Values as in
        `anomem.runtime.images.as_rgb`. Bytes are the content of an image file.
    reading : Reading, optional
        Settings for the conversion to 8-bit RGB.

    Raises
    ------
    InputError
        Other shapes. (Values are checked when the image is loaded.)
    """

    def __init__(self, items: Any, reading: Reading | None = None) -> None:
        whole = hasattr(items, "shape")
        first_channel = whole and items.ndim == 4 and _channels_first(items.shape[1:], items)
        self._items: Any = _as_batch(items) if whole else list(items)
        self._channels_first: bool | None = first_channel if whole else None
        self._indices: Sequence[int] = range(len(self._items))
        self.reading = reading or Reading()

    def __len__(self) -> int:
        """Count the images."""
        return len(self._indices)

    def load(self, i: int) -> UInt8Image:
        """Convert image ``i``."""
        return self._converted(self._item(i), self.name(i))

    def name(self, i: int) -> str:
        """Return ``image i``, counted from 0 in the whole input."""
        return f"image {self._indices[i]}"

    def digest(self, i: int) -> int:
        """Hash image ``i``: shape, dtype and values, or the content if it is bytes."""
        return _digest(self._item(i), self.name(i))

    def load_with_digest(self, i: int) -> tuple[UInt8Image, int]:
        """Convert image ``i`` once, and hash it."""
        item = self._item(i)
        return self._converted(item, self.name(i)), _digest(item, self.name(i))

    def peak(self, i: int) -> int | None:
        """Return the largest 16-bit sample of image ``i``."""
        item = self._item(i)
        if isinstance(item, bytes):
            return peak_level(item, self.name(i), self.reading.max_pixels)
        values = np.asarray(item) if isinstance(item, np.ndarray) or item.mode.startswith("I;16") else None
        if values is None or values.dtype.kind != "u" or values.dtype.itemsize != 2 or not values.size:
            return None
        return int((values[:, :, :3] if values.ndim == 3 else values).max())

    def height_width(self, i: int) -> tuple[int, int]:
        """Return height and width of image ``i``."""
        item = self._item(i)
        if isinstance(item, bytes):
            return _pillow.height_width(item, self.name(i), self.reading.max_pixels)
        if isinstance(item, Image.Image):
            return _pillow.upright_hw(item)
        return int(item.shape[0]), int(item.shape[1])

    def subset(self, indices: Iterable[int]) -> ArraySource:
        """Select images; the arrays are shared, not copied."""
        chosen = copy.copy(self)
        chosen._indices = tuple(self._indices[i] for i in indices)
        return chosen

    def _item(self, i: int) -> npt.NDArray[Any] | bytes | Image.Image:
        item = self._items[self._indices[i]]
        if isinstance(item, (bytes, bytearray, memoryview)):
            return bytes(item)
        if isinstance(item, Image.Image):
            return item
        first = self._channels_first
        if first is None:
            first = np.ndim(item) == 3 and _channels_first(item.shape, item)
        array = _to_numpy(item)
        return np.moveaxis(array, 0, -1) if first else array

    def _converted(self, item: npt.NDArray[Any] | bytes | Image.Image, name: str) -> UInt8Image:
        if isinstance(item, (bytes, Image.Image)):
            return read_image(item, name, self.reading)
        return array_to_rgb(item, name, self.reading)


def open_images(
    images: ImagesLike,
    *,
    files: type[FileSource] = FileSource,
    expand: Expand = image_files,
    max_pixels: int | None = None,
) -> ImageSource:
    """Open files and arrays of images.

    Parameters
    ----------
    images : ImageSource, path, array, tensor, Pillow image, bytes, or sequence of these
        A folder is searched recursively. Several paths may mix files and folders; paths do not mix
        with images in memory.
    files : type
        Class that opens paths.
    expand : callable
        Function from a path, and ``among`` (one of several paths), to its image files.
    max_pixels : int, optional
        Maximum number of pixels per image; `anomem.runtime.limits.MAX_PIXELS` by default.

    Returns
    -------
    ImageSource

    Raises
    ------
    InputError
        No images, a missing folder, or an unsupported input.
    """
    if isinstance(images, ImageSource):
        if max_pixels is None:
            return images
        return images.with_reading(replace(images.reading, max_pixels=max_pixels))
    reading = Reading(MAX_PIXELS if max_pixels is None else max_pixels)
    if isinstance(images, (str, Path)):
        warn_of_pages([images])
        return files(expand(images, among=False), reading)
    if isinstance(images, (bytes, bytearray, memoryview, Image.Image)):
        return ArraySource([images], reading)
    if hasattr(images, "shape") and not _lists_objects(images):
        return ArraySource(images, reading)
    if isinstance(images, dict) or not isinstance(images, Iterable):
        raise InputError(f"{type(images).__name__} holds no images; give a folder, paths, arrays or tensors")
    items = list(images)
    if not items:
        raise InputError("0 images: the list is empty")
    if all(isinstance(item, (str, Path)) for item in items):
        warn_of_pages(items, by_suffix=True)  # many names: the disk is not looked at
        return files((path for item in items for path in expand(item, among=True)), reading)
    if all(_in_memory(item) for item in items):
        return ArraySource(items, reading)
    kinds = ", ".join(sorted({type(item).__name__ for item in items}))
    raise InputError(f"a list of {kinds} holds no images; give only paths, or only arrays, Pillow images and bytes")


def _in_memory(item: object) -> bool:
    return hasattr(item, "shape") or isinstance(item, (bytes, bytearray, memoryview, Image.Image))


def _lists_objects(array: Any) -> bool:
    """Return True for an array or table column of paths or images instead of pixels."""
    return len(array.shape) == 1 and getattr(array.dtype, "kind", "O") in "OUST"


def _as_batch(arrays: Any) -> Any:
    """Return an array or tensor with a leading axis of images."""
    shape = tuple(arrays.shape)
    if 0 in shape:
        raise InputError(f"0 images: an array of shape {shape}")
    lone_colour = len(shape) == 3 and shape[2] in (3, 4) and min(shape[:2]) > 4
    if len(shape) == 2 or lone_colour:
        return arrays[None]
    if len(shape) == 3 and shape[0] in (3, 4):
        kind = "a tensor" if hasattr(arrays, "detach") else "an array"
        raise InputError(
            f"{kind} of shape {shape} may be one image or {shape[0]} grey ones; "
            f"give (1, {shape[0]}, H, W) or ({shape[0]}, 1, H, W)"
        )
    if len(shape) == 3:
        return arrays
    if len(shape) == 4 and (shape[1] in _CHANNELS or shape[3] in _CHANNELS):
        return arrays
    raise InputError(
        f"an array of shape {shape} holds no images; give (N, H, W), (N, H, W, C) "
        f"or (N, C, H, W) with 1, 3 or 4 channels"
    )


def _channels_first(shape: Sequence[int], array: Any) -> bool:
    first, last = shape[0] in _CHANNELS, shape[-1] in _CHANNELS
    return first and (not last or hasattr(array, "detach"))


def _to_numpy(item: Any) -> npt.NDArray[Any]:
    if hasattr(item, "detach"):  # a torch tensor, without importing torch
        item = item.detach().cpu()
        item = item.float() if "bfloat16" in str(item.dtype) else item
        return np.asarray(item.numpy())
    return np.asarray(item)


def _first_bytes(digest: bytes) -> int:
    return int.from_bytes(digest[:8], "big")


def _digest(item: npt.NDArray[Any] | bytes | Image.Image, name: str) -> int:
    if isinstance(item, bytes):
        return _first_bytes(hashlib.sha256(item).digest())
    if isinstance(item, Image.Image):
        try:
            facts, pixels = f"{item.size} {item.mode} ", item.tobytes()
        except Exception as error:  # decoders raise nearly everything on damaged files
            raise ImageError(name, f"a Pillow image that cannot be decoded ({error}); open its file again") from error
    else:
        facts, pixels = f"{item.shape} {item.dtype.str} ", np.ascontiguousarray(item).tobytes()
    return _first_bytes(hashlib.sha256(facts.encode() + pixels).digest())
