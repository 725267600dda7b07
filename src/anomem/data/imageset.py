"""Image sets as model inputs: decoded, resized or cut into tiles, in batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from anomem.data.ranks import divided, exchanged, part_of
from anomem.errors import ImageError
from anomem.runtime.scoring import Prepared, PreparedImages, tile_batches
from anomem.types import IntArray, UInt8Image

__all__ = ["Batch", "ImageSet", "Prepared", "to_tensor"]


@dataclass(frozen=True)
class Batch:
    """Batch of tiles: (B, 3, H, W) uint8, with the position of each tile's image in the set."""

    images: Tensor
    owner: Tensor


class ImageSet(PreparedImages):
    """Images of a source, prepared on access, in batches; parameters as for the base class."""

    def kept(self, batch_size: int) -> Iterator[list[Tensor]] | None:
        """Return the maps of the images by a frozen backbone where they are kept, in batches; None: compute them."""
        return None

    def joined(self, other: ImageSet) -> ImageSet:
        """Return the images of this set and of another one of the same source, each once, in the source's order."""
        chosen = np.union1d(self.indices, other.indices)
        return ImageSet(self.source, self.preprocessing, chosen, workers=self.workers, skip_bad=self.skip_bad)

    def prepared(self, batch_size: int, order: IntArray | None = None) -> Iterator[list[Prepared]]:
        """Yield lists of prepared images; in a divided fit, each rank decodes its part and gets the others'."""
        if not divided():
            yield from super().prepared(batch_size, order)
            return
        positions = np.arange(len(self)) if order is None else order
        count = self.images_at_once(batch_size)
        lists = [positions[start : start + count].tolist() for start in range(0, len(positions), count)]
        own = super().prepared(1, np.asarray([i for part in lists for i in part_of(part)], dtype=np.intp))
        for part in lists:
            try:
                mine, fault = [next(own)[0] for _ in part_of(part)], None
            except ImageError as error:
                mine, fault = [], error
            yield exchanged(mine, fault)

    def batches(self, batch_size: int, order: IntArray | None = None) -> Iterator[Batch]:
        """Yield batches of at most `batch_size` tiles; image positions refer to `order`."""
        first = 0
        for images in self.prepared(batch_size, order):
            owner = np.repeat(np.arange(first, first + len(images)), [len(i.tiles) for i in images])
            first += len(images)
            for start, tiles in zip(range(0, len(owner), batch_size), tile_batches(images, batch_size), strict=True):
                yield Batch(to_tensor(tiles), torch.from_numpy(owner[start : start + batch_size]))


def to_tensor(tiles: UInt8Image) -> Tensor:
    """Return a (B, H, W, 3) uint8 array as a (B, 3, H, W) tensor of the same memory, channels last."""
    return torch.from_numpy(np.ascontiguousarray(tiles)).permute(0, 3, 1, 2)
