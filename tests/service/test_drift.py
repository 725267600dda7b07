"""Drift alarm: false alarms stay within the bound, changes are found, replays agree."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anomem.service.drift import DriftRule, DriftTracker
from tests.service.conftest import Shop
from tests.service.served import Served, served


def alarms_of(n: int, images: int, rng: np.random.Generator, *, shift: float = 0.0, rounded: bool = False) -> list[int]:
    """Positions of alarms in a stream that is like its n calibration scores, but for a shift."""
    scores = rng.normal(size=n + images)
    scores[n:] += shift
    if rounded:
        scores = scores.round(0)
    tracker = DriftTracker(scores[:n].tolist(), DriftRule(chance=0.05, restart=200))
    return [i for i, score in enumerate(scores[n:]) if tracker.add(float(score), float(rng.random()))]


@pytest.mark.parametrize(("n", "rounded"), [(20, False), (50, True), (200, False)])
def test_false_alarms_stay_below_ville_however_few_normals_calibrate(n: int, rounded: bool) -> None:
    rng = np.random.default_rng(n)
    streams, images = 60, 1000
    rule = DriftRule(chance=0.05, restart=200)
    count = sum(len(alarms_of(n, images, rng, rounded=rounded)) for _ in range(streams))
    bound = rule.false_alarms_per_10000 * streams * images / 10_000
    assert count <= bound + 3 * bound**0.5


@pytest.mark.parametrize("shift", [2.0, -2.0])
def test_a_shift_is_found_within_a_hundred_images(shift: float) -> None:
    rng = np.random.default_rng(1)
    found = [alarms_of(100, 100, rng, shift=shift) for _ in range(20)]
    assert all(found)
    assert np.median([positions[0] for positions in found]) < 40


def test_the_default_bound_is_stated() -> None:
    assert DriftRule().false_alarms_per_10000 == pytest.approx(0.01, rel=0.01)


def drift_after(station: Served, n: int) -> dict[str, Any]:
    """Return what is known of drift once n images were looked at, which may be a moment after their answers."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        found: dict[str, Any] = station.get("/models/1/drift")
        if found["states"] and found["states"][0]["n"] >= n:
            return found
        time.sleep(0.02)
    pytest.fail(f"{n} images were not looked at")


def test_an_alarm_is_kept_and_a_restart_replays_the_sample(tmp_path: Path, shop: Shop) -> None:
    with served(tmp_path / "s", shop.model) as station:
        station.client.patch("/api/v1/models/1", json={"settings": {"sample_every": 1}})
        station.inspect(*shop.good * 10, stratum="camera 1")
        assert drift_after(station, 50)["states"][0]["alarms"] == 0
        found = station.inspect(*shop.defects * 8, stratum="camera 1")
        before = drift_after(station, 90)
        (state,) = before["states"]
        assert (state["stratum"], state["n"]) == ("camera 1", 90)
        assert state["alarms"] >= 1
        assert state["alarm_inspection_id"] in {answer["id"] for answer in found}
    with served(tmp_path / "s") as station:
        assert station.get("/models/1/drift") == before
        station.inspect(shop.good[0], stratum="camera 1")
        (state,) = drift_after(station, 91)["states"]
        assert (state["n"], state["alarms"]) == (91, before["states"][0]["alarms"])
