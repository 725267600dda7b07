"""Pixel baselines: errors of principal components and distances to the nearest image, against direct computation."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.pixels import COMPONENTS, scored


def test_errors_and_distances_are_those_of_the_definitions() -> None:
    rng = np.random.default_rng(0)
    plane = rng.normal(size=(COMPONENTS[0], 60))
    known = (rng.normal(size=(50, COMPONENTS[0])) @ plane + 3).astype(np.float32)
    inside = (rng.normal(size=(4, COMPONENTS[0])) @ plane + 3).astype(np.float32)
    away = rng.normal(size=(4, 60)).astype(np.float32)
    away -= away @ np.linalg.pinv(plane) @ plane  # across all that normals vary in
    found = scored(known, np.concatenate([inside, inside + away]))
    errors = found[f"pixels, {COMPONENTS[0]} principal components"]
    assert errors[:4] == pytest.approx(0, abs=1e-3)
    assert errors[4:] == pytest.approx(np.square(away).sum(axis=1), rel=1e-3)
    asked = np.concatenate([inside, inside + away])
    nearest = np.square(asked[:, None] - known[None]).sum(axis=2).min(axis=1)
    assert found["pixels, nearest neighbour"] == pytest.approx(nearest, rel=1e-3)
