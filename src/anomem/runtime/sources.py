"""Images to read one at a time: files and arrays. Nothing is decoded or converted before it is asked for."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from anomem.errors import ImageError, InputError
from anomem.runtime.images import as_rgb, decode
from anomem.runtime.listing import image_files, warn_of_pages
from anomem.types import UInt8Image

__all__ = ["ArraySource", "Expand", "FileSource", "ImageSource", "open_images"]

_CHANNELS = (1, 3, 4)


class Expand(Protocol):
    """From a path to the image files that it stands for."""

    def __call__(self, path: str | Path, /, *, among: bool) -> Sequence[str | Path]:
        """List them; ``among`` others a path need not exist yet."""


class ImageSource(ABC):
    """A sequence of images that are read when they are asked for."""

    @abstractmethod
    def __len__(self) -> int:
        """Count the images."""

    @abstractmethod
    def load(self, i: int) -> UInt8Image:
        """Read image ``i`` as (H, W, 3) uint8; ImageError when it cannot be decoded."""

    @abstractmethod
    def name(self, i: int) -> str:
        """Name image ``i``: its path, or its place in the input."""

    @abstractmethod
    def digest(self, i: int) -> int:
        """Hash the content of image ``i``: the first 8 bytes of a SHA-256, as unsigned number."""

    @abstractmethod
    def load_with_digest(self, i: int) -> tuple[UInt8Image, int]:
        """Do `load` and `digest` of image ``i``, touching the file once."""

    @abstractmethod
    def subset(self, indices: Iterable[int]) -> ImageSource:
        """Select images, in the order of ``indices``."""


class FileSource(ImageSource):
    """Image files.

    Parameters
    ----------
    paths : iterable of str or Path
        Nothing is opened here; a missing file shows when it is loaded.
    """

    def __init__(self, paths: Iterable[str | Path]) -> None:
        self._paths = tuple(paths)

    def __len__(self) -> int:
        """Count the images."""
        return len(self._paths)

    def content(self, i: int) -> bytes:
        """Read the bytes of file ``i``; ImageError when it cannot be read."""
        place = Path(self._paths[i])
        try:
            return place.read_bytes()
        except FileNotFoundError as error:
            raise ImageError(self.name(i), "there is no such file: check the path") from error
        except OSError as error:
            raise ImageError(self.name(i), f"{error.strerror}: check the path") from error

    def load(self, i: int) -> UInt8Image:
        """Decode file ``i``."""
        return decode(self.content(i), name=self.name(i))

    def name(self, i: int) -> str:
        """Return the path of file ``i`` as it was given."""
        return str(self._paths[i])

    def digest(self, i: int) -> int:
        """Hash the bytes of file ``i``; ImageError when it cannot be read."""
        return _first_bytes(hashlib.sha256(self.content(i)).digest())

    def load_with_digest(self, i: int) -> tuple[UInt8Image, int]:
        """Read file ``i`` once, hash and decode it."""
        content = self.content(i)
        digest = _first_bytes(hashlib.sha256(content).digest())
        return decode(content, name=self.name(i)), digest

    def subset(self, indices: Iterable[int]) -> FileSource:
        """Select files."""
        return type(self)(self._paths[i] for i in indices)


class ArraySource(ImageSource):
    """Images in memory: NumPy arrays or torch tensors, converted when they are asked for.

    Parameters
    ----------
    arrays : array, tensor or sequence of arrays or tensors
        (N, H, W), (N, H, W, C) or (N, C, H, W), C being 1, 3 or 4; a sequence of N images without
        the first axis; or one image (H, W) or (H, W, 3 or 4). Where both places could be the
        channels, a tensor has them first and an array last. Values as in
        `anomem.runtime.images.as_rgb`.

    Raises
    ------
    InputError
        Other shapes. (Values are looked at when the image is loaded.)
    """

    def __init__(self, arrays: Any) -> None:
        items = _as_batch(arrays) if hasattr(arrays, "shape") else list(arrays)
        first_channel = getattr(arrays, "ndim", 0) == 4 and _channels_first(arrays.shape[1:], arrays)
        self._items: Any = items
        self._channels_first: bool | None = first_channel if hasattr(arrays, "shape") else None
        self._indices: Sequence[int] = range(len(items))

    def __len__(self) -> int:
        """Count the images."""
        return len(self._indices)

    def load(self, i: int) -> UInt8Image:
        """Convert image ``i``."""
        return as_rgb(self._array(i), name=self.name(i))

    def name(self, i: int) -> str:
        """Return ``image i``, counted from 0 in the whole input."""
        return f"image {self._indices[i]}"

    def digest(self, i: int) -> int:
        """Hash shape, dtype and values of image ``i``."""
        return _array_digest(self._array(i))

    def load_with_digest(self, i: int) -> tuple[UInt8Image, int]:
        """Convert image ``i`` once, and hash it."""
        array = self._array(i)
        return as_rgb(array, name=self.name(i)), _array_digest(array)

    def subset(self, indices: Iterable[int]) -> ArraySource:
        """Select images; the arrays are shared, not copied."""
        chosen = object.__new__(ArraySource)
        chosen._items = self._items
        chosen._channels_first = self._channels_first
        chosen._indices = tuple(self._indices[i] for i in indices)
        return chosen

    def _array(self, i: int) -> npt.NDArray[Any]:
        item = self._items[self._indices[i]]
        first = self._channels_first
        if first is None:
            first = np.ndim(item) == 3 and _channels_first(item.shape, item)
        array = _to_numpy(item)
        return np.moveaxis(array, 0, -1) if first else array


def open_images(images: Any, *, files: type[FileSource] = FileSource, expand: Expand = image_files) -> ImageSource:
    """Open files and arrays of images.

    Parameters
    ----------
    images : ImageSource, path, array, tensor, or sequence of paths, arrays or tensors
        A folder is searched recursively. Several paths may mix files and folders.
    files : type
        What opens paths.
    expand : callable
        From a path, and whether it stands ``among`` others, to the image files that it stands for.

    Returns
    -------
    ImageSource

    Raises
    ------
    InputError
        No image at all, a missing folder, or something that holds no images.
    """
    if isinstance(images, ImageSource):
        return images
    if isinstance(images, (str, Path)):
        warn_of_pages([images])
        return files(expand(images, among=False))
    if hasattr(images, "shape"):
        return ArraySource(images)
    if isinstance(images, (bytes, dict)) or not isinstance(images, Iterable):
        raise InputError(f"{type(images).__name__} holds no images: give a folder, paths, arrays or tensors")
    items = list(images)
    if not items:
        raise InputError("0 images: the list is empty")
    if all(isinstance(item, (str, Path)) for item in items):
        warn_of_pages(items)
        return files(path for item in items for path in expand(item, among=True))
    if all(hasattr(item, "shape") for item in items):
        return ArraySource(items)
    kinds = ", ".join(sorted({type(item).__name__ for item in items}))
    raise InputError(f"a list of {kinds} holds no images: give only paths or only arrays")


def _as_batch(arrays: Any) -> Any:
    """Give one array or tensor its axis of images."""
    shape = tuple(arrays.shape)
    if 0 in shape:
        raise InputError(f"0 images: an array of shape {shape}")
    lone_colour = len(shape) == 3 and shape[2] in (3, 4) and min(shape[:2]) > 4
    if len(shape) == 2 or lone_colour:
        return arrays[None]
    if len(shape) == 3 and hasattr(arrays, "detach") and shape[0] in (3, 4):
        raise InputError(
            f"a tensor of shape {shape} may be one image or {shape[0]} grey ones: "
            f"give (1, {shape[0]}, H, W) or ({shape[0]}, 1, H, W)"
        )
    if len(shape) == 3:
        return arrays
    if len(shape) == 4 and (shape[1] in _CHANNELS or shape[3] in _CHANNELS):
        return arrays
    raise InputError(
        f"an array of shape {shape} holds no images: give (N, H, W), (N, H, W, C) "
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


def _array_digest(array: npt.NDArray[Any]) -> int:
    facts = f"{array.shape} {array.dtype.str} ".encode()
    return _first_bytes(hashlib.sha256(facts + np.ascontiguousarray(array).tobytes()).digest())
