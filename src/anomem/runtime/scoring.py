"""Scoring path around the network: images to tiles, and tile outputs to one result per image.

Used with all engines: torch, ONNX Runtime, OpenVINO.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from anomem.errors import ImageError, InputError, ParameterError
from anomem.runtime.batches import load_batches
from anomem.runtime.preprocess import Preprocessing, Tiles
from anomem.runtime.sources import ImageSource
from anomem.types import FloatArray, IntArray, UInt8Image

__all__ = ["ImageResult", "Prepared", "PreparedImages", "TileOutput", "score_tiles", "tile_batches"]


@dataclass(frozen=True)
class Prepared:
    """Image prepared for a model.

    Parameters
    ----------
    index : int
        Position in the source.
    digest : int
        Content hash, 8 bytes.
    tiles : ndarray or Tiles
        (T, H, W, 3) uint8; T is 1 unless the image was cut into tiles. Empty if `error` is set.
    height_width : tuple of int
        Size of the image in pixels.
    error : str or None
        Reason why the image could not be decoded (only if bad images are skipped).
    """

    index: int
    digest: int
    tiles: UInt8Image | Tiles
    height_width: tuple[int, int]
    error: str | None = None


class PreparedImages:
    """Images of a source, prepared on access with at most a few batches in memory.

    Parameters
    ----------
    source : ImageSource
        Source of the images.
    preprocessing : Preprocessing
        Steps from an image to the network's input.
    indices : array-like of int, optional
        Positions of the images in the source, in order; all by default.
    workers : int, optional
        Number of decoding threads; by default one per core, at most eight.
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
        self.source, self.preprocessing = source.with_bits(preprocessing.bits), preprocessing
        self.indices = np.arange(len(source)) if indices is None else np.asarray(indices, dtype=np.intp)
        self.workers = min(8, os.cpu_count() or 1) if workers is None else workers
        self.skip_bad = skip_bad

    def __len__(self) -> int:
        return len(self.indices)

    def subset(self, positions: IntArray | Sequence[int]) -> Self:
        """Return the images at `positions` of this set."""
        chosen = self.indices[np.asarray(positions, dtype=np.intp)]
        return type(self)(self.source, self.preprocessing, chosen, workers=self.workers, skip_bad=self.skip_bad)

    def prepared(self, batch_size: int, order: IntArray | None = None) -> Iterator[list[Prepared]]:
        """Yield lists of prepared images, decoding ahead in threads.

        An image cut into tiles counts as that many images, which bounds the memory.
        """
        if batch_size < 1:
            raise ParameterError(f"batch_size must be at least 1, not {batch_size}")
        positions = np.arange(len(self)) if order is None else order
        yield from load_batches(
            len(positions),
            lambda i: self._prepare(int(self.indices[positions[i]])),
            batch_size=self.images_at_once(batch_size),
            workers=self.workers,
        )

    def images_at_once(self, batch_size: int) -> int:
        """Return the number of images per list of `prepared`."""
        return batch_size if self.preprocessing.tile is None else max(1, batch_size // 16)

    def _prepare(self, index: int) -> Prepared:
        try:
            image, digest = self.source.load_with_digest(index)
            height, width = image.shape[:2]
            return Prepared(index, digest, self._cut(image, index), (height, width))
        except ImageError as error:
            if not self.skip_bad:
                raise
            return Prepared(index, 0, np.empty((0, *self.preprocessing.hw, 3), np.uint8), (0, 0), str(error))

    def _cut(self, image: UInt8Image, index: int) -> UInt8Image | Tiles:
        try:
            return self.preprocessing.cut(image)
        except InputError as error:  # caused by one image: its size, or the region of interest at that size
            raise ImageError(self.source.name(index), str(error)) from error
        except MemoryError as error:
            problem = "needs more memory than there is; shrink it, cut it or leave it out"
            raise ImageError(self.source.name(index), problem) from error


def tile_batches(images: Sequence[Prepared], batch_size: int) -> Iterator[UInt8Image]:
    """Yield the tiles of several images in order, at most `batch_size` per batch."""
    parts: list[UInt8Image] = []
    for image in images:
        start, count = 0, len(image.tiles)
        while start < count:
            room = batch_size - sum(map(len, parts))
            parts.append(image.tiles[start : start + room])
            start += room
            if sum(map(len, parts)) == batch_size:
                yield parts[0] if len(parts) == 1 else np.concatenate(parts)
                parts = []
    if parts:
        yield parts[0] if len(parts) == 1 else np.concatenate(parts)


class TileOutput(NamedTuple):
    """Network output for a batch of tiles.

    Parameters
    ----------
    score : ndarray
        (T,) float32, higher = more anomalous, raw.
    map : ndarray or None
        (T, h, w) float32 in the frame of the tiles, at any resolution; None if the method does not localise.
    one_class : ndarray or None
        (T,) float32, score without the influence of labels; None if equal to `score`.
    evidence : ndarray or None
        (T, D) inputs of the second stage; None unless requested.
    """

    score: FloatArray
    map: FloatArray | None = None
    one_class: FloatArray | None = None
    evidence: npt.NDArray[Any] | None = None


@dataclass(frozen=True)
class ImageResult:
    """Network output for one image.

    Parameters
    ----------
    index, digest, height_width, error
        As in :class:`Prepared`.
    score : float
        Raw anomaly score; NaN if `error` is set.
    one_class : float
        Score without the influence of labels.
    evidence : ndarray, tensor or None
        (D,) inputs of the second stage from the image's selected tile.
    tile_map : ndarray or None
        (h, w) float32, map of the selected tile, in its own frame; None unless requested.
    tile : int
        Index of the selected tile, which has the highest one-class score.
    map : ndarray or None
        (H, W) float32, map of the whole image; None unless requested.
    """

    index: int
    digest: int
    height_width: tuple[int, int]
    score: float
    one_class: float
    evidence: Any = None
    tile_map: FloatArray | None = None
    tile: int = 0
    map: FloatArray | None = None
    error: str | None = None


def score_tiles(
    chunks: Iterable[list[Prepared]],
    forward: Callable[[UInt8Image], TileOutput],
    *,
    batch_size: int,
    maps: bool = False,
    whole: Preprocessing | None = None,
) -> Iterator[ImageResult]:
    """Score prepared images lazily, in order; of an image's tiles at most a batch is in memory.

    Parameters
    ----------
    chunks : iterable of list of Prepared
        Output of :meth:`PreparedImages.prepared`.
    forward : callable
        Network: from tiles (T, H, W, 3) uint8, at most `batch_size` of them, to their output.
    batch_size : int
        Tiles per forward pass; affects scores by rounding only.
    maps : bool
        Keep the map of each image's selected tile.
    whole : Preprocessing, optional
        Stitch the maps of each image, which this preprocessing has cut.
    """
    for chunk in chunks:
        gathered = {id(image): _Gathered(image, whole) for image in chunk if image.error is None}
        waiting = deque(gathered.values())
        for tiles in tile_batches([image for image in chunk if image.error is None], batch_size):
            output = forward(tiles)
            output = output if maps or whole else output._replace(map=None)
            start = 0
            while start < len(tiles):
                start += waiting[0].add(output, start)
                if not waiting[0].missing:
                    waiting.popleft()
        for image in chunk:
            if image.error is not None:
                yield ImageResult(image.index, image.digest, image.height_width, np.nan, np.nan, error=image.error)
            else:
                yield gathered.pop(id(image)).result()


class _Gathered:
    """Outputs of one image's tiles: those of the tile selected so far, and the stitched map."""

    def __init__(self, image: Prepared, whole: Preprocessing | None) -> None:
        self._image, self.missing = image, len(image.tiles)
        self._stitching = None if whole is None else whole.stitching(image.height_width)
        self._selected: ImageResult | None = None

    def add(self, output: TileOutput, start: int) -> int:
        """Add the next tiles, from `start` in a batch; return their number."""
        part = slice(start, start + min(self.missing, len(output.score) - start))
        one_class = (output.score if output.one_class is None else output.one_class)[part]
        best = int(one_class.argmax())
        if self._selected is None or self._exceeds(one_class[best]):
            self._select(output, start + best, len(self._image.tiles) - self.missing + best, one_class[best])
        if self._stitching is not None and output.map is not None:
            self._stitching.add(output.map[part])
        self.missing -= part.stop - part.start
        return part.stop - part.start

    def result(self) -> ImageResult:
        """Return the image's result."""
        if self._selected is None:
            raise InputError(f"image {self._image.index}: no tiles; check its size")
        return replace(self._selected, map=None if self._stitching is None else self._stitching.result())

    def _exceeds(self, one_class: np.floating[Any]) -> bool:
        """Return True for a score above those before; NaN, a fault of the network, is above all."""
        known = self._selected.one_class if self._selected is not None else -np.inf
        return not np.isnan(known) and not one_class <= known

    def _select(self, output: TileOutput, row: int, tile: int, one_class: np.floating[Any]) -> None:
        self._selected = ImageResult(
            self._image.index,
            self._image.digest,
            self._image.height_width,
            float(output.score[row]),
            float(one_class),
            None if output.evidence is None else output.evidence[row].copy(),
            None if output.map is None else output.map[row].copy(),
            tile,
        )
