"""Images to read one at a time: files, arrays, tensors; and datasets of labelled files.

Nothing is decoded or converted before it is asked for.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from anomem.data.layouts import found_in, read_folder
from anomem.data.official.inside import read_file
from anomem.data.samples import Dataset, Layout, Sample
from anomem.data.tables import TABLE_SUFFIXES, read_labels, read_table
from anomem.errors import InputError
from anomem.runtime.images import IMAGE_SUFFIXES, as_rgb, decode, find_images
from anomem.types import UInt8Image

__all__ = [
    "ArraySource",
    "Dataset",
    "ImageSource",
    "Layout",
    "PathSource",
    "Sample",
    "open_source",
    "read_dataset",
    "read_labels",
    "training_samples",
]

_CHANNELS = (1, 3, 4)


def read_dataset(path: str | Path, *, normal: str | None = None) -> Dataset:
    """Recognise a folder or table of images and list what is for training and what for testing.

    Recognised are MVTec style (``train/good``, ``test/<type>``, ``ground_truth/<type>`` with
    ``<stem>_mask.png`` or ``<stem>.png``; ``train`` or ``test`` may be missing, masks too),
    ImageFolder style (``train/<class>``, ``test/<class>``; ``val/<class>`` serves as test where
    there is no test), class folders without ``train`` around them (the normal class trains, the
    others test), a flat folder of normal images with folders inside, and a table (see
    `anomem.data.tables.read_table`). Hidden files are skipped.

    Parameters
    ----------
    path : str or Path
        Folder, CSV or Parquet file.
    normal : str, optional
        The class folder of normal images; needed when the training folder holds several. Only it
        is trained on; test images of all other classes are anomalous, with ``type`` the class.

    Returns
    -------
    Dataset

    Raises
    ------
    InputError
        Nothing usable: the line says what was found and what is expected.
    MissingExtraError
        A Parquet table without pyarrow.
    """
    root = Path(path)
    if root.is_dir():
        return read_folder(root, normal)
    if root.is_file() and root.suffix.lower() in TABLE_SUFFIXES:
        if normal is not None:
            raise InputError(f"{root}: normal={normal!r} is for class folders: use the label column")
        return read_table(root)
    if root.is_file():
        raise InputError(
            f"{root}: found one {root.suffix or 'nameless'} file: give a folder of images or a CSV/Parquet table"
        )
    raise InputError(f"{root}: no such file or folder: check the path")


def training_samples(images: Any) -> list[Sample] | None:
    """List what a fit may use of a data set; fits never see test images.

    Parameters
    ----------
    images : object
        Whatever `open_source` takes, or a Dataset.

    Returns
    -------
    list of Sample or None
        The training part of a folder, a table or a Dataset, or the given Samples; None for
        anything else (paths, arrays, sources), about which nothing is known.

    Raises
    ------
    InputError
        As for `read_dataset`, and when there are no training images.
    """
    if isinstance(images, (str, Path)):
        path = Path(images)
        if not path.is_dir() and path.suffix.lower() not in TABLE_SUFFIXES:
            return None
        images = read_dataset(path)
    if isinstance(images, Dataset):
        if not images.train:
            raise InputError(f"{images.root}: 0 training images: {images.describe()}")
        return list(images.train)
    if isinstance(images, Sequence) and images and all(isinstance(s, Sample) for s in images):
        return list(images)
    return None


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


class PathSource(ImageSource):
    """Image files.

    Parameters
    ----------
    paths : iterable of str or Path
        Nothing is opened here; a missing file shows when it is loaded. A path may go on inside a file; see
        `anomem.data.official.inside`.
    """

    def __init__(self, paths: Iterable[str | Path]) -> None:
        self._paths = tuple(paths)

    def __len__(self) -> int:
        """Count the images."""
        return len(self._paths)

    def load(self, i: int) -> UInt8Image:
        """Decode file ``i``."""
        path = Path(self._paths[i])
        return decode(path if path.exists() else read_file(path), name=self.name(i))

    def name(self, i: int) -> str:
        """Return the path of file ``i`` as it was given."""
        return str(self._paths[i])

    def digest(self, i: int) -> int:
        """Hash the bytes of file ``i``; ImageError when it cannot be read."""
        return _first_bytes(hashlib.sha256(read_file(self._paths[i])).digest())

    def load_with_digest(self, i: int) -> tuple[UInt8Image, int]:
        """Read file ``i`` once, hash and decode it."""
        content = read_file(self._paths[i])
        digest = _first_bytes(hashlib.sha256(content).digest())
        return decode(content, name=self.name(i)), digest

    def subset(self, indices: Iterable[int]) -> PathSource:
        """Select files."""
        return PathSource(self._paths[i] for i in indices)


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


def open_source(images: Any) -> ImageSource:
    """Open whatever holds images.

    Parameters
    ----------
    images : ImageSource, path, array, tensor, or sequence of paths, Samples, arrays or tensors
        A folder is searched recursively, a table gives the images of all its rows. Several paths
        may mix files and folders.

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
    if isinstance(images, Dataset):
        raise InputError("a Dataset has two parts: give dataset.train or dataset.test")
    if isinstance(images, (str, Path)):
        return PathSource(_expand(images))
    if hasattr(images, "shape"):
        return ArraySource(images)
    if isinstance(images, (bytes, dict)) or not isinstance(images, Iterable):
        raise InputError(f"{type(images).__name__} holds no images: give a folder, paths, arrays or tensors")
    items = list(images)
    if not items:
        raise InputError("0 images: the list is empty")
    if all(isinstance(item, Sample) for item in items):
        return PathSource(sample.path for sample in items)
    if all(isinstance(item, (str, Path)) for item in items):
        return PathSource(path for item in items for path in _expand(item, among=True))
    if all(hasattr(item, "shape") for item in items):
        return ArraySource(items)
    kinds = ", ".join(sorted({type(item).__name__ for item in items}))
    raise InputError(f"a list of {kinds} holds no images: give only paths or only arrays")


def _expand(path: str | Path, *, among: bool = False) -> Sequence[str | Path]:
    """List the image files a path stands for; ``among`` others a file need not exist yet."""
    suffix = Path(path).suffix.lower()
    if among and suffix in IMAGE_SUFFIXES:
        return (path,)  # no look at the disk: there may be very many
    place = Path(path)
    if place.is_dir():
        found = find_images(place)
        if not found:
            raise InputError(f"{place}: 0 images, found {found_in(place)}: name a folder of images")
        return found
    if suffix in TABLE_SUFFIXES and place.is_file():
        dataset = read_table(place)
        return [sample.path for sample in (*dataset.train, *dataset.test)]
    if not among and not place.exists():
        raise InputError(f"{place}: no such file or folder: check the path")
    return (path,)


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
