"""Linear evaluation: different photographs are separable, random classes are not."""

from __future__ import annotations

import numpy as np
import pytest

from anomem.benchmark.protocols.representation import linear_evaluation
from anomem.data.synthetic import TEXTURES, crops
from anomem.detectors.baselines.knn import KNN
from anomem.errors import InputError


def test_textures_are_told_apart_and_shuffled_classes_are_not() -> None:
    rng = np.random.default_rng(0)
    train, test = (
        np.concatenate([crops(name, 30, size=64, half=half, rng=rng) for name in TEXTURES])
        for half in ("train", "test")
    )
    classes = [name for name in TEXTURES for _ in range(30)]
    detector = KNN(size=64, max_items=14).fit(train[:30], alpha=0.2, calibration="split")
    assert linear_evaluation(detector, train, classes, test, classes) > 0.9
    assert linear_evaluation(detector, train, rng.permutation(classes).tolist(), test, classes) < 0.6

    with pytest.raises(InputError, match="fewer than two classes"):
        linear_evaluation(detector, train, [0] * 90, test, classes)
    with pytest.raises(InputError, match="89 classes for 90 images"):
        linear_evaluation(detector, train, classes, test, classes[1:])
