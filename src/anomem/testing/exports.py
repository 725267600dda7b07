"""Checks of exported files."""

from __future__ import annotations

import importlib.util
import tempfile
from pathlib import Path

import numpy as np

from anomem.errors import ExportError
from anomem.export.parity import MAPS, STEPS
from anomem.runtime.session import Session
from anomem.testing.example import TOLERANCE, Example, require, require_close
from anomem.types import FloatArray


def exported_scores_are_scores(example: Example) -> None:
    """Check that an exported file gives its model's scores, maps, p-values and verdicts, also after a change of alpha.

    Without the packages of the extra ``export`` nothing is checked.
    """
    if not all(importlib.util.find_spec(package) for package in ("onnx", "onnxscript", "onnxruntime")):
        return
    detector = example.fitted
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        try:
            detector.export(file)
        except ExportError as error:
            raise AssertionError(f"the scorer exports, and scores the same: {error}") from error
        session = Session.open(file)
        require(session.calibration_ == detector.calibration_, "the calibration is exported")
        require(session.localizes == example.cls.localizes, "maps are exported where the method localises")
        about = [(m.name, m.counts_, m.map_scale_, m.digests_) for m in (session, detector)]
        require(about[0] == about[1], "name, counts, colour scale and content hashes are exported")
        _require_same_scores(example, session)
        session.set_alpha(0.5).save()
        require(Session.open(file).calibration_.alpha == 0.5, "alpha changes after the export")
        require(example.fitted.calibration_.alpha == 0.2, "the source model is unchanged")


def _require_same_scores(example: Example, session: Session) -> None:
    detector, calibration = example.fitted, example.fitted.calibration_
    found, wanted = session.anomaly_score(example.mixed), example.scores
    smooth = _rounded_alike(example, found, wanted)
    require_close(found[smooth], wanted[smooth], wanted, "scores are those of the model")
    near = TOLERANCE * float(np.ptp(wanted))
    between = [calibration.scores[None] >= wanted[:, None] + sign * near for sign in (-1, 1)]
    clear = smooth & (between[0] == between[1]).all(axis=1)  # No calibration score lies within rounding.
    for name in ("p_value", "predict"):
        answers = [getattr(model, name)(example.mixed, device="cpu") for model in (session, detector)]
        require(np.array_equal(answers[0][clear], answers[1][clear]), f"{name} agrees with the model")
    if example.cls.localizes:
        maps = [np.asarray(model.anomaly_map(example.mixed[:8], device="cpu")) for model in (session, detector)]
        require(maps[0].shape == maps[1].shape and maps[0].dtype == np.float32, "maps have the image's size")
        apart = np.abs(maps[0] - maps[1]) / max(float(np.ptp(maps[1])), 1e-12)
        share = float((apart > MAPS["float32"]).mean())
        require(share <= (0.0 if detector.scorer_.continuous else STEPS["maps"]), "maps are those of the model")


def _rounded_alike(
    example: Example, found: FloatArray, wanted: FloatArray
) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Return which images to compare: all, or, where scores move in steps, all but the few that rounding moved."""
    apart = np.abs(found - wanted)
    kept = np.ones(len(apart), bool)
    if not example.fitted.scorer_.continuous:
        kept[np.argsort(apart)[len(apart) - int(STEPS["scores"] * len(apart)) :]] = False
    return kept
