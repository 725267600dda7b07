"""Detection and localisation of defects on a real part, with and without labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from anomem.data.sources import read_dataset
from anomem.detectors.anomem.detector import AnoMem
from anomem.evaluation.evaluate import evaluate
from anomem.metrics import auroc
from anomem.types import ANOMALOUS

pytestmark = [pytest.mark.realdata, pytest.mark.ci_sample]


def test_toothbrush(anomem_data: Path) -> None:
    data = read_dataset(anomem_data / "mvtec_ad_toothbrush/toothbrush")
    detector = AnoMem().fit(list(data.train), calibration="split", alpha=0.1)
    found = evaluate(detector, data.test)
    assert found.image.auroc > 0.95
    assert found.pixel.auroc > 0.97
    assert found.n_left_out == 0

    defects = [sample for sample in data.test if sample.label == ANOMALOUS]
    rest = [sample for sample in data.test if sample not in defects[:10]]
    labels = np.asarray([sample.label for sample in rest])
    before = auroc(detector.anomaly_score(rest), labels)
    detector.label(defects[:10])
    assert auroc(detector.anomaly_score(rest), labels) >= before
    assert evaluate(detector, data.test).n_left_out == 10
