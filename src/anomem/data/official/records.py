"""Array files of images or labels: NumPy, IDX (MNIST), CIFAR's binary batches, SVHN's MAT files."""

from __future__ import annotations

import gzip
import io
import math
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from anomem.errors import InputError, one_line
from anomem.runtime.limits import MAX_UNPACKED_BYTES

__all__ = ["PickledCifar", "cifar_labels", "pickled_cifar", "read_records", "svhn_digits"]

_CIFAR_PIXELS = 3 * 32 * 32
_PICKLED = frozenset({"cifar-10-batches-py", "cifar-100-python"})
_IDX_UINT8 = b"\0\0\x08"
_MATRIX, _PACKED = 14, 15
_MAT_TYPES = {1: "<i1", 2: "<u1", 3: "<i2", 4: "<u2", 5: "<i4", 6: "<u4", 7: "<f4", 9: "<f8"}


def read_records(path: Path, content: bytes | None = None) -> npt.NDArray[np.uint8]:
    """Open an array file as its records.

    Parameters
    ----------
    path : Path
        ``*.npy`` (never with pickled objects), IDX (``*-idx3-ubyte``, ``*-idx1-ubyte``, also ``.gz``), CIFAR's
        ``*.bin``, SVHN's ``*.mat``, or a batch of CIFAR's Python version: that is a pickle, which torchvision reads
        after it has compared its checksum with the official one.
    content : bytes, optional
        Content of the file, if it is not on disk.

    Returns
    -------
    ndarray
        Images (N, H, W) or (N, H, W, 3), or labels (N,); a NumPy file as it is.

    Raises
    ------
    InputError
        Other format, or damaged file.
    """
    if path.parent.name in _PICKLED:
        return pickled_cifar(path.parent).batches[path.name][0]
    try:
        records = _parsed(path, content)
    except InputError:
        raise
    except Exception as error:  # parsers raise nearly everything on damaged files
        raise InputError(f"{path}: damaged or incomplete ({one_line(error)}); copy it again") from error
    if records is None:
        raise InputError(f"{path}: not an array file that is known; expected .npy, idx-ubyte, .bin or .mat")
    if records.ndim < 1:
        raise InputError(f"{path}: a single number, not records; give an array with one row per image")
    return records


def _parsed(path: Path, content: bytes | None) -> npt.NDArray[np.uint8] | None:
    if path.suffix == ".npy":
        return _numpy(path, content)
    if "ubyte" in path.name:
        return _idx(path, content)
    if path.suffix == ".bin":
        return _cifar(path, content)[:, -_CIFAR_PIXELS:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    if path.suffix == ".mat":
        return _mat(path, content, "X").transpose(3, 0, 1, 2)
    return None


def cifar_labels(path: Path, content: bytes | None = None) -> npt.NDArray[np.uint8]:
    """Read the label bytes of a binary CIFAR batch: (N, 1), or (N, 2) coarse and fine for CIFAR-100."""
    return np.asarray(_cifar(path, content)[:, :-_CIFAR_PIXELS])


def svhn_digits(path: Path, content: bytes | None = None) -> npt.NDArray[np.uint8]:
    """Read the digits (N,) of an SVHN file, in which 10 is the digit 0."""
    return _mat(path, content, "y").reshape(-1) % 10


@dataclass(frozen=True)
class PickledCifar:
    """CIFAR's Python version: images (N, 32, 32, 3) and class numbers (N,) per batch file; class names."""

    batches: Mapping[str, tuple[npt.NDArray[np.uint8], npt.NDArray[np.intp]]]
    classes: tuple[str, ...]


@lru_cache(maxsize=2)
def pickled_cifar(folder: Path) -> PickledCifar:
    """Read CIFAR's Python version with torchvision, which verifies all checksums first.

    Parameters
    ----------
    folder : Path
        ``cifar-10-batches-py`` or ``cifar-100-python``.

    Raises
    ------
    InputError
        A batch is missing or not the official one.
    """
    from torchvision.datasets import CIFAR10, CIFAR100

    read = CIFAR10 if folder.name == "cifar-10-batches-py" else CIFAR100
    batches: dict[str, tuple[npt.NDArray[np.uint8], npt.NDArray[np.intp]]] = {}
    try:
        for train, files in ((True, read.train_list), (False, read.test_list)):
            part = read(folder.parent, train=train)
            images, numbers = np.split(part.data, len(files)), np.split(np.asarray(part.targets), len(files))
            batches |= {name: pair for (name, _), pair in zip(files, zip(images, numbers, strict=True), strict=True)}
    except (RuntimeError, OSError, ValueError) as error:
        raise InputError(f"{folder}: a batch is missing or is not the official one; copy it again") from error
    return PickledCifar(batches, tuple(part.classes))


def _numpy(path: Path, content: bytes | None) -> npt.NDArray[np.uint8]:
    if content is None:
        return np.asanyarray(np.load(path, mmap_mode="r", allow_pickle=False))
    return np.asarray(np.load(io.BytesIO(content), allow_pickle=False))


def _idx(path: Path, content: bytes | None) -> npt.NDArray[np.uint8]:
    packed = path.suffix == ".gz"
    with path.open("rb") if content is None else io.BytesIO(content) as file:
        header = gzip.GzipFile(fileobj=file) if packed else file
        magic = header.read(4)
        if len(magic) < 4 or magic[:3] != _IDX_UINT8 or not magic[3]:
            raise InputError(f"{path}: damaged, or not an IDX file of bytes; copy it again")
        shape = [int(side) for side in np.frombuffer(header.read(4 * magic[3]), ">u4", magic[3])]
        size = math.prod(shape)
        if size > MAX_UNPACKED_BYTES:
            raise InputError(f"{path}: declares {size:,} bytes, more than the limit of {MAX_UNPACKED_BYTES:,}")
        if content is None and not packed:
            return np.memmap(path, np.uint8, "r", header.tell(), tuple(shape))
        return np.frombuffer(header.read(size), np.uint8, size).reshape(shape)


def _cifar(path: Path, content: bytes | None) -> npt.NDArray[np.uint8]:
    # CIFAR-100 has two label bytes, and other names.
    width = _CIFAR_PIXELS + (2 if path.stem in ("train", "test") else 1)
    raw = np.memmap(path, np.uint8, "r") if content is None else np.frombuffer(content, np.uint8)
    if raw.size % width:
        raise InputError(f"{path}: {raw.size:,} bytes are no whole number of records of {width:,}; copy it again")
    return raw.reshape(-1, width)


def _mat(path: Path, content: bytes | None, field: str) -> npt.NDArray[np.uint8]:
    """Read one array of a MATLAB 5 file; SciPy's reader ends the process on some damaged files."""
    raw = path.read_bytes() if content is None else content
    try:
        if raw[124:128] != b"\0\1IM":
            raise ValueError("no little-endian MATLAB 5 file")
        for outer, packed in _elements(raw[128:]):
            kind, body = outer, packed
            if outer == _PACKED:
                kind, body = next(_elements(zlib.decompressobj().decompress(packed, MAX_UNPACKED_BYTES)))
            if kind == _MATRIX:
                (_, _), (_, sides), (_, name), (code, values) = islice(_elements(body), 4)
                if name == field.encode():
                    array = np.frombuffer(values, _MAT_TYPES[code])
                    return array.reshape(np.frombuffer(sides, "<i4").tolist(), order="F")
        raise ValueError(f"no array {field}")
    except Exception as error:  # damaged sizes fail in many ways
        raise InputError(f"{path}: not a readable SVHN file ({one_line(error)}); copy it again") from error


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield type and content of the elements of a MATLAB 5 file, which begin at multiples of 8 bytes."""
    at = 0
    while at + 8 <= len(data):
        kind, size = struct.unpack_from("<II", data, at)
        if kind >> 16:  # up to 4 bytes, in the tag itself
            yield kind & 0xFFFF, data[at + 4 : at + 4 + (kind >> 16)]
            at += 8
            continue
        yield kind, data[at + 8 : at + 8 + size]
        at += 8 + size + (0 if kind == _PACKED else -size % 8)
