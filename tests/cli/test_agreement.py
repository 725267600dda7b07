"""Agreement of Python, commands, ONNX Runtime and OpenVINO: same scores and decisions for every method."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from anomem.detector import Detector
from anomem.detectors import DETECTORS, get
from anomem.export.ir import METHODS
from anomem.export.parity import STEPS
from anomem.runtime.session import Session
from tests.cli.process import Run
from tests.exports import bricks, pictures

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")

SHARE = 1e-4
"""Of the range of scores: what rounding may change."""
SAMPLE = ("knn",)
"""What every run of the tests looks at; the others take a minute."""


def fit(method: str) -> Detector:
    cls = get(method)
    images = sorted((bricks() / "train").rglob("*.png"))
    labels = [0] * len(images)
    if cls.supervision == "required":
        defects = [path for path in pictures() if path.parent.name != "good"][:3]
        images, labels = [*images, *defects], [*labels, 1, 1, 1]
    return cls(**cls.test_params).fit(images, labels, alpha=0.2, calibration="split", device="cpu")


@pytest.mark.slow
@pytest.mark.parametrize("method", [pytest.param(m, marks=[pytest.mark.ci_sample] * (m in SAMPLE)) for m in DETECTORS])
def test_every_way_to_score_gives_the_same(method: str, here: Run) -> None:
    detector = fit(method)
    detector.save("model.safetensors")
    detector.export("model.onnx")
    places = ["model.safetensors", "model.onnx"]
    if method in METHODS:
        detector.export("model.xml")
        places.append("model.xml")

    calibration = detector.calibration_
    wanted = detector.anomaly_score(pictures())
    span = float(np.ptp(wanted))
    found = {}
    for place in places:
        code, out, err = here("score", place, bricks() / "test", "--json")
        assert code == 0, err
        rows = json.loads(out)["results"]
        assert [row["path"] for row in rows] == [str(path) for path in pictures()]
        found[f"anomem score {place}"] = [row["score"] for row in rows], [row["anomalous"] for row in rows]
    for place, engine in (("model.onnx", "onnxruntime"), ("model.onnx", "openvino"), ("model.xml", "openvino")):
        if Path(place).exists():
            rows = list(Session.open(place, engine=engine).score(pictures()))
            found[f"{engine} {place}"] = [row.score for row in rows], [row.anomalous for row in rows]

    decided = detector.predict(pictures()) == 1
    clear = np.abs(wanted - calibration.threshold) > SHARE * span
    assert span > 0
    assert clear.any()
    for name, (scores, anomalous) in found.items():
        apart = np.sort(np.abs(np.asarray(scores) - wanted)) / span
        steps = 0 if detector.scorer_.continuous else int(STEPS["scores"] * len(apart))
        assert apart[len(apart) - 1 - steps] <= SHARE, name
        if not steps:
            assert np.array_equal(np.asarray(anomalous)[clear], decided[clear]), name
