"""Cameras of fewer bits than their files: observed in the fit, remembered by every kind of model file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import anomem
from anomem.data.synthetic import crops
from anomem.detectors.baselines.knn import KNN
from anomem.errors import AnomemWarning, ParameterError
from anomem.types import UInt8Image

TINY = {"size": 32, "max_items": 8}


@pytest.fixture(scope="module")
def grey() -> UInt8Image:
    return crops("brick", 36, size=32, half="train", rng=np.random.default_rng(0))[..., 0]


def deep(grey: UInt8Image, bits: int) -> np.ndarray:
    return np.rint(grey.astype(float) / 255 * (2**bits - 1)).astype(np.uint16)


def test_the_depth_is_observed_and_noted(grey: UInt8Image, tmp_path: Path) -> None:
    with pytest.warns(AnomemWarning, match=r"16-bit values of the normal images end at \d+: read as 10 bits, in"):
        model = KNN(**TINY).fit(deep(grey, 10), calibration="split", alpha=0.2)
    assert model.bits_ == 10
    model.save(tmp_path / "model")
    loaded = anomem.load(tmp_path / "model")
    assert loaded.bits_ == 10
    for each in (model, loaded):  # images of 8 bits are what they are, and these the same
        assert np.array_equal(each.anomaly_score(deep(grey[:5], 10)), model.anomaly_score(grey[:5]))
    Image.fromarray(deep(grey, 10)[0]).save(tmp_path / "a.png")
    assert loaded.anomaly_score(tmp_path / "a.png") == pytest.approx(model.anomaly_score(deep(grey[:1], 10)))


def test_a_given_depth_is_kept_and_16_bits_stay_as_they_were(grey: UInt8Image, tmp_path: Path) -> None:
    twelve = KNN(**TINY, bits=12).fit(deep(grey, 10), calibration="split", alpha=0.2)
    assert twelve.bits_ == 12
    twelve.save(tmp_path / "twelve")
    assert anomem.load(tmp_path / "twelve").bits_ == 12
    for images, params in ((grey, {}), (deep(grey, 16), {}), (deep(grey, 16), {"bits": 16})):
        model = KNN(**TINY, **params).fit(images, calibration="split", alpha=0.2)
        assert model.bits_ == 16
        assert "bits" not in model._state().preprocessing.to_dict()
    with pytest.warns(AnomemWarning, match="beyond 12 bits"):
        twelve.anomaly_score(deep(grey, 16)[:2])
    with pytest.raises(ParameterError, match=r"bits=9 is not allowed; expected one of 'auto', 8, 10, 12, 14, 16"):
        KNN(**TINY, bits=9).fit(grey)


def test_exported_models_remember_the_depth(grey: UInt8Image, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    model = KNN(**TINY, bits=10).fit(deep(grey, 10), calibration="split", alpha=0.2)
    model.export(tmp_path / "model.onnx")
    session = anomem.load(tmp_path / "model.onnx")
    assert session.bits_ == 10
    np.testing.assert_allclose(
        session.anomaly_score(deep(grey, 10)[:5]), model.anomaly_score(deep(grey, 10)[:5]), rtol=1e-4
    )
