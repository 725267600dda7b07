"""The page promises what the calibration bears, and no more."""

from __future__ import annotations

import numpy as np
import pytest

from anomem.data.synthetic import crops
from anomem.detectors import get
from anomem.evaluation.evaluate import evaluate
from anomem.report.evaluation.page import evaluation_page


@pytest.mark.parametrize(
    ("calibration", "promised"),
    [("split", "not used in training"), ("cross", "No rate is proven"), ("cross-exact", "scored by a model without")],
)
def test_the_page_promises_what_is_proven(calibration: str, promised: str) -> None:
    images = list(crops("brick", 46, size=32, half="train", rng=np.random.default_rng(0)))
    model = get("knn")(size=32).fit(images[:40], alpha=0.3, device="cpu", calibration=calibration)
    dark = [np.zeros_like(image) for image in images[40:43]]
    page = evaluation_page(evaluate(model, [*images[40:], *dark], [0] * 6 + [1] * 3), model)
    assert promised in page
    assert ("Averaged over calibration sets" in page) == (calibration != "cross")
    assert ("not used in training" in page) == (calibration == "split")
