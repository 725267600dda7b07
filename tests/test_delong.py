"""DeLong's error of a paired difference: against slow loops and resampled images."""

from __future__ import annotations

import math

import numpy as np
import pytest

from anomem.metrics import auroc
from anomem.metrics.delong import auroc_components, paired_error


def test_components_are_those_of_a_loop_and_average_to_the_auroc() -> None:
    rng = np.random.default_rng(6)
    scores, marks = rng.integers(0, 12, 40).astype(float), rng.random(40) < 0.4
    of_anomalous, of_normal = auroc_components(scores, marks)

    def beats(a: float, b: float) -> float:
        return 1.0 if a > b else 0.5 if a == b else 0.0

    high, low = scores[marks], scores[~marks]
    assert of_anomalous == pytest.approx([np.mean([beats(a, b) for b in low]) for a in high], abs=1e-6)
    assert of_normal == pytest.approx([np.mean([beats(a, b) for a in high]) for b in low], abs=1e-6)
    area = auroc(scores, marks)
    assert (of_anomalous.mean(), of_normal.mean()) == pytest.approx((area, area), abs=1e-6)


def test_the_paired_error_is_that_of_a_slow_loop() -> None:
    """By the covariance matrices of the paper: var = S10 / m + S01 / n of the contrast (1, -1)."""
    rng = np.random.default_rng(8)
    marks = rng.random(30) < 0.4
    methods = [rng.integers(0, 9, 30).astype(float) + marks for _ in range(2)]
    placed = []
    for scores in methods:
        high, low = scores[marks], scores[~marks]
        kernel = [[1.0 if x > y else 0.5 if x == y else 0.0 for y in low] for x in high]
        placed.append(
            ([sum(row) / len(low) for row in kernel], [sum(col) / len(high) for col in zip(*kernel, strict=True)])
        )
    variance = 0.0
    for side in (0, 1):
        covariance = np.cov([placed[0][side], placed[1][side]])
        variance += float([1, -1] @ covariance @ [1, -1]) / len(placed[0][side])
    found = paired_error(*(auroc_components(scores, marks) for scores in methods))
    assert found == pytest.approx(math.sqrt(variance), rel=1e-5)


def test_the_paired_error_is_that_of_resampled_images() -> None:
    rng = np.random.default_rng(7)
    n = 150
    marks = np.repeat([False, True], n)
    shared = rng.normal(size=2 * n) + 1.2 * marks
    a, b = shared + 0.3 * rng.normal(size=2 * n), shared + 0.6 * rng.normal(size=2 * n)
    found = paired_error(auroc_components(a, marks), auroc_components(b, marks))
    drawn = []
    for _ in range(600):
        chosen = np.r_[rng.integers(n, size=n), n + rng.integers(n, size=n)]
        drawn.append(auroc(a[chosen], marks[chosen]) - auroc(b[chosen], marks[chosen]))
    assert found == pytest.approx(np.std(drawn), rel=0.1)
    unpaired = math.hypot(
        *(
            np.std(
                [
                    auroc(s[c], marks[c])
                    for c in [np.r_[rng.integers(n, size=n), n + rng.integers(n, size=n)] for _ in range(200)]
                ]
            )
            for s in (a, b)
        )
    )
    assert found < 0.6 * unpaired


def test_equal_scores_differ_by_nothing_and_single_images_tell_nothing() -> None:
    marks = [False, False, True, True]
    parts = auroc_components([1, 3, 2, 4], marks)
    assert paired_error(parts, auroc_components([10, 30, 20, 40], marks)) == 0.0
    alone = auroc_components([1, 2], [False, True])
    assert paired_error(alone, alone) is None
