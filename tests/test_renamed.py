"""Names of version 0.1 work for one more version, with a warning."""

from __future__ import annotations

import importlib

import numpy as np
import pytest

from anomem.data.synthetic import crops
from anomem.detectors.baselines.knn import KNN
from anomem.errors import RenamedWarning
from anomem.renamed import CLASSES, MODULES
from anomem.types import UInt8Image


@pytest.fixture(scope="module")
def images() -> UInt8Image:
    return crops("brick", 30, size=32, half="train", rng=np.random.default_rng(0))


@pytest.mark.parametrize("old", MODULES)
def test_old_modules_lead_to_new_ones(old: str) -> None:
    for new in MODULES[old]:
        module = importlib.import_module(f"anomem.{new}")
        name = next(n for n in vars(module) if getattr(vars(module)[n], "__module__", "") == module.__name__)
        with pytest.warns(RenamedWarning, match=f"anomem.{old}"):
            found = getattr(importlib.import_module(f"anomem.{old}"), name)
        assert found is getattr(module, name)


def test_old_classes_are_the_new_ones() -> None:
    from anomem.runtime.model import Model

    assert CLASSES["Judge"] == "Model"
    with pytest.warns(RenamedWarning, match=r"anomem\.runtime\.model\.Model"):
        from anomem.runtime.judge import Judge  # type: ignore[import-not-found]
    assert Judge is Model


def test_unknown_old_names_are_refused() -> None:
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("anomem.protocols.nothing")
    with pytest.raises(AttributeError, match="nothing"):
        _ = importlib.import_module("anomem.runtime.judge").nothing


def test_old_methods_do_what_the_new_ones_do(images: UInt8Image) -> None:
    new, old = KNN(size=32).fit(images, calibration="split", alpha=0.3), KNN(size=32)
    with pytest.warns(RenamedWarning, match="fit_steps"):
        stages = {record.stage for record in old.fit_steps(images, calibration="split", alpha=0.3)}
    assert stages >= {"files", "calibrate"}
    assert np.array_equal(old.anomaly_score(images), new.anomaly_score(images))
    with pytest.warns(RenamedWarning, match="calibrate_steps"):
        steps = list(old.calibrate_steps(images[:20] // 2, 0.2))
    assert ([r.stage for r in steps], old.calibration_.n) == (["calibrate"] * 20, 20)
    with pytest.warns(RenamedWarning, match="set_alpha"):
        assert old.calibrate(alpha=0.5).calibration_.alpha == 0.5
    with pytest.warns(RenamedWarning, match="results"):
        assert [r.score for r in old.results(images[:2])] == new.anomaly_score(images[:2]).tolist()
