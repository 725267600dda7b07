"""Protocols shift and batches: arithmetic on scores, tasks, captures."""

from __future__ import annotations

import numpy as np
import pytest

from anomem.benchmark.protocols.batches import Batches, false_discoveries
from anomem.benchmark.protocols.registry import new_protocol
from anomem.benchmark.protocols.shift import captures, recalibrations
from anomem.data.disturbance import SHIFTS, Drawn, draw
from anomem.data.labelled_images import Images
from anomem.data.sources import PathSource
from anomem.errors import InputError
from anomem.runtime.calibration import calibrate
from anomem.types import ANOMALOUS, NORMAL
from tests.benchmark.sets import defects

FACTS = {"fresh": (10, 20), "alphas": (0.01, 0.1), "redraws": 30}


def test_rates_before_and_after_a_shift() -> None:
    rng = np.random.default_rng(0)
    calibration = calibrate(rng.normal(size=199), 0.05)
    alike, shifted = (
        {NORMAL: (moved + rng.normal(size=300)).astype(np.float32), ANOMALOUS: np.full(5, 9, np.float32)}
        for moved in (0.0, 2.0)
    )
    found = recalibrations(calibration, alike, shifted, FACTS, 0)
    assert (found["n_alike"], found["n_shifted"]) == (300, 300)
    assert found["found"]["shifted"] == 1.0
    assert found["found"]["alike"] <= 0.2
    assert [entry["alpha"] for entry in found["before"]] == [0.01, 0.1]
    assert found["before"][1]["rate"] > 0.5
    assert found["before"][0]["detection"] == 1.0
    for m in ("10", "20"):
        low, high = found["after"][m]
        assert (low["by"], high["by"]) == ("blend", "fresh")
        assert high["rate"] <= 0.1 + 3 * high["error"]
        assert low["rate"] <= 1 / (int(m) + 1) + 3 * low["error"]


def test_an_alpha_that_no_blend_carries_is_left_out() -> None:
    scores = {NORMAL: np.arange(40, dtype=np.float32), ANOMALOUS: np.zeros(0, np.float32)}
    found = recalibrations(calibrate(range(30), 0.05), scores, scores, FACTS, 0)
    assert [entry["alpha"] for entry in found["before"]] == [0.1]
    assert [entry["alpha"] for entry in found["after"]["10"]] == [0.1]
    assert np.isnan(found["before"][0]["detection"])


def test_false_discoveries_are_counted() -> None:
    calibration = calibrate(np.arange(99), 0.05)
    normal, anomalous = np.full(10, 5, np.float32), np.full(10, 200, np.float32)
    found = false_discoveries(calibration, normal, anomalous, 0.2, 20, 0.3, 10, np.random.default_rng(0))
    assert (found["false"], found["detection"], found["n_anomalous"], found["least_rejected"]) == (0.0, 1.0, 6, 1)
    assert found["bound"] == pytest.approx(0.2 * 14 / 20)
    found = false_discoveries(calibration, anomalous, anomalous, 0.2, 20, 0.3, 10, np.random.default_rng(0))
    assert found["false"] == pytest.approx(14 / 20)


def test_batches_are_one_task_per_set() -> None:
    (task,) = Batches(fdrs=(0.3,)).tasks(defects({"crack": 3}), lambda name: defects({}))
    assert (task.facts["fdrs"], Batches().fdrs) == ((0.3,), (0.1, 0.2))  # type: ignore[union-attr]


def test_captures_are_read_from_paths() -> None:
    paths = ["a/0016_000_02_t03.jpg", "a/0004_000_03_t05.jpg"]
    images = Images("x", PathSource(paths), np.zeros(2, np.intp), ("", ""))
    assert captures("aitex_tiles", images) == ["02", "03"]
    with pytest.raises(InputError, match="a path names no capture"):
        captures("magnetic_tile", images)


def test_sets_without_captures_are_disturbed_only() -> None:
    tasks = list(new_protocol("shift").tasks(defects({"crack": 3}), lambda name: defects({})))
    assert [task if isinstance(task, str) else task.facts["shift"] for task in tasks][1:] == list(SHIFTS)
    assert "its captures are not known" in str(tasks[0])


def test_a_fixed_disturbance_is_the_same_for_every_image() -> None:
    image = np.zeros((40, 20, 3), np.uint8)
    image[10, 5] = 200
    moved = Drawn(moved=(0.1, 0.2)).image(image)
    assert np.argwhere(moved[..., 0]).tolist() == [[14, 9]]
    blurred = Drawn(blur=1 / 40).image(image)
    assert blurred[10, 5, 0] == pytest.approx(200 / (2 * np.pi), rel=0.15)
    assert blurred.sum() == pytest.approx(image.sum(), rel=0.2)
    rng = np.random.default_rng(0)
    assert draw(SHIFTS["moved"], rng) == draw(SHIFTS["moved"], rng)
    assert (SHIFTS["brighter"].fixed.image(image) - image == 13).all()  # type: ignore[union-attr]
