"""Maps of tiles, stitched while they are scored."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from anomem.runtime.preprocess import Preprocessing
from anomem.runtime.scoring import ImageResult, PreparedImages, TileOutput, score_tiles
from anomem.runtime.sources import ArraySource
from anomem.types import BoolArray, FloatArray, UInt8Image


def reference(preprocessing: Preprocessing, maps: FloatArray, hw: tuple[int, int]) -> FloatArray:
    """Average all tiles at once, in float64: sin^2 ramps where tiles overlap, none at the image's border."""
    shared = round(preprocessing.tile * preprocessing.overlap)
    ramp = np.sin(0.5 * np.pi * (np.arange(shared) + 0.5) / shared) ** 2
    total, weight = np.zeros(hw), np.zeros(hw)
    for values, (top, left, height, width) in zip(maps, preprocessing.boxes(hw), strict=True):
        share = np.ones((height, width))
        for axis, start, extent, length in ((0, top, height, hw[0]), (1, left, width, hw[1])):
            line = np.ones(extent)
            line[:shared] *= ramp if start > 0 else 1
            line[extent - shared :] *= ramp[::-1] if start + extent < length else 1
            share *= line[:, None] if axis == 0 else line
        part = np.s_[top : top + height, left : left + width]
        total[part] += share * values
        weight[part] += share
    return (total / weight).astype(np.float32)


@pytest.mark.parametrize("hw", [(70, 95), (40, 130), (100, 40), (33, 200)])
def test_streamed_maps_are_the_weighted_mean_of_all_tiles(hw: tuple[int, int]) -> None:
    preprocessing = Preprocessing(32, tile=32, overlap=0.25)
    count = len(preprocessing.boxes(hw))
    maps = np.random.default_rng(0).normal(size=(count, 32, 32)).astype(np.float32)
    np.testing.assert_allclose(preprocessing.assemble(maps, hw), reference(preprocessing, maps, hw), atol=1e-6)
    stitching = preprocessing.stitching(hw)
    for part in np.array_split(maps, 5):
        stitching.add(part)
    assert stitching.missing == 0
    np.testing.assert_array_equal(stitching.result(), preprocessing.assemble(maps, hw))


def test_tiles_outside_a_region_leave_gaps_in_the_rows() -> None:
    roi: BoolArray = np.zeros((200, 90), bool)
    roi[:20], roi[150:, 30:] = True, True
    preprocessing = Preprocessing(32, tile=32, overlap=0.25, roi=roi)
    count = len(preprocessing.boxes((200, 90)))
    assert count < len(Preprocessing(32, tile=32, overlap=0.25).boxes((200, 90)))
    whole = preprocessing.assemble(np.full((count, 4, 4), 2.5, np.float32), (200, 90))
    assert (whole == 2.5).all()


def _network(tiles: UInt8Image) -> TileOutput:
    values = tiles[:, ::4, ::4, 0].astype(np.float32)
    return TileOutput(values.max(axis=(1, 2)), values, evidence=values.reshape(len(values), -1)[:, :3])


def _results(images: Any, preprocessing: Preprocessing, batch_size: int, **options: Any) -> Iterator[ImageResult]:
    prepared = PreparedImages(ArraySource(images), preprocessing, workers=0)
    return score_tiles(prepared.prepared(batch_size), _network, batch_size=batch_size, **options)


@pytest.mark.parametrize("batch_size", [1, 3, 16, 64])
def test_results_do_not_depend_on_the_batches_of_tiles(batch_size: int) -> None:
    images = list(np.random.default_rng(1).integers(0, 255, (3, 70, 90, 3), dtype=np.uint8))
    preprocessing = Preprocessing(32, tile=32)
    whole = [_network(preprocessing.cut(image)[:]) for image in images]
    for result, output, image in zip(
        _results(images, preprocessing, batch_size, maps=True, whole=preprocessing), whole, images, strict=True
    ):
        assert result.tile == int(output.score.argmax())
        assert result.score == output.score.max()
        np.testing.assert_array_equal(result.tile_map, output.map[result.tile])
        np.testing.assert_array_equal(result.evidence, output.evidence[result.tile])
        np.testing.assert_array_equal(result.map, preprocessing.assemble(output.map, image.shape[:2]))


def test_a_score_that_is_not_a_number_is_not_hidden_by_other_tiles() -> None:
    def broken(tiles: UInt8Image) -> TileOutput:
        scores = tiles.max(axis=(1, 2, 3)).astype(np.float32)
        return TileOutput(np.where(scores == 7, np.float32(np.nan), scores))

    image = np.full((32, 200, 3), 9, np.uint8)
    image[:, 64:96] = 7
    prepared = PreparedImages(ArraySource([image]), Preprocessing(32, tile=32, overlap=0.0), workers=0)
    (result,) = score_tiles(prepared.prepared(2), broken, batch_size=2)
    assert np.isnan(result.score)
    assert result.tile == 2


def test_memory_does_not_grow_with_the_number_of_tiles() -> None:
    def network(tiles: UInt8Image) -> TileOutput:
        return TileOutput(np.zeros(len(tiles), np.float32), np.zeros((len(tiles), 96, 96), np.float32))

    preprocessing = Preprocessing(16, tile=32, overlap=0.5)
    assert len(preprocessing.boxes((512, 512))) == 961  # of 37 kB each: 35 MB of maps
    prepared = PreparedImages(ArraySource([np.zeros((512, 512, 3), np.uint8)]), preprocessing, workers=0)
    tracemalloc.start()
    (result,) = score_tiles(prepared.prepared(16), network, batch_size=16, whole=preprocessing)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert result.map.shape == (512, 512)
    assert peak < 5e6  # the map, the prepared image, a batch of maps
