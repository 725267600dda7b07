"""Resizing of images, maps and masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from anomem.errors import InputError
from anomem.runtime.images import read_mask, resize, resize_map, resize_mask
from tests.runtime.pictures import picture


@settings(max_examples=25, deadline=None)
@given(
    size=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    target=st.tuples(st.integers(1, 90), st.integers(2, 90)),  # torch 2.14 errs at one column
    seed=st.integers(0, 1000),
)
def test_resize_agrees_with_torchvision(size: tuple[int, int], target: tuple[int, int], seed: int) -> None:
    import torch
    from torchvision.transforms.functional import InterpolationMode
    from torchvision.transforms.functional import resize as reference

    noise = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    tensor = torch.from_numpy(noise).permute(2, 0, 1).float()
    expected = reference(tensor, list(target), InterpolationMode.BILINEAR, antialias=True)
    # Both as whole grey levels: Pillow rounds after each of its two passes.
    difference = resize(noise, target).transpose(2, 0, 1) - np.rint(expected.numpy())
    assert np.abs(difference).max() <= 1


def test_resize_treats_rows_and_columns_alike() -> None:
    image = picture(9, 14)
    for target in ((20, 1), (4, 1), (1, 1), (5, 30)):
        flipped = resize(np.ascontiguousarray(image.transpose(1, 0, 2)), target[::-1])
        difference = resize(image, target).astype(int) - flipped.transpose(1, 0, 2)
        assert np.abs(difference).max() <= 1
    pair = np.array([[[95, 130, 194]], [[217, 207, 235]]], np.uint8)
    np.testing.assert_array_equal(resize(pair, (3, 1))[1, 0], [156, 169, 215])


@settings(max_examples=25, deadline=None)
@given(
    size=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    target=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    value=st.floats(-(2.0**100), 2.0**100, width=32),
)
def test_constant_maps_stay_exactly_constant(size: tuple[int, int], target: tuple[int, int], value: float) -> None:
    resized = resize_map(np.full(size, value, np.float32), target)
    assert resized.dtype == np.float32
    assert resized.shape == target
    assert (resized == np.float32(value)).all()


def test_resize_map_agrees_with_torch_upwards() -> None:
    import torch

    values = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(values)[None, None], (50, 33), mode="bilinear", align_corners=False
    )
    np.testing.assert_allclose(resize_map(values, (50, 33)), expected[0, 0].numpy(), atol=1e-5)


def test_resize_map_region_is_the_cut_of_the_whole() -> None:
    values = np.random.default_rng(1).normal(size=(8, 8)).astype(np.float32)
    whole = resize_map(values, (64, 64))
    part = resize_map(values, (32, 64), region=(2, 0, 4, 8))
    np.testing.assert_allclose(part, whole[16:48], atol=1e-6)


def test_resizes_refuse_what_they_cannot_do() -> None:
    with pytest.raises(InputError, match="cannot resize to 0 x 4"):
        resize(picture(), (0, 4))
    with pytest.raises(InputError, match="cannot resize"):
        resize_map(np.zeros((2, 2), np.float32), (4, -1))
    with pytest.raises(InputError, match="uint8"):
        resize(picture().astype(np.float32), (4, 4))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="not"):
        resize_map(np.zeros((2, 2, 1), np.float32), (4, 4))


def test_masks_of_any_kind(tmp_path: Path) -> None:
    truth = np.zeros((20, 30), bool)
    truth[4:9, 11:23] = True
    palette = Image.frombytes("P", (30, 20), truth.astype(np.uint8).tobytes())
    palette.putpalette([0, 0, 0, 128, 0, 0])
    images = {
        "ones.png": Image.fromarray(truth.astype(np.uint8)),
        "full.png": Image.fromarray(truth.astype(np.uint8) * 255),
        "bits.png": Image.fromarray(truth),
        "sixteen.png": Image.fromarray(truth.astype(np.uint16)),
        "float.tif": Image.fromarray(truth.astype(np.float32) * 0.001),
        "palette.png": palette,
        "red.bmp": Image.fromarray(np.dstack([truth, truth * 0, truth * 0]).astype(np.uint8) * 255),
    }
    for name, image in images.items():
        image.save(tmp_path / name)
        mask = read_mask(tmp_path / name)
        assert mask.dtype == bool
        np.testing.assert_array_equal(mask, truth, err_msg=name)


def test_the_noise_of_jpeg_is_not_a_defect(tmp_path: Path) -> None:
    truth = np.zeros((32, 32), bool)
    truth[5:19, 9:27] = True
    Image.fromarray(truth.astype(np.uint8) * 255).save(tmp_path / "mask.jpg", quality=80)
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.jpg"), truth)


def test_masks_are_resized_by_the_nearest_pixel(tmp_path: Path) -> None:
    truth = np.random.default_rng(0).random((6, 9)) > 0.5
    Image.fromarray(truth).save(tmp_path / "mask.png")
    mask = read_mask(tmp_path / "mask.png", (18, 27))
    np.testing.assert_array_equal(mask, truth.repeat(3, axis=0).repeat(3, axis=1))
    np.testing.assert_array_equal(resize_mask(mask, (6, 9)), truth)
