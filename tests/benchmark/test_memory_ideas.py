"""Detection that a threshold allows, against a search over all thresholds."""

from __future__ import annotations

import numpy as np
import pytest

from anomem.types import ANOMALOUS, NORMAL
from benchmarks.memory_ideas import attainable


@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.3])
def test_attainable_detection_is_that_of_the_best_threshold(alpha: float) -> None:
    rng = np.random.default_rng(0)
    scores = np.round(rng.normal(size=160), 1)  # with ties
    labels = np.where(np.arange(160) < 120, NORMAL, ANOMALOUS)
    scores[labels == ANOMALOUS] += 1.5
    allowed = [t for t in [*scores, -np.inf] if (scores[labels == NORMAL] > t).mean() <= alpha]
    assert attainable(scores, labels, alpha) == max((scores[labels == ANOMALOUS] > t).mean() for t in allowed)
