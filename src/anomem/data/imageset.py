"""Images of a source as a model sees them: decoded, resized or cut into tiles, in batches."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from anomem.data.sources import ImageSource
from anomem.errors import ImageError, ParameterError
from anomem.runtime.batches import load_batches
from anomem.runtime.preprocess import Preprocessing
from anomem.types import IntArray, UInt8Image


@dataclass(frozen=True)
class Prepared:
    """One image, ready for a model.

    Parameters
    ----------
    index : int
        Its position in the source.
    digest : int
        Its content hash, 8 bytes.
    tiles : ndarray
        (T, S, S, 3) uint8; T is 1 unless the image was cut into tiles. Empty where `error` is set.
    height_width : tuple of int
        Its own size in pixels.
    error : str or None
        Why it could not be decoded (only where bad images are skipped).
    """

    index: int
    digest: int
    tiles: UInt8Image
    height_width: tuple[int, int]
    error: str | None = None


@dataclass(frozen=True)
class Batch:
    """Tiles of several images: (B, 3, S, S) uint8, and for each the position of its image in the set."""

    images: Tensor
    owner: Tensor


class ImageSet:
    """Some images of a source, prepared on the way in; never more than a few batches in memory.

    Parameters
    ----------
    source : ImageSource
        Where the images come from.
    preprocessing : Preprocessing
        How they are brought to the model's frame.
    indices : array-like of int, optional
        Which images of the source, in order; all by default.
    workers : int, optional
        Decoding threads; by default one a core, at most eight.
    skip_bad : bool
        Yield images that cannot be decoded with their error instead of raising.
    """

    def __init__(
        self,
        source: ImageSource,
        preprocessing: Preprocessing,
        indices: IntArray | Sequence[int] | None = None,
        *,
        workers: int | None = None,
        skip_bad: bool = False,
    ) -> None:
        self.source, self.preprocessing = source, preprocessing
        self.indices = np.arange(len(source)) if indices is None else np.asarray(indices, dtype=np.intp)
        self.workers = min(8, os.cpu_count() or 1) if workers is None else workers
        self.skip_bad = skip_bad

    def __len__(self) -> int:
        return len(self.indices)

    def subset(self, positions: IntArray | Sequence[int]) -> ImageSet:
        """Return the images at `positions` of this set."""
        chosen = self.indices[np.asarray(positions, dtype=np.intp)]
        return ImageSet(self.source, self.preprocessing, chosen, workers=self.workers, skip_bad=self.skip_bad)

    def prepared(self, batch_size: int, order: IntArray | None = None) -> Iterator[list[Prepared]]:
        """Yield lists of prepared images, decoding ahead in threads.

        An image that is cut into tiles counts as many, so that the memory held stays bounded.
        """
        if batch_size < 1:
            raise ParameterError(f"batch_size must be at least 1, not {batch_size}")
        positions = np.arange(len(self)) if order is None else order
        images_at_once = batch_size if self.preprocessing.tile is None else max(1, batch_size // 16)
        yield from load_batches(
            len(positions),
            lambda i: self._prepare(int(self.indices[positions[i]])),
            batch_size=images_at_once,
            workers=self.workers,
        )

    def batches(self, batch_size: int, order: IntArray | None = None) -> Iterator[Batch]:
        """Yield batches of at most `batch_size` tiles; owners count along `order`."""
        first = 0
        for images in self.prepared(batch_size, order):
            tiles = np.concatenate([image.tiles for image in images])
            owner = np.repeat(np.arange(first, first + len(images)), [len(i.tiles) for i in images])
            first += len(images)
            for start in range(0, len(tiles), batch_size):
                part = slice(start, start + batch_size)
                yield Batch(to_tensor(tiles[part]), torch.from_numpy(owner[part]))

    def _prepare(self, index: int) -> Prepared:
        try:
            image, digest = self.source.load_with_digest(index)
        except ImageError as error:
            if not self.skip_bad:
                raise
            size = self.preprocessing.size
            return Prepared(index, 0, np.empty((0, size, size, 3), np.uint8), (0, 0), str(error))
        height, width = image.shape[:2]
        return Prepared(index, digest, self.preprocessing.cut(image), (height, width))


def to_tensor(tiles: UInt8Image) -> Tensor:
    """(B, S, S, 3) uint8 array to a (B, 3, S, S) tensor of the same memory, channels last."""
    return torch.from_numpy(np.ascontiguousarray(tiles)).permute(0, 3, 1, 2)
