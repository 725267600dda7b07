"""One-class SVM and isolation forest on images against scikit-learn on their embeddings."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from anomem.data.synthetic import crops
from anomem.detector import Detector
from anomem.detectors.baselines._pooled import NORMALISERS, NormalisedScorer
from anomem.detectors.baselines._shallow import Normalise
from anomem.detectors.baselines.iforest import IForest
from anomem.detectors.baselines.ocsvm import OCSVM
from anomem.errors import AnomemWarning, ParameterError
from anomem.types import UInt8Image

OPTIONS: dict[str, Any] = {"alpha": 0.2, "calibration": "split", "device": "cpu", "fit_precision": "float32"}


@pytest.fixture(scope="module")
def images() -> UInt8Image:
    return crops("gravel", 40, size=64, half="train", rng=np.random.default_rng(0))


@pytest.fixture(scope="module")
def fresh() -> UInt8Image:
    rng = np.random.default_rng(1)
    return np.concatenate([crops(name, 6, size=64, half="test", rng=rng) for name in ("gravel", "brick")])


def _pooled(scorer: NormalisedScorer, images: UInt8Image) -> Tensor:
    with torch.inference_mode():
        maps = scorer.backbone(torch.from_numpy(images).permute(0, 3, 1, 2))
    return maps[-1].flatten(1)


def _learnt(detector: Detector, images: UInt8Image) -> UInt8Image:
    """Those of the images that the detector learnt from."""
    from anomem.data.sources import open_source
    from anomem.testing.example import digests

    source = open_source(images)
    return images[[source.digest(i) in digests(detector)["learn"] for i in range(len(source))]]


def _normalised(learnt: Tensor, wanted: Tensor, how: str) -> Tensor:
    if how in ("unit", "both"):
        learnt, wanted = F.normalize(learnt, dim=1), F.normalize(wanted, dim=1)
    if how in ("standard", "both"):
        deviation = learnt.std(dim=0, correction=0)
        wanted = (wanted - learnt.mean(dim=0)) / deviation.clamp_min(0.1 * deviation.square().mean().sqrt())
    return wanted


@pytest.mark.parametrize("how", NORMALISERS)
def test_normalisers_do_what_they_are_called(how: str) -> None:
    rng = torch.Generator().manual_seed(0)
    learnt, fresh = torch.rand(30, 6, generator=rng), torch.rand(5, 6, generator=rng)
    found = Normalise(6, **NORMALISERS[how]).fit(learnt)(fresh)
    torch.testing.assert_close(found, _normalised(learnt, fresh, how), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("how", ["raw", "both"])
def test_ocsvm_equals_scikit_learn_on_embeddings(images: UInt8Image, fresh: UInt8Image, how: str) -> None:
    from sklearn.svm import OneClassSVM

    detector = OCSVM(size=64, normalise=how, nu=0.3).fit(images, **OPTIONS)
    scorer = detector.scorer_
    assert isinstance(scorer, NormalisedScorer)
    pooled = _pooled(scorer, _learnt(detector, images))
    x, y = _normalised(pooled, pooled, how), _normalised(pooled, _pooled(scorer, fresh), how)
    reference = OneClassSVM(nu=0.3, gamma="scale").fit(x.double().numpy())
    wanted = -reference.decision_function(y.double().numpy())
    # The solver stops at a tolerance of 1e-3, and embeddings of other batches differ in their last bits.
    assert detector.anomaly_score(fresh, device="cpu") == pytest.approx(wanted, abs=2e-3 * np.ptp(wanted))


def test_iforest_equals_scikit_learn_on_embeddings(images: UInt8Image, fresh: UInt8Image) -> None:
    from sklearn.ensemble import IsolationForest

    detector = IForest(size=64, n_trees=30, normalise="raw", seed=3).fit(images, **OPTIONS)
    scorer = detector.scorer_
    assert isinstance(scorer, NormalisedScorer)
    rng = torch.Generator().manual_seed(3)
    torch.rand(len(_learnt(detector, images)), generator=rng)  # the keys of the sample of embeddings
    seed = int(torch.randint(2**31 - 1, (1,), generator=rng))
    x = _pooled(scorer, _learnt(detector, images)).numpy()
    reference = IsolationForest(n_estimators=30, max_samples=len(x), random_state=seed).fit(x)
    wanted = -reference.score_samples(_pooled(scorer, fresh).numpy())
    assert np.abs(detector.anomaly_score(fresh, device="cpu") - wanted).max() < 0.02 * np.ptp(wanted)


@pytest.mark.parametrize("cls", [OCSVM, IForest])
def test_another_texture_is_anomalous(images: UInt8Image, fresh: UInt8Image, cls: type[Detector]) -> None:
    scores = cls(size=64).fit(images, **OPTIONS).anomaly_score(fresh, device="cpu")
    assert scores[6:].min() > scores[:6].max()


def test_learning_is_bounded(images: UInt8Image) -> None:
    svm = OCSVM(size=64, max_items=5).fit(images, **OPTIONS).scorer_
    assert 1 <= int((svm.boundary.weights > 0).sum()) <= 5
    assert svm.config["n"] == len(svm.boundary.weights) == 32
    forest = IForest(size=64, max_items=5, n_trees=10).fit(images, **OPTIONS).scorer_
    assert (forest.config["n_samples"], len(forest.forest.length)) == (5, 90)


@pytest.mark.parametrize("detector", [OCSVM(backbone="resnet18"), IForest(backbone="resnet18", n_trees=10)])
def test_three_normals_and_another_backbone_are_enough(
    images: UInt8Image, fresh: UInt8Image, detector: Detector
) -> None:
    detector = detector.clone().set_params(size=64, weights=None)
    with pytest.warns(AnomemWarning):
        detector.fit(images[:3], device="cpu")
    scores = detector.anomaly_score(fresh, device="cpu")
    assert np.isfinite(scores).all()


def test_wrong_values_are_named(images: UInt8Image) -> None:
    for detector, name in (
        (OCSVM(gamma="auto-scale"), "gamma"),
        (OCSVM(gamma=0.0), "gamma"),
        (OCSVM(nu=1.0), "nu"),  # every normal at its bound: no offset is defined
        (IForest(n_samples=1), "n_samples"),
        (IForest(normalise="whiten"), "normalise"),
    ):
        with pytest.raises(ParameterError, match=f"{name}="):
            detector.fit(images)
