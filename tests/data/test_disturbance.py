"""Disturbances: seeded, masks move with their images, each operation checked alone."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import center_of_mass, rotate

from anomem.data import disturbance as disturb
from anomem.data.disturbance import COLOUR, SPATIAL, Disturbance, Drawn, disturbance_for, draw, equalise
from anomem.errors import InputError, ParameterError


def photograph(height: int = 40, width: int = 56, seed: int = 0) -> npt.NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(40, 200, (height // 8, width // 8, 3))
    return np.kron(coarse, np.ones((8, 8, 1))).astype(np.uint8)


def spot(height: int = 41, width: int = 41, row: int = 8, column: int = 20) -> npt.NDArray[np.bool_]:
    mask = np.zeros((height, width), bool)
    mask[row - 2 : row + 3, column - 2 : column + 3] = True
    return mask


def painted(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    return np.repeat(np.where(mask, 255, 0)[..., None], 3, axis=2).astype(np.uint8)


@pytest.mark.parametrize("disturbance", [SPATIAL, COLOUR])
def test_equal_seeds_draw_equal_disturbances(disturbance: Disturbance) -> None:
    first = [draw(disturbance, np.random.default_rng(seed)) for seed in range(20)]
    again = [draw(disturbance, np.random.default_rng(seed)) for seed in range(20)]
    assert first == again
    assert len(set(first)) == 20
    image = photograph()
    assert np.array_equal(first[3].image(image), again[3].image(image))
    assert not np.array_equal(first[3].image(image), first[4].image(image))


def test_what_is_drawn_is_in_range_and_reaches_it() -> None:
    rng = np.random.default_rng(0)
    drawn = [draw(SPATIAL, rng) for _ in range(2000)]
    zooms, angles = np.array([d.zoom for d in drawn]), np.array([d.angle for d in drawn])
    assert 0.8 <= zooms.min() < 0.82
    assert 1.22 < zooms.max() <= 1.25
    assert np.median(zooms) == pytest.approx(1, abs=0.02)
    assert -45 <= angles.min() < -44
    assert 44 < angles.max() <= 45
    assert np.mean([d.mirrored for d in drawn]) == pytest.approx(0.5, abs=0.05)
    assert np.mean([d.upside_down for d in drawn]) == pytest.approx(0.5, abs=0.05)
    assert all((d.shift, d.gain, d.clip_limit) == (0, 1, 0) for d in drawn)
    drawn = [draw(COLOUR, rng) for _ in range(2000)]
    assert all((d.zoom, d.angle, d.mirrored, d.upside_down) == (1, 0, False, False) for d in drawn)
    assert max(abs(d.shift) for d in drawn) == pytest.approx(0.2, abs=0.001)
    assert max(abs(d.gain - 1) for d in drawn) == pytest.approx(0.2, abs=0.001)
    assert np.mean([d.clip_limit > 0 for d in drawn]) == pytest.approx(0.5, abs=0.05)
    assert max(d.clip_limit for d in drawn) == pytest.approx(4, abs=0.01)


def test_a_stronger_disturbance_draws_the_same_otherwise() -> None:
    weak = draw(Disturbance(rotation=10.0, mirror=0.5), np.random.default_rng(3))
    strong = draw(Disturbance(rotation=20.0, mirror=0.5, brightness=0.1), np.random.default_rng(3))
    assert strong.angle == pytest.approx(2 * weak.angle)
    assert strong.mirrored == weak.mirrored


def test_nothing_drawn_changes_nothing() -> None:
    image, mask = photograph(), spot()
    found = Drawn().image(image)
    assert np.array_equal(found, image)
    assert found is not image
    assert np.array_equal(Drawn().mask(mask), mask)


def test_flips_are_flips() -> None:
    image = photograph()
    assert np.array_equal(Drawn(mirrored=True).image(image), image[:, ::-1])
    assert np.array_equal(Drawn(upside_down=True).image(image), image[::-1])


def test_positive_angles_turn_counter_clockwise() -> None:
    # A spot above the centre goes to the left of it.
    turned = Drawn(angle=90.0).mask(spot(row=8, column=20))
    assert center_of_mass(turned) == pytest.approx((20, 8), abs=0.1)
    image = painted(spot(row=12, column=14))
    expected = rotate(image[..., 0].astype(np.float32), 30.0, reshape=False, order=1, mode="nearest")
    assert np.abs(Drawn(angle=30.0).image(image)[..., 0] - expected).max() <= 1


def test_zooming_moves_away_from_the_centre() -> None:
    zoomed = Drawn(zoom=1.25).mask(spot(row=12, column=28))
    assert center_of_mass(zoomed) == pytest.approx((20 - 8 * 1.25, 20 + 8 * 1.25), abs=0.5)
    assert 36 <= zoomed.sum() <= 49  # 5 pixels become 6.25


def test_beyond_the_border_the_border_goes_on() -> None:
    image = np.zeros((21, 21, 3), np.uint8)
    image[0] = 200
    assert (Drawn(zoom=0.5).image(image)[:5] == 200).all()


@given(seed=st.integers(0, 500))
def test_masks_move_with_their_images(seed: int) -> None:
    drawn = draw(SPATIAL, np.random.default_rng(seed))
    mask = spot(row=14, column=24)
    moved, seen = drawn.mask(mask), drawn.image(painted(mask))[..., 0] > 127
    assert (moved & seen).sum() >= 0.75 * (moved | seen).sum()


def test_colours_leave_masks_alone() -> None:
    mask = spot()
    assert np.array_equal(Drawn(shift=0.2, gain=0.8, clip_limit=3.0).mask(mask), mask)


def test_brightness_and_contrast() -> None:
    image = photograph()
    assert Drawn(shift=0.1).image(image).mean() == pytest.approx(image.mean() + 25.5, abs=0.6)
    flatter = Drawn(gain=0.5).image(image)
    assert flatter.mean() == pytest.approx(image.mean(), abs=0.6)
    assert flatter.std() == pytest.approx(image.std() / 2, rel=0.02)
    assert Drawn(shift=1.0).image(image).min() == 255


def _slow_equalised(grey: npt.NDArray[np.uint8], clip_limit: float, tiles: int) -> npt.NDArray[np.float64]:
    """CLAHE, tile by tile, level by level, pixel by pixel."""
    height, width = grey.shape
    tall, wide = height // tiles, width // tiles
    mappings = {}
    for r in range(tiles):
        for c in range(tiles):
            tile = grey[r * tall : (r + 1) * tall, c * wide : (c + 1) * wide].ravel().tolist()
            counts = [float(tile.count(level)) for level in range(256)]
            most = clip_limit * len(tile) / 256
            excess = sum(max(count - most, 0) for count in counts)
            clipped = [min(count, most) + excess / 256 for count in counts]
            mappings[r, c] = [255 * sum(clipped[: level + 1]) / len(tile) for level in range(256)]
    found = np.zeros(grey.shape)
    for y in range(height):
        for x in range(width):
            row = min(max((y + 0.5) / tall - 0.5, 0), tiles - 1)
            column = min(max((x + 0.5) / wide - 0.5, 0), tiles - 1)
            for r in range(tiles):
                for c in range(tiles):
                    share = max(0, 1 - abs(row - r)) * max(0, 1 - abs(column - c))
                    found[y, x] += share * mappings[r, c][grey[y, x]]
    return found


def test_equalisation_equals_the_loop() -> None:
    grey = np.random.default_rng(1).integers(90, 150, (12, 16)).astype(np.uint8)
    image = np.repeat(grey[..., None], 3, axis=2)
    found = equalise(image, 3.0, tiles=4).astype(float)
    assert np.abs(found - _slow_equalised(grey, 3.0, 4)[..., None]).max() <= 0.51


def test_equalisation_raises_contrast_up_to_its_limit() -> None:
    grey = (100 + np.random.default_rng(0).integers(0, 20, (64, 64))).astype(np.uint8)
    image = np.repeat(grey[..., None], 3, axis=2)
    spreads = [equalise(image, limit).astype(float).std() for limit in (1.0, 2.0, 4.0)]
    assert image.std() * 0.5 < spreads[0] < spreads[1] < spreads[2]
    coloured = 80 + photograph(64, 64) // 4
    shades = equalise(coloured, 2.0).astype(int)
    chroma = [(picture[..., 0].astype(int) - picture[..., 2]).ravel() for picture in (shades, coloured)]
    assert np.abs(chroma[0] - chroma[1]).max() <= 1


def test_the_papers_exclusions() -> None:
    assert disturbance_for("spatial", "bottle") == SPATIAL
    assert disturbance_for("colour", "bottle") == COLOUR
    transistor = disturbance_for("spatial", "transistor")
    assert (transistor.rotation, transistor.mirror, transistor.upside_down) == (0, 0, 0)
    assert transistor.zoom == SPATIAL.zoom
    for category in ("tile", "wood", "capsule"):
        assert disturbance_for("spatial", category) == SPATIAL
        with pytest.raises(InputError, match="another colour is a defect"):
            disturbance_for("colour", category)
    with pytest.raises(InputError, match="choose spatial or colour"):
        disturbance_for("shape", "bottle")


@pytest.mark.parametrize(
    "wrong",
    [{"zoom": (0.0, 1.0)}, {"zoom": (1.2, 0.8)}, {"rotation": 181.0}, {"mirror": 1.5}, {"clip_limit": 0.5}],
)
def test_strengths_out_of_range_are_named(wrong: dict[str, object]) -> None:
    with pytest.raises(ParameterError, match=next(iter(wrong))):
        Disturbance(**wrong)  # type: ignore[arg-type]


def test_other_arrays_are_refused() -> None:
    with pytest.raises(InputError, match="uint8"):
        Drawn().image(np.zeros((8, 8, 3)))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="bool"):
        Drawn().mask(np.zeros((8, 8), np.uint8))  # type: ignore[arg-type]


def test_public_names() -> None:
    assert all(hasattr(disturb, name) for name in disturb.__all__)
