"""Tiling and assembling: inverse of each other, without seams, independent of pixels outside the roi."""

from __future__ import annotations

import json
import math
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from anomem.errors import InputError, ModelFileError, ParameterError
from anomem.runtime.images import resize, resize_map
from anomem.runtime.mask_pixels import same_aspect
from anomem.runtime.preprocess import GREY, Preprocessing

sides = st.integers(1, 70)
tiles = st.none() | st.integers(1, 40)
overlaps = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9])


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def smooth(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width].astype(np.float32)
    return np.sin(y / 40) + np.cos(x / 55) + x * y / (height * width)


@settings(max_examples=80, deadline=None)
@given(height=sides, width=sides, tile=tiles, overlap=overlaps)
def test_boxes_cover_every_pixel_and_stay_inside(height: int, width: int, tile: int | None, overlap: float) -> None:
    boxes = Preprocessing(8, tile=tile, overlap=overlap).boxes((height, width))
    seen = np.zeros((height, width), int)
    for top, left, box_height, box_width in boxes:
        assert top >= 0
        assert left >= 0
        assert top + box_height <= height
        assert left + box_width <= width
        assert box_height == (height if tile is None else min(tile, height))
        assert box_width == (width if tile is None else min(tile, width))
        seen[top : top + box_height, left : left + box_width] += 1
    assert seen.min() >= 1
    assert len(set(boxes)) == len(boxes)
    assert boxes == sorted(boxes)


def test_boxes_by_hand() -> None:
    tiled = Preprocessing(32, tile=100, overlap=0.25)
    assert tiled.boxes((100, 230)) == [(0, 0, 100, 100), (0, 75, 100, 100), (0, 130, 100, 100)]
    assert tiled.boxes((60, 100)) == [(0, 0, 60, 100)]
    assert tiled.boxes((175, 40)) == [(0, 0, 100, 40), (75, 0, 100, 40)]
    assert Preprocessing(32).boxes((175, 40)) == [(0, 0, 175, 40)]


def test_tiles_overlap_at_least_as_asked() -> None:
    for length in range(101, 400):
        boxes = Preprocessing(8, tile=100, overlap=0.3).boxes((50, length))
        lefts = [box.left for box in boxes]
        assert all(b - a <= 70 for a, b in pairwise(lefts))


@settings(max_examples=80, deadline=None)
@given(
    height=sides,
    width=sides,
    tile=tiles,
    overlap=overlaps,
    letterbox=st.booleans(),
    map_side=st.integers(1, 20),
    value=st.floats(-(2.0**100), 2.0**100, width=32),
)
def test_constant_maps_stay_exactly_constant(
    height: int,
    width: int,
    tile: int | None,
    overlap: float,
    letterbox: bool,
    map_side: int,
    value: float,
) -> None:
    preprocessing = Preprocessing(16, letterbox=letterbox, tile=tile, overlap=overlap)
    inputs = preprocessing.cut(noise(height, width))
    assert inputs.shape[1:] == (16, 16, 3)
    assert inputs.dtype == np.uint8
    maps = np.full((len(inputs), map_side, map_side), value, np.float32)
    whole = preprocessing.assemble(maps, (height, width))
    assert whole.dtype == np.float32
    assert whole.shape == (height, width)
    assert (whole == np.float32(value)).all()


@settings(max_examples=40, deadline=None)
@given(height=sides, width=sides, tile=st.integers(2, 40), overlap=overlaps)
def test_tiles_at_their_own_resolution_give_back_any_map(height: int, width: int, tile: int, overlap: float) -> None:
    preprocessing = Preprocessing(tile, tile=tile, overlap=overlap)
    boxes = preprocessing.boxes((height, width))
    if any(box[2:] != (tile, tile) for box in boxes):
        return  # smaller than the tile: resized on the way
    truth = np.random.default_rng(0).normal(size=(height, width)).astype(np.float32)
    maps = np.stack([truth[t : t + h, x : x + w] for t, x, h, w in boxes])
    np.testing.assert_allclose(preprocessing.assemble(maps, (height, width)), truth, atol=1e-6)
    image = noise(height, width)
    for part, (top, left, _, _) in zip(preprocessing.cut(image), boxes, strict=True):
        np.testing.assert_array_equal(part, image[top : top + tile, left : left + tile])


@pytest.mark.parametrize("letterbox", [False, True])
@pytest.mark.parametrize("tile", [None, 64, 96])
@pytest.mark.parametrize("size", [(150, 211), (64, 300), (40, 90)])
def test_assemble_undoes_cut_for_smooth_images(letterbox: bool, tile: int | None, size: tuple[int, int]) -> None:
    truth = smooth(*size)
    grey = np.rint((truth - truth.min()) / np.ptp(truth) * 255).astype(np.uint8)
    preprocessing = Preprocessing(64, letterbox=letterbox, tile=tile)
    inputs = preprocessing.cut(np.dstack([grey] * 3))
    whole = preprocessing.assemble(inputs[:, :, :, 0].astype(np.float32), size)
    difference = np.abs(whole - grey)
    # A letterbox lets its border bleed into the outermost pixels; stretching has no border.
    inner = difference[8:-8, 8:-8] if letterbox else difference
    assert inner.max() <= 5
    assert inner.mean() <= 1


def test_seams_leave_no_trace_in_smooth_maps() -> None:
    truth = smooth(300, 420)
    preprocessing = Preprocessing(64, tile=128, overlap=0.25)
    boxes = preprocessing.boxes(truth.shape)
    maps = np.stack([resize_map(truth[t : t + h, x : x + w], (32, 32)) for t, x, h, w in boxes])
    whole = preprocessing.assemble(maps, truth.shape)
    steps = np.abs(np.diff(whole, axis=1))
    assert np.abs(whole - truth)[4:-4, 4:-4].max() < 0.02  # at the image's border a map goes flat
    assert steps.max() < 1.5 * np.abs(np.diff(truth, axis=1)).max()
    # The same with tiles that merely abut: what the blending is for.
    abutting = Preprocessing(64, tile=128, overlap=0.0)
    maps = np.stack([resize_map(truth[t : t + h, x : x + w], (32, 32)) for t, x, h, w in abutting.boxes((300, 420))])
    rough = np.abs(np.diff(abutting.assemble(maps, truth.shape), axis=1))
    assert rough.max() > 1.5 * steps.max()


def test_tiles_that_disagree_are_blended_without_a_step() -> None:
    preprocessing = Preprocessing(64, tile=64, overlap=0.25)
    maps = np.zeros((2, 4, 4), np.float32)
    maps[1] = 1
    whole = preprocessing.assemble(maps, (64, 112))
    row = whole[30]
    assert (whole == row).all()
    assert (row[:48] == 0).all()
    assert (row[64:] == 1).all()
    assert (np.diff(row) >= 0).all()
    assert np.diff(row).max() < 0.12  # a step would be 1; 16 shared pixels, sin^2
    np.testing.assert_allclose(row + row[::-1], 1, atol=1e-6)


def test_a_planted_peak_returns_to_its_place() -> None:
    truth = np.zeros((200, 310), np.float32)
    truth[118:126, 250:258] = 1
    for options in ({}, {"letterbox": True}, {"tile": 100}, {"tile": 90, "letterbox": True}):
        preprocessing = Preprocessing(96, **options)
        grey = np.dstack([(truth * 255).astype(np.uint8)] * 3)
        maps = preprocessing.cut(grey)[:, ::2, ::2, 0].astype(np.float32)
        maps[maps == GREY] = 0
        whole = preprocessing.assemble(maps, truth.shape)
        row, column = np.unravel_index(int(whole.argmax()), whole.shape)
        assert abs(row - 121.5) <= 7, options
        assert abs(column - 253.5) <= 7, options


@settings(max_examples=30, deadline=None)
@given(height=sides, width=sides, map_side=st.integers(1, 30))
def test_a_single_box_takes_the_same_resize_as_ever(height: int, width: int, map_side: int) -> None:
    values = np.random.default_rng(map_side).normal(size=(map_side, map_side)).astype(np.float32)
    expected = resize_map(values, (height, width))
    for tile in (None, 70):
        preprocessing = Preprocessing(16, tile=tile)
        np.testing.assert_array_equal(preprocessing.assemble(values[None], (height, width)), expected)
        image = noise(height, width)
        np.testing.assert_array_equal(preprocessing.cut(image)[0], resize(image, (16, 16)))


def test_letterbox_keeps_the_aspect_in_a_grey_frame() -> None:
    image = np.full((50, 100, 3), 255, np.uint8)
    (wide,) = Preprocessing(64, letterbox=True).cut(image)
    assert (wide[16:48] == 255).all()
    assert (wide[:16] == GREY).all()
    assert (wide[48:] == GREY).all()
    (tall,) = Preprocessing(64, letterbox=True).cut(image.transpose(1, 0, 2).copy())
    np.testing.assert_array_equal(tall, wide.transpose(1, 0, 2))
    (thin,) = Preprocessing(64, letterbox=True).cut(np.full((1, 1000, 3), 9, np.uint8))
    assert (thin != GREY).all(axis=2).any(axis=1).sum() == 1


def test_a_letterbox_map_returns_to_the_image_frame() -> None:
    preprocessing = Preprocessing(64, letterbox=True)
    framed = np.full((1, 64, 64), -5, np.float32)
    truth = smooth(32, 64)
    framed[0, 16:48] = truth
    whole = preprocessing.assemble(framed, (64, 128))
    expected = resize_map(truth, (64, 128))
    np.testing.assert_allclose(whole[2:-2], expected[2:-2], atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(2, 50),
    width=st.integers(2, 50),
    roi_size=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    tile=tiles,
    letterbox=st.booleans(),
    seed=st.integers(0, 999),
)
def test_nothing_outside_the_roi_changes_a_bit(
    height: int,
    width: int,
    roi_size: tuple[int, int],
    tile: int | None,
    letterbox: bool,
    seed: int,
) -> None:
    assume(same_aspect(roi_size, (height, width)) or not same_aspect(roi_size[::-1], (height, width)))
    rng = np.random.default_rng(seed)
    roi = np.zeros(roi_size, bool)
    roi[: rng.integers(1, roi_size[0] + 1), : rng.integers(1, roi_size[1] + 1)] = True
    roi &= rng.random(roi_size) > 0.2
    preprocessing = Preprocessing(16, letterbox=letterbox, tile=tile, roi=roi)
    # Where an image's pixels look in the roi, worked out without the code under test.
    rows = [math.floor(Fraction(2 * y + 1, 2 * height) * roi_size[0]) for y in range(height)]
    columns = [math.floor(Fraction(2 * x + 1, 2 * width) * roi_size[1]) for x in range(width)]
    inside = roi[np.ix_(rows, columns)]
    image = noise(height, width, seed)
    if not inside.any():
        with pytest.raises(InputError, match="empty"):
            preprocessing.cut(image)
        return
    changed = np.where(inside[:, :, None], image, noise(height, width, seed + 1))
    np.testing.assert_array_equal(preprocessing.cut(changed), preprocessing.cut(image))


def test_the_roi_leaves_boxes_out_and_fills_with_the_inner_minimum() -> None:
    roi = np.zeros((60, 200), bool)
    roi[5:30, 110:140] = True
    preprocessing = Preprocessing(50, tile=50, overlap=0.2, roi=roi)
    boxes = preprocessing.boxes((60, 200))
    assert {box.left for box in boxes} == {80, 120}
    truth = np.random.default_rng(3).normal(size=(60, 200)).astype(np.float32)
    maps = np.stack([truth[t : t + h, x : x + w] for t, x, h, w in boxes])
    whole = preprocessing.assemble(maps, (60, 200))
    np.testing.assert_allclose(whole[roi], truth[roi], atol=1e-6)
    assert (whole[~roi] == whole[roi].min()).all()


def test_the_roi_changes_inside_do_count() -> None:
    roi = np.zeros((20, 20), bool)
    roi[4:16, 4:16] = True
    preprocessing = Preprocessing(20, roi=roi)
    image = noise(20, 20)
    changed = image.copy()
    changed[10, 10] ^= 255
    assert (preprocessing.cut(changed) != preprocessing.cut(image)).any()
    assert image.flags.writeable  # and the caller's image is not painted over
    np.testing.assert_array_equal(image, noise(20, 20))


def test_an_empty_roi_is_an_error() -> None:
    preprocessing = Preprocessing(8, roi=np.zeros((4, 4), bool))
    with pytest.raises(InputError, match="region of interest is empty at 20 x 30"):
        preprocessing.boxes((20, 30))


def test_the_roi_is_a_copy() -> None:
    roi = np.ones((4, 4), bool)
    preprocessing = Preprocessing(8, roi=roi)
    roi[:] = False
    assert preprocessing.roi.all()
    assert not preprocessing.roi.flags.writeable


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"size": 0}, "size"),
        ({"size": 8.5}, "size"),
        ({"size": True}, "size"),
        ({"size": None}, "size"),
        ({"size": 8, "tile": 0}, "tile"),
        ({"size": 8, "letterbox": 1}, "letterbox"),
        ({"size": 8, "overlap": -0.1}, "overlap"),
        ({"size": 8, "overlap": 1.0}, "overlap"),
        ({"size": 8, "overlap": float("nan")}, "overlap"),
        ({"size": 8, "overlap": "a"}, "overlap"),
        ({"size": 8, "roi": np.ones((4, 4))}, "roi"),
        ({"size": 8, "roi": np.ones((4, 4, 3), bool)}, "roi"),
        ({"size": 8, "roi": [[True]]}, "roi"),
    ],
)
def test_bad_parameters_are_named(options: dict[str, Any], word: str) -> None:
    with pytest.raises(ParameterError, match=f"^{word} must be"):
        Preprocessing(**options)


def test_wrong_arrays_are_errors() -> None:
    preprocessing = Preprocessing(8, tile=10)
    with pytest.raises(InputError, match="cut takes"):
        preprocessing.cut(np.zeros((8, 8), np.uint8))
    with pytest.raises(InputError, match="no pixels"):
        preprocessing.cut(np.zeros((0, 8, 3), np.uint8))
    with pytest.raises(InputError, match="2 maps"):
        preprocessing.assemble(np.zeros((3, 4, 4), np.float32), (10, 17))


@pytest.mark.parametrize("roi", [None, np.eye(5, dtype=bool)])
def test_facts_survive_json(roi: np.ndarray | None) -> None:
    original = Preprocessing(64, letterbox=True, tile=100, overlap=0.5, roi=roi)
    again = Preprocessing.from_dict(json.loads(json.dumps(original.to_dict())), roi)
    assert again == original
    assert hash(again) == hash(original)
    assert again != Preprocessing(64, letterbox=True, tile=101, overlap=0.5, roi=roi)
    assert original != "something else"


def test_equality_looks_at_the_roi() -> None:
    first, second = (Preprocessing(8, roi=np.eye(5, k=k, dtype=bool)) for k in (0, 1))
    assert first != second
    assert first != Preprocessing(8)


def test_from_dict_refuses_what_it_does_not_know() -> None:
    facts = Preprocessing(64).to_dict()
    for bad in (facts | {"crop": 3}, {"size": 64}, facts | {"size": -1}, facts | {"roi": True}):
        with pytest.raises(ModelFileError, match="preprocessing"):
            Preprocessing.from_dict(bad)
    with pytest.raises(ModelFileError, match="region of interest"):
        Preprocessing.from_dict(facts, np.ones((2, 2), bool))


def test_many_tiles_are_cut_when_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    from anomem.runtime import preprocess

    image = noise(50, 70, 3)
    roi = np.zeros((50, 70), bool)
    roi[5:45, 30:60] = True
    for options in ({}, {"letterbox": True}, {"roi": roi}):
        preprocessing = Preprocessing(16, tile=8, overlap=0.5, **options)
        at_once = preprocessing.cut(image)
        monkeypatch.setattr(preprocess, "TILES_AT_ONCE_BYTES", 0)
        later = preprocessing.cut(image)
        monkeypatch.undo()
        assert isinstance(at_once, np.ndarray)
        assert not isinstance(later, np.ndarray)
        assert len(later) == len(at_once) == len(preprocessing.boxes((50, 70)))
        for part in (slice(0, 3), slice(3, 20), slice(len(later) - 1, None), slice(None, None, 7)):
            np.testing.assert_array_equal(later[part], at_once[part])


def test_an_image_of_too_many_tiles_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from anomem.runtime import preprocess

    monkeypatch.setattr(preprocess, "MAX_TILES", 20)
    with pytest.raises(InputError, match=r"50 x 70 pixels is 63 tiles, more than the limit of 20; take larger tiles"):
        Preprocessing(16, tile=8, overlap=0).cut(noise(50, 70, 3))


def test_sizes_that_no_network_has_are_refused() -> None:
    with pytest.raises(ModelFileError, match="size must be at most 4096"):
        Preprocessing.from_dict({**Preprocessing(8).to_dict(), "size": 10**9})


def test_the_bit_depth_is_remembered_only_where_it_matters() -> None:
    assert "bits" not in Preprocessing(8).to_dict()
    twelve = Preprocessing(8, bits=12)
    assert Preprocessing.from_dict(json.loads(json.dumps(twelve.to_dict()))) == twelve != Preprocessing(8)
    with pytest.raises(ModelFileError, match="bits must be one of"):
        Preprocessing.from_dict({**Preprocessing(8).to_dict(), "bits": 99})
