"""Monotonic colour scale, and overlays on a fixed scale."""

from __future__ import annotations

import numpy as np
import pytest

from anomem.errors import InputError
from anomem.runtime.overlay import colourise, overlay


def lightness(colours: np.ndarray) -> np.ndarray:
    """CIE L* of sRGB colours."""
    rgb = colours / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    y = linear @ np.array([0.2126, 0.7152, 0.0722])
    return np.where(y > 0.008856, 116 * np.cbrt(y) - 16, 903.3 * y)


def test_lightness_rises_evenly_with_the_value() -> None:
    colours = colourise(np.linspace(0, 1, 256)[None])[0]
    assert len(np.unique(colours, axis=0)) == 256
    light = lightness(colours.astype(np.float64))
    assert light[0] < 5
    assert light[-1] > 95
    steps = np.diff(light[::16])
    assert (steps > 0).all()
    assert (np.diff(light) > -0.3).all()  # but for the rounding to whole levels
    assert steps.max() < 2 * np.median(steps)


def test_values_are_clipped_and_nan_is_grey() -> None:
    colours = colourise(np.array([[-1, 0, 1, 2, np.inf, -np.inf, np.nan]]))[0]
    np.testing.assert_array_equal(colours[0], colours[1])
    np.testing.assert_array_equal(colours[2], colours[3])
    np.testing.assert_array_equal(colours[4], colours[2])
    np.testing.assert_array_equal(colours[5], colours[1])
    np.testing.assert_array_equal(colours[6], [127, 127, 127])


def test_the_scale_is_fixed_and_not_the_maps_own() -> None:
    image = np.full((2, 2, 3), 90, np.uint8)
    alone = overlay(image, np.full((2, 2), 0.6), 0, 1)
    beside = overlay(image, np.array([[0.6, 0.6], [1.0, 5.0]]), 0, 1)
    np.testing.assert_array_equal(alone[0], beside[0])
    np.testing.assert_array_equal(beside[1, 0], beside[1, 1])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_shares_of_colour_and_image(dtype: type[np.floating]) -> None:
    image = np.full((1, 3, 3), 100, np.uint8)
    values = np.array([[10, 20, np.nan]], dtype)
    np.testing.assert_array_equal(overlay(image, values, 20, 30), image)
    full = overlay(image, values, 0, 20, opacity=1)
    np.testing.assert_array_equal(full[0, :2], colourise(np.array([[0.5, 1.0]]))[0])
    np.testing.assert_array_equal(full[0, 2], image[0, 2])
    np.testing.assert_array_equal(overlay(image, values, 0, 20, opacity=0), image)
    half = overlay(image, values, 0, 20, opacity=0.5).astype(float)
    np.testing.assert_allclose(half[0, 1], 50 + colourise(np.array([[1.0]]))[0, 0] / 2, atol=0.51)


def test_degenerate_and_extreme_scales() -> None:
    image = np.zeros((1, 4, 3), np.uint8)
    values = np.array([[-1, 0, 1, np.nan]])
    flat = overlay(image, values, 0, 0, opacity=1)
    np.testing.assert_array_equal(flat[0, [0, 1, 3]], 0)
    np.testing.assert_array_equal(flat[0, 2], colourise(np.ones((1, 1)))[0, 0])
    wide = overlay(image, values, -1.7e308, 1.7e308, opacity=1)
    np.testing.assert_array_equal(wide[0, 1], colourise(np.full((1, 1), 0.5))[0, 0])
    infinite = overlay(image, np.array([[np.inf, -np.inf, 0, 1]]), 0, 1, opacity=1)
    np.testing.assert_array_equal(infinite[0, 0], infinite[0, 3])
    np.testing.assert_array_equal(infinite[0, 1], image[0, 1])


def test_inputs_stay_as_they_are() -> None:
    image = np.full((4, 4, 3), 50, np.uint8)
    values = np.random.default_rng(0).random((4, 4))
    kept = values.copy()
    overlay(image, values, 0, 1)
    assert (image == 50).all()
    np.testing.assert_array_equal(values, kept)


def test_what_does_not_fit_is_an_error() -> None:
    image, values = np.zeros((4, 5, 3), np.uint8), np.zeros((4, 5))
    for arguments in [
        (image, values.T, 0, 1),
        (image[:, :, 0], values, 0, 1),
        (image, values, 1, 0),
        (image, values, 0, np.inf),
        (image, values, np.nan, 1),
        (image, values, 0, 1, 1.5),
    ]:
        with pytest.raises(InputError):
            overlay(*arguments)
    with pytest.raises(InputError, match="colourise"):
        colourise(np.zeros(3))
