"""Large photographs with small defects: no tile artefacts, and no influence of pixels outside the region."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from anomem.data.synthetic import plant, texture
from anomem.detectors.anomem.detector import AnoMem
from anomem.runtime.images import resize
from anomem.types import BoolArray, UInt8Image

SCALE = 4
"""Enlargement of the photograph: a smooth surface on which ten pixels are a small thing."""


def _surface(height: int, width: int, rng: np.random.Generator) -> UInt8Image:
    """A photograph of gravel, mirrored at its borders to any size, cut somewhere and enlarged, with sensor noise."""
    photograph = texture("gravel")
    rows, columns = (side // SCALE + 1 for side in (height, width))
    tiled = np.pad(photograph, ((0, rows), (0, columns), (0, 0)), mode="symmetric")
    top, left = rng.integers(photograph.shape[0]), rng.integers(photograph.shape[1])
    part = np.ascontiguousarray(tiled[top : top + rows, left : left + columns][:rows, :columns])
    part = np.pad(part, ((0, rows - part.shape[0]), (0, columns - part.shape[1]), (0, 0)), mode="symmetric")
    large = resize(part, (rows * SCALE, columns * SCALE))[:height, :width].astype(np.float32)
    return np.clip(large + rng.normal(0, 2, large.shape), 0, 255).astype(np.uint8)


def _with_spot(image: UInt8Image, top: int, left: int, side: int = 10) -> UInt8Image:
    """A round spot of ten pixels, dark on bright ground and bright on dark."""
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    pit = (np.hypot(y, x) <= side / 2)[..., None]
    spotted = image.copy()
    part = spotted[top : top + side, left : left + side]
    part[...] = np.where(pit, 20 if part.mean() > 127 else 235, part)
    return spotted


def _fitted(images: list[UInt8Image], **params: Any) -> AnoMem:
    tiny = {"size": 64, "memory_size": (64,), "stages": (1, 2), "neighbourhood": (3,), "scale_weights": (1.0,)}
    return AnoMem(**{**tiny, **params}).fit(images, calibration="split", alpha=0.2)


@pytest.fixture(scope="module")
def tiled() -> AnoMem:
    rng = np.random.default_rng(0)
    return _fitted([_surface(320, 448, rng) for _ in range(30)], tile=128, position_mean=False)


def test_a_defect_of_ten_pixels_is_found_and_located(tiled: AnoMem) -> None:
    rng = np.random.default_rng(1)
    clean = _surface(1500, 2000, rng)
    top, left = 777, 1234
    spotted = _with_spot(clean, top, left)
    results = list(tiled.score([clean, spotted], maps=True, batch_size=32))
    assert results[1].score > results[0].score
    assert results[1].map.shape == (1500, 2000)
    y, x = np.unravel_index(results[1].map.argmax(), results[1].map.shape)
    assert np.hypot(y - top - 5, x - left - 5) < 15
    assert results[1].p_value <= results[0].p_value


def test_seams_leave_no_trace(tiled: AnoMem) -> None:
    """On images that look alike everywhere, the mean map is no other at the tiles' borders than within them."""
    rng = np.random.default_rng(2)
    maps = np.asarray(tiled.anomaly_map([_surface(320, 448, rng) for _ in range(12)], batch_size=32))
    for axis, inner_edges in ((1, (96, 128, 192, 224)), (2, (96, 128, 192, 224, 288, 320))):
        steps = np.abs(np.diff(maps, axis=axis)).mean(axis=(0, 3 - axis))
        at_edges = max(steps[edge - 1] for edge in inner_edges)
        assert at_edges <= 1.5 * np.quantile(steps, 0.95), f"axis {axis}"


def test_a_defect_on_a_seam_is_no_other_than_one_within(tiled: AnoMem) -> None:
    clean = _surface(320, 448, np.random.default_rng(3))
    (before,) = np.asarray(tiled.anomaly_map([clean]))
    peaks = []
    for left in (48, 107, 144):  # within a tile, where two tiles overlap, within the next
        change = np.asarray(tiled.anomaly_map([_with_spot(clean, 50, left)]))[0] - before
        y, x = np.unravel_index(change.argmax(), change.shape)
        assert np.hypot(y - 55, x - left - 5) < 15
        peaks.append(float(change.max()))
    assert min(peaks) > 0.4 * max(peaks)


def _outside() -> BoolArray:
    roi = np.zeros((320, 448), bool)
    roi[64:256, 32:300] = True
    return roi


def test_nothing_outside_the_region_has_a_say(tmp_path: Any) -> None:
    rng, roi = np.random.default_rng(4), _outside()
    Image.fromarray(roi.astype(np.uint8) * 255).save(tmp_path / "roi.png")
    images = [_surface(320, 448, rng) for _ in range(30)]
    noisy = [np.where(roi[..., None], i, rng.integers(0, 256, i.shape)).astype(np.uint8) for i in images]
    options = {"tile": 128, "position_mean": False}
    from_file, from_array = (_fitted(images, roi=r, **options) for r in (tmp_path / "roi.png", roi))
    inside = _with_spot(images[0], 100, 100)
    outside = [np.where(roi[..., None], inside, 255 - inside).astype(np.uint8), plant(inside, "stain", rng)[0]]
    outside[1] = np.where(roi[..., None], inside, outside[1]).astype(np.uint8)
    wanted = from_file.anomaly_score([inside])
    assert np.array_equal(from_array.anomaly_score([inside]), wanted)
    for other in outside:
        assert np.array_equal(from_file.anomaly_score([other]), wanted)
    maps = [np.asarray(from_file.anomaly_map([i]))[0] for i in (inside, outside[0])]
    assert np.array_equal(*maps)
    assert maps[0][~roi].max() <= maps[0][roi].min()
    assert np.array_equal(from_file.anomaly_score(noisy[:3]), from_file.anomaly_score(images[:3]))


def test_an_empty_region_is_refused(tmp_path: Any) -> None:
    images = [_surface(64, 64, np.random.default_rng(i)) for i in range(30)]
    for roi in (np.zeros((64, 64), bool), tmp_path / "black.png"):
        if not isinstance(roi, np.ndarray):
            Image.fromarray(np.zeros((64, 64), np.uint8)).save(roi)
        with pytest.raises(ValueError, match="region of interest is empty"):
            _fitted(images, roi=roi)
