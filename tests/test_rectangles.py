"""Rectangular inputs: no squeeze, places of maps, other aspects, and equal results of every engine."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from _pytest.mark import ParameterSet

import anomem
from anomem.data.synthetic import crops
from anomem.detector import Detector
from anomem.detectors import DETECTORS, get
from anomem.export.ir import METHODS as IR_METHODS
from anomem.runtime.session import Session
from anomem.types import UInt8Image

SHAPES = {"1:3": (32, 96), "3:1": (96, 32), "2:3": (64, 96)}
"""Height and width of the images."""

SQUARE = {"plad", "fyd"}
"""Methods whose publications demand square inputs."""


@functools.cache
def bricks(hw: tuple[int, int], count: int = 36, half: Any = "train") -> UInt8Image:
    whole = crops("brick", count, size=max(hw), half=half, rng=np.random.default_rng(1))
    return np.ascontiguousarray(whole[:, : hw[0], : hw[1]])


@functools.cache
def fitted(method: str, hw: tuple[int, int]) -> Detector:
    detector = get(method)(**get(method).test_params)
    images, y = bricks(hw), None
    if detector.supervision == "required":
        images, y = np.concatenate([images, planted(images[:6])]), [0] * len(images) + [1] * 6
    return detector.fit(images, y, alpha=0.2, device="cpu")


def planted(images: UInt8Image) -> UInt8Image:
    """Return images with a bright blot in the last quarter of the long side."""
    found = images.copy()
    height, width = images.shape[1:3]
    row, column = (3 * height // 4, width // 2) if height > width else (height // 2, 3 * width // 4)
    found[:, row - 5 : row + 5, column - 5 : column + 5] = (250, 20, 250)
    return found


@pytest.mark.parametrize("method", DETECTORS)
def test_every_method_learns_from_strips(method: str, tmp_path: Path) -> None:
    hw = SHAPES["1:3"]
    detector = fitted(method, hw)
    height, width = detector.preprocessing_.hw
    assert (width / height == 3) is (method not in SQUARE)
    detector.save(tmp_path / "model")
    images = np.concatenate([bricks(hw, 4, "test"), planted(bricks(hw, 4, "test"))])
    scores = detector.anomaly_score(images, device="cpu")
    loaded = anomem.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.anomaly_score(images, device="cpu"), scores)
    assert loaded.preprocessing_ == detector.preprocessing_
    if detector.localizes:
        assert [m.shape for m in detector.anomaly_map(images[:2], device="cpu")] == [hw, hw]


EXPORTED = [(method, shape) for shape in SHAPES for method in DETECTORS if method not in SQUARE]
MARKS = {("pmb", "2:3"): (), ("anomem", "1:3"): (pytest.mark.slow, pytest.mark.ci_sample)}


def _cases() -> list[ParameterSet]:
    return [pytest.param(*case, marks=MARKS.get(case, pytest.mark.slow)) for case in EXPORTED]


def _opened(detector: Detector, folder: Path) -> Iterator[Session]:
    """Export a detector, which compares scores and maps of files of three shapes, and open it with every engine."""
    detector.export(folder / "model.onnx")
    for engine in ("onnxruntime", "openvino"):
        yield Session.open(folder / "model.onnx", engine=engine)
    if detector.name in IR_METHODS:
        detector.export(folder / "model.xml")
        yield Session.open(folder / "model.xml")


@pytest.mark.parametrize(("method", "shape"), _cases())
def test_exported_strips_score_and_draw_as_the_model(method: str, shape: str, tmp_path: Path) -> None:
    hw = SHAPES[shape]
    detector = fitted(method, hw)
    images = np.concatenate([bricks(hw, 3, "test"), planted(bricks(hw, 3, "test"))])
    wanted = list(detector.score(images, maps=detector.localizes, device="cpu"))
    span = np.ptp([*(r.score for r in wanted), *detector.calibration_.scores])
    for session in _opened(detector, tmp_path):
        assert session.engine.hw == detector.preprocessing_.hw
        apart = sorted(abs(a.score - b.score) / span for a, b in zip(session.score(images), wanted, strict=True))
        assert apart[-1 if detector.scorer_.continuous else 0] < 1e-4
        if detector.localizes:
            for found, own in zip(session.anomaly_map(images), wanted, strict=True):
                assert own.map is not None
                np.testing.assert_allclose(found, own.map, atol=1e-3 * np.ptp(own.map))


@functools.cache
def noise(hw: tuple[int, int], count: int = 30) -> UInt8Image:
    grey = np.random.default_rng(count).normal(128, 8, (count, *hw, 1))
    return np.repeat(grey, 3, axis=3).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("method", ["anomem", "padim", "kmeans"])
def test_the_map_peaks_on_the_blot(method: str, shape: str) -> None:
    hw = (SHAPES[shape][0] * 2, SHAPES[shape][1] * 2)
    detector = get(method)(**get(method).test_params).fit(noise(hw), alpha=0.2, device="cpu")
    for found in detector.anomaly_map(planted(noise(hw, 4)), device="cpu"):
        peak = np.unravel_index(int(found.argmax()), hw)
        place = (144, hw[1] // 2) if hw[0] > hw[1] else (hw[0] // 2, 144)
        assert np.abs(np.subtract(peak, place)).max() <= 12
