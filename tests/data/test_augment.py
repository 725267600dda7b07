"""Augmented views: seeded by the generator alone, per image, in range; each change checked alone."""

from __future__ import annotations

import colorsys
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from torch import Tensor

from anomem.data.augment import LITERAL, Augmentation, view, views
from anomem.errors import InputError, ParameterError

OFF: dict[str, Any] = {
    "crop_scale": (1.0, 1.0),
    "flip": 0.0,
    "brightness": 0.0,
    "contrast": 0.0,
    "saturation": 0.0,
    "blur": 0.0,
    "noise": 0.0,
    "jitter_probability": 1.0,
}


def only(**strengths: Any) -> Augmentation:
    return Augmentation(**(OFF | strengths))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(count: int = 6, height: int = 24, width: int = 32) -> Tensor:
    return torch.rand(count, 3, height, width, generator=seeded(99))


@pytest.mark.parametrize("shared", [True, False])
def test_seeded_by_the_generator_alone(shared: bool) -> None:
    images = batch()
    before = images.clone()
    torch.manual_seed(5)
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first = views(images, LITERAL, shared_geometry=shared, generator=seeded())
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002
    torch.manual_seed(6)
    again = views(images, LITERAL, shared_geometry=shared, generator=seeded())
    other = views(images, LITERAL, shared_geometry=shared, generator=seeded(1))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True))
    assert not torch.equal(*first)
    assert torch.equal(images, before)


@given(
    shape=st.tuples(st.integers(1, 4), st.integers(1, 40), st.integers(1, 40)),
    low=st.floats(0.01, 1),
    strengths=st.lists(st.floats(0, 1), min_size=8, max_size=8),
    hue=st.floats(0, 0.5),
    sigma=st.floats(0, 0.1),
    size=st.none() | st.integers(1, 50),
    shared=st.booleans(),
    seed=st.integers(0, 999),
)
def test_finite_in_range_and_shaped(
    shape: tuple[int, int, int],
    low: float,
    strengths: list[float],
    hue: float,
    sigma: float,
    size: int | None,
    shared: bool,
    seed: int,
) -> None:
    names = ("flip", "brightness", "contrast", "saturation", "grey", "blur", "noise", "jitter_probability")
    augmentation = Augmentation(
        crop_scale=(low, 1.0), hue=hue, blur_sigma=sigma, size=size, **dict(zip(names, strengths, strict=True))
    )
    count, height, width = shape
    images = batch(count, height, width)
    expected = (count, 3, height, width) if size is None else (count, 3, size, size)
    for made in views(images, augmentation, shared_geometry=shared, generator=seeded(seed)):
        assert made.shape == expected
        assert made.dtype == torch.float32
        assert made.isfinite().all()
        assert made.min() >= 0
        assert made.max() <= 1


def test_all_off_changes_nothing() -> None:
    images = batch()
    first, second = views(images, only(), shared_geometry=False, generator=seeded())
    assert torch.allclose(first, images, atol=1e-5)
    assert torch.allclose(second, images, atol=1e-5)


def test_channels_last_is_the_same() -> None:
    images = batch()
    strange = images.contiguous(memory_format=torch.channels_last)
    made = view(strange, LITERAL, generator=seeded())
    assert torch.allclose(made, view(images, LITERAL, generator=seeded()), atol=1e-6)


def test_empty_batch() -> None:
    assert view(batch(0), LITERAL, generator=seeded()).shape == (0, 3, 24, 32)


def coordinates(height: int, width: int, count: int) -> Tensor:
    """Images whose first two channels are their own row and column, from 0 to 1."""
    y = ((torch.arange(height) + 0.5) / height)[:, None].expand(height, width)
    x = ((torch.arange(width) + 0.5) / width)[None].expand(height, width)
    return torch.stack([y, x, torch.zeros(height, width)]).repeat(count, 1, 1, 1)


def test_shared_geometry_shows_the_same_place() -> None:
    images = coordinates(40, 48, 8)
    geometry = only(crop_scale=(0.2, 1.0), flip=0.5)
    first, second = views(images, geometry, shared_geometry=True, generator=seeded())
    assert torch.equal(first, second)
    first, second = views(images, geometry, shared_geometry=False, generator=seeded())
    assert (first - second).abs().mean() > 0.05


def test_shared_geometry_differs_photometrically() -> None:
    first, second = views(batch(), LITERAL, shared_geometry=True, generator=seeded())
    assert (first - second).abs().flatten(1).mean(1).min() > 1e-3


def test_crops_are_rectangles_of_the_asked_area() -> None:
    # The coordinates are linear, so the differences between neighbours measure the crop's sides.
    made = view(coordinates(64, 64, 400), only(crop_scale=(0.2, 0.8), flip=0.5), generator=seeded())
    inside = made[:, :, 8:-8, 8:-8]
    tall = (inside[:, 0].diff(dim=1) * 64).mean((1, 2))
    wide = (inside[:, 1].diff(dim=2) * 64).mean((1, 2))
    area, aspect = tall * wide.abs(), wide.abs() / tall
    assert 0.19 < area.min() < 0.23
    assert 0.75 < area.max() < 0.81
    assert aspect.min() > 0.74
    assert aspect.max() < 1.35
    assert 0.42 < (wide < 0).float().mean() < 0.58
    assert (tall > 0).all()
    centre = made[:, :2].mean((2, 3))
    assert centre.mean(0).sub(0.5).abs().max() < 0.02
    assert centre.std(0).min() > 0.05


@pytest.mark.parametrize(("probability", "flipped"), [(0.0, 0), (1.0, 6)])
def test_flip(probability: float, flipped: int) -> None:
    images = batch()
    made = view(images, only(flip=probability), generator=seeded())
    same = [torch.allclose(a, b.flip(-1), atol=1e-5) for a, b in zip(made, images, strict=True)]
    assert sum(same) == flipped


def test_brightness_is_one_factor_per_image() -> None:
    images = batch(200, 8, 8) * 0.5
    ratio = (view(images, only(brightness=0.4), generator=seeded()) / images.clamp(min=1e-3)).flatten(1)
    factor = ratio.median(1).values
    assert torch.allclose(ratio[:, 5], factor, atol=1e-2)
    assert 0.59 < factor.min() < 0.65
    assert 1.35 < factor.max() < 1.41


def test_contrast_keeps_the_mean_and_scales_the_spread() -> None:
    images = 0.4 + 0.2 * batch(200, 8, 8)
    made = view(images, only(contrast=0.4), generator=seeded())
    luma = torch.tensor([0.299, 0.587, 0.114])
    assert torch.allclose(made.mean((2, 3)) @ luma, images.mean((2, 3)) @ luma, atol=1e-5)
    ratio = made.std((1, 2, 3)) / images.std((1, 2, 3))
    assert 0.59 < ratio.min() < 0.66
    assert 1.34 < ratio.max() < 1.42


def test_saturation_and_grey_keep_the_luma() -> None:
    images = 0.3 + 0.3 * batch(50, 8, 8)
    weights = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
    luma = (images * weights).sum(1)
    for augmentation in (only(saturation=0.4), only(grey=1.0)):
        made = view(images, augmentation, generator=seeded())
        assert torch.allclose((made * weights).sum(1), luma, atol=1e-4)
    grey = view(images, only(grey=1.0, jitter_probability=0.0), generator=seeded())
    assert torch.allclose(grey, luma[:, None].expand_as(grey), atol=1e-5)
    some = view(images, only(grey=0.5), generator=seeded())
    lost = some.std(1).amax((1, 2)) < 1e-4
    assert 10 < lost.sum() < 40


def test_hue_turns_colours_and_spares_grey() -> None:
    greys = torch.full((20, 3, 4, 4), 0.4)
    assert torch.allclose(view(greys, only(hue=0.5), generator=seeded()), greys, atol=1e-5)
    reds = torch.tensor([0.6, 0.3, 0.3])[None, :, None, None].expand(100, 3, 4, 4)
    made = view(reds, only(hue=0.1), generator=seeded())[:, :, 0, 0]
    hues = torch.tensor([colorsys.rgb_to_hsv(*pixel)[0] for pixel in made.tolist()])
    turns = torch.where(hues > 0.5, hues - 1, hues)
    assert turns.abs().max() < 0.12
    assert turns.min() < -0.05
    assert turns.max() > 0.05


def test_jitter_probability() -> None:
    images = batch(300, 8, 8)
    made = view(images, only(brightness=0.4, jitter_probability=0.8), generator=seeded())
    changed = (made - images).abs().amax((1, 2, 3)) > 1e-4
    assert 0.72 < changed.float().mean() < 0.88


def test_blur_is_gaussian() -> None:
    # The answer to a step has the width of the kernel: compare with SciPy's at the best sigma.
    image = np.zeros((48, 48), np.float32)
    image[:, 24:] = 1
    images = torch.from_numpy(image).expand(40, 3, 48, 48)
    made = view(images, only(blur=1.0, blur_sigma=0.04), generator=seeded())[:, 0].numpy()
    candidates = np.arange(0.05, 2.2, 0.05)
    references = np.stack([gaussian_filter(image, sigma, mode="mirror") for sigma in candidates])
    errors = np.abs(made[:, None] - references).max((2, 3))
    assert errors.min(1).max() < 0.03
    best = candidates[errors.argmin(1)]
    assert best.max() <= 0.04 * 48 + 0.05
    assert best.std() > 0.3
    assert np.allclose(made.mean((1, 2)), image.mean(), atol=1e-3)


def test_noise_differs_per_image_and_pixel() -> None:
    images = torch.full((200, 3, 16, 16), 0.5)
    difference = view(images, only(noise=0.05), generator=seeded()) - images
    spread = difference.std((1, 2, 3))
    assert 0.045 < spread.max() < 0.056
    assert spread.min() < 0.005
    assert difference.mean().abs() < 1e-3


def test_shrinking_is_antialiased() -> None:
    stripes = (torch.arange(128) % 2).float().expand(2, 3, 128, 128)
    made = view(stripes, only(size=16), generator=seeded())
    assert made.shape == (2, 3, 16, 16)
    assert (made - 0.5).abs().max() < 0.05


def test_literal_recipe() -> None:
    assert Augmentation() == LITERAL
    assert (LITERAL.hue, LITERAL.grey) == (0, 0)
    strengths = (LITERAL.flip, LITERAL.brightness, LITERAL.contrast, LITERAL.saturation, LITERAL.blur, LITERAL.noise)
    assert min(strengths) > 0
    assert LITERAL.crop_scale[0] < 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"crop_scale": (0.0, 1.0)},
        {"crop_scale": (0.8, 0.2)},
        {"crop_scale": (0.2, 1.5)},
        {"flip": 1.5},
        {"brightness": -0.1},
        {"hue": 0.6},
        {"blur_sigma": 0.2},
        {"noise": float("nan")},
        {"size": 0},
    ],
)
def test_wrong_strengths_are_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(ParameterError, match=next(iter(wrong))):
        Augmentation(**wrong)


@pytest.mark.parametrize("images", [torch.zeros(3, 8, 8), torch.zeros(2, 1, 8, 8), torch.zeros(2, 3, 8, 8).byte()])
def test_wrong_images(images: Tensor) -> None:
    with pytest.raises(InputError, match=r"give \(B, 3, H, W\) float"):
        view(images, LITERAL, generator=seeded())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_seed_means_the_same_on_a_gpu() -> None:
    images = batch()
    made = view(images.cuda(), LITERAL, generator=seeded()).cpu()
    assert torch.allclose(made, view(images, LITERAL, generator=seeded()), atol=1e-4)
