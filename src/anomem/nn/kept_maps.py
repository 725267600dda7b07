"""Maps of a frozen backbone, extracted once for all images of a fit and read many times."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from anomem.data.imageset import ImageSet, to_tensor
from anomem.errors import InputError
from anomem.nn.backbones import Backbone
from anomem.nn.feature_store import FeatureStore
from anomem.nn.precision import autocast
from anomem.runtime.scoring import Prepared, tile_batches
from anomem.types import IntArray, Record

__all__ = ["MOST_MB", "KeptMaps", "MapsTooLargeError", "keep_maps"]

MOST_MB = 16_384
"""Largest size of the kept maps, megabytes (2**20 bytes)."""


class MapsTooLargeError(InputError):
    """The maps of all images exceed :data:`MOST_MB`."""


class KeptMaps(ImageSet):
    """Images whose maps are kept, one row of a store per tile.

    Parameters
    ----------
    images : ImageSet
        The images.
    store : FeatureStore
        Maps of all tiles, each a row: channels last, scale after scale.
    shapes : sequence of (int, int, int)
        Shape (C, h, w) of each scale's maps.
    tiles : sequence of Prepared
        Facts of each image; their ``tiles`` are rows of the store.
    """

    def __init__(
        self,
        images: ImageSet,
        store: FeatureStore,
        shapes: Sequence[tuple[int, int, int]],
        tiles: Sequence[Prepared],
    ) -> None:
        super().__init__(images.source, images.preprocessing, images.indices, workers=images.workers)
        self.tiles, self._store, self._shapes = tiles, store, shapes

    def subset(self, positions: IntArray | Sequence[int]) -> KeptMaps:
        """Return the images at `positions` of this set."""
        images = ImageSet(self.source, self.preprocessing, self.indices[np.asarray(positions)], workers=self.workers)
        return KeptMaps(images, self._store, self._shapes, [self.tiles[int(i)] for i in positions])

    def alone(self, store: FeatureStore) -> KeptMaps:
        """Return the same images with their maps copied to a store of their own, as if only they were extracted."""
        store.add(self._store.rows(torch.from_numpy(self.rows)))
        ends = np.cumsum([len(image.tiles) for image in self.tiles])
        numbered: list[Any] = [
            np.arange(end - len(image.tiles), end) for image, end in zip(self.tiles, ends, strict=True)
        ]
        tiles = [replace(image, tiles=rows) for image, rows in zip(self.tiles, numbered, strict=True)]
        return KeptMaps(self, store, self._shapes, tiles)

    @property
    def rows(self) -> IntArray:
        """Rows of the store of all tiles, image after image."""
        return np.concatenate([np.asarray(image.tiles, dtype=np.intp) for image in self.tiles])

    def kept(self, batch_size: int) -> Iterator[list[Tensor]]:
        """Yield the maps of all tiles, image after image: [(B, C_s, h_s, w_s)] float32 on the CPU."""
        for rows in torch.from_numpy(self.rows).split(batch_size):
            yield self.maps(rows)

    def maps(self, rows: Tensor) -> list[Tensor]:
        """Return the maps in some rows of the store."""
        parts = self._store.rows(rows).split([c * h * w for c, h, w in self._shapes], dim=1)
        return [
            part.reshape(len(rows), h, w, c).permute(0, 3, 1, 2)
            for part, (c, h, w) in zip(parts, self._shapes, strict=True)
        ]


def keep_maps(
    store: FeatureStore, backbone: Backbone, images: ImageSet, *, precision: str, batch_size: int
) -> Generator[Record, None, KeptMaps]:
    """Pass every image once through a frozen backbone, and keep its maps in a store.

    Raises
    ------
    MapsTooLargeError
        Judged by the first batch, before the others are extracted.
    """
    device = backbone.mean.device
    tiles: list[Prepared] = []
    shapes: list[tuple[int, int, int]] = []
    for prepared in images.prepared(batch_size):
        for batch in tile_batches(prepared, batch_size):
            with torch.inference_mode(), autocast(device, precision):
                maps = backbone(to_tensor(batch).to(device))
            shapes = [(m.shape[1], m.shape[2], m.shape[3]) for m in maps]
            store.add(torch.cat([m.float().permute(0, 2, 3, 1).flatten(1) for m in maps], dim=1))
        first = len(store) - sum(len(image.tiles) for image in prepared)
        for image in prepared:
            rows: Any = np.arange(first, first + len(image.tiles))
            tiles.append(Prepared(image.index, image.digest, rows, image.height_width))
            first += len(rows)
        _check_size(store, len(tiles), len(images))
        yield Record("features", len(tiles), len(images))
    return KeptMaps(images, store, shapes, tiles)


def _check_size(store: FeatureStore, done: int, total: int) -> None:
    expected = 4 * store.dim * len(store) / done * total / 2**20
    if expected > MOST_MB:
        raise MapsTooLargeError(
            f"calibration: the features of {total:,} images take {expected / 1024:.0f} GiB, more than "
            f"{MOST_MB // 1024}; take calibration='split' (--calibration split), or larger tiles"
        )
