"""Masks: drawn in colours or in alpha, and in the frame of their images."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anomem.errors import ImageError
from anomem.runtime.images import read_mask
from tests.runtime.tiffs import tiff

DEFECT = np.zeros((40, 60), np.uint8)
DEFECT[10:20, 10:30] = 255
FULL = np.full_like(DEFECT, 255)


def saved(path: Path, values: np.ndarray, orientation: int = 1, **options: object) -> Path:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(values).save(path, exif=exif if orientation != 1 else None, **options)
    return path


@pytest.mark.parametrize(
    ("channels", "expected"),
    [
        ((FULL, FULL, FULL, DEFECT), DEFECT),
        ((FULL * 0, FULL * 0, FULL * 0, DEFECT), DEFECT),
        ((FULL, DEFECT), DEFECT),
        ((DEFECT, FULL), DEFECT),
        ((DEFECT, DEFECT, DEFECT, FULL), DEFECT),
        ((FULL * 0, FULL * 0, FULL * 0, FULL), DEFECT * 0),
        ((FULL, FULL, FULL, FULL), FULL),
        # A coloured drawing on black, of which a part is hidden.
        ((DEFECT, DEFECT * 0, DEFECT * 0, np.where(np.arange(60) < 20, 255, 0)[None] * np.ones((40, 1))), None),
    ],
)
def test_a_mask_drawn_in_alpha(channels: tuple, expected: np.ndarray | None, tmp_path: Path) -> None:
    mask = read_mask(saved(tmp_path / "m.png", np.dstack(channels).astype(np.uint8)))
    if expected is None:
        expected = np.where(np.arange(60) < 20, DEFECT, 0)
    np.testing.assert_array_equal(mask, expected > 0)


def test_a_palette_with_a_transparent_entry(tmp_path: Path) -> None:
    image = Image.fromarray((DEFECT > 0).astype(np.uint8), "L")
    image = Image.frombytes("P", image.size, image.tobytes())
    image.putpalette([255, 255, 255, 255, 255, 255])
    image.save(tmp_path / "m.png", transparency=0)
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png"), DEFECT > 0)


def test_a_mask_without_a_visible_pixel_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"m\.png: every pixel is transparent"):
        read_mask(saved(tmp_path / "m.png", np.dstack([DEFECT, DEFECT * 0])))


def test_where_zero_is_white_the_mask_is_the_white() -> None:
    np.testing.assert_array_equal(read_mask(tiff(65535 - DEFECT.astype(np.uint16) * 257, photometric=0)), DEFECT > 0)


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_a_mask_of_the_stored_pixels_turns_with_its_image(orientation: int, tmp_path: Path) -> None:
    photo = saved(tmp_path / "photo.png", np.dstack([DEFECT] * 3), orientation)
    upright = read_mask(photo)
    assert upright.shape == (60, 40)
    stored = saved(tmp_path / "stored.png", DEFECT)
    np.testing.assert_array_equal(read_mask(stored, (60, 40), image=photo), upright)
    # The same for one drawn upright, and for one that says itself how it lies.
    drawn = saved(tmp_path / "drawn.png", upright.astype(np.uint8) * 255)
    np.testing.assert_array_equal(read_mask(drawn, (60, 40), image=photo), upright)
    tagged = saved(tmp_path / "tagged.png", DEFECT, orientation)
    np.testing.assert_array_equal(read_mask(tagged, (60, 40), image=photo), upright)
    np.testing.assert_array_equal(read_mask(stored, (120, 80), image=photo.read_bytes())[::2, ::2], upright)


@pytest.mark.parametrize("orientation", [2, 3, 4])
def test_a_mask_that_fits_both_ways_round_is_refused(orientation: int, tmp_path: Path) -> None:
    photo = saved(tmp_path / "photo.png", np.dstack([DEFECT] * 3), orientation)
    mask = saved(tmp_path / "mask.png", DEFECT)
    with pytest.raises(ImageError, match=rf"mask\.png: its image is turned by EXIF orientation {orientation}, and"):
        read_mask(mask, (40, 60), image=photo)
    tagged = saved(tmp_path / "tagged.png", DEFECT, orientation)
    np.testing.assert_array_equal(read_mask(tagged, (40, 60), image=photo), read_mask(photo))


@pytest.mark.parametrize("height_width", [(60, 40), (40, 40), (80, 60)])
def test_a_mask_of_another_aspect_is_refused(height_width: tuple[int, int], tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"m\.png: 60 x 40 pixels are of another shape than its image's"):
        read_mask(saved(tmp_path / "m.png", DEFECT), height_width)


@pytest.mark.parametrize("height_width", [(40, 60), (20, 30), (133, 200), (7, 10), (400, 601)])
def test_a_mask_of_another_size_is_resized(height_width: tuple[int, int], tmp_path: Path) -> None:
    mask = read_mask(saved(tmp_path / "m.png", DEFECT), height_width)
    assert mask.shape == height_width
    assert mask.mean() == pytest.approx((DEFECT > 0).mean(), abs=0.05)


def test_bytes_are_named() -> None:
    stream = io.BytesIO()
    Image.fromarray(DEFECT).save(stream, "PNG")
    assert read_mask(stream.getvalue()).sum() == 200
    with pytest.raises(ImageError, match=r"^set\.zip/m\.png: damaged"):
        read_mask(stream.getvalue()[:60], name="set.zip/m.png")
