"""Baselines against reference implementations of their namesakes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from anomem.data.synthetic import crops
from anomem.detectors.baselines.kmeans import KMeans
from anomem.detectors.baselines.knn import KNN, KNNScorer
from anomem.types import UInt8Image


@pytest.fixture(scope="module")
def images() -> UInt8Image:
    return crops("gravel", 50, size=64, half="train", rng=np.random.default_rng(0))


def _embedded(scorer: KNNScorer, images: UInt8Image) -> np.ndarray:
    with torch.inference_mode():
        return scorer.embed(scorer.backbone(torch.from_numpy(images).permute(0, 3, 1, 2))).numpy()


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_knn_equals_scikit_learn(images: UInt8Image, metric: str) -> None:
    from sklearn.neighbors import NearestNeighbors

    detector = KNN(size=64, k=3, metric=metric).fit(images, calibration="split", alpha=0.2, fit_precision="float32")
    scorer = detector.scorer_
    assert isinstance(scorer, KNNScorer)
    fresh = crops("brick", 8, size=64, half="test", rng=np.random.default_rng(1))
    distances, _ = NearestNeighbors(n_neighbors=3).fit(scorer.bank.numpy()).kneighbors(_embedded(scorer, fresh))
    assert detector.anomaly_score(fresh) == pytest.approx((distances**2).sum(axis=1), rel=1e-3)


def test_knn_remembers_what_it_learnt(images: UInt8Image) -> None:
    detector = KNN(size=64, k=1).fit(images, calibration="split", alpha=0.2, fit_precision="float32")
    scores = detector.anomaly_score(images)
    n_learnt = detector.counts_["n_train"]
    assert np.sort(scores)[n_learnt - 1] < 0.05 * np.sort(scores)[n_learnt]


def test_knn_is_bounded(images: UInt8Image) -> None:
    scorer = KNN(size=64, k=9, max_items=5).fit(images, calibration="split", alpha=0.2).scorer_
    assert scorer.bank.shape == (5, 1280)
    assert scorer.config["k"] == 5


def test_cosine_knows_no_length(images: UInt8Image) -> None:
    scorer = KNN(size=64, metric="cosine").fit(images, calibration="split", alpha=0.2).scorer_
    torch.testing.assert_close(scorer.bank.norm(dim=1), torch.ones(len(scorer.bank)))


def test_kmeans_has_centres_of_unit_features(images: UInt8Image) -> None:
    detector = KMeans(size=64, n_prototypes=16).fit(images, calibration="split", alpha=0.2, fit_precision="float32")
    scorer = detector.scorer_
    for scale in scorer.scales:
        assert scale.memory.items.shape[0] == 16
        assert float(scale.memory.items.norm(dim=1).max()) <= 1 + 1e-5
    batch = torch.from_numpy(images[:4]).permute(0, 3, 1, 2)
    with torch.inference_mode():
        features = scorer.backbone(batch)
        for norms, scale, feature in zip(scorer.norms(features), scorer.scales, features, strict=True):
            z = scale.embed(feature).permute(0, 2, 3, 1)
            nearest = torch.cdist(z.flatten(0, 2), scale.memory.items).amin(dim=1)
            torch.testing.assert_close(norms.flatten(), nearest, rtol=1e-3, atol=1e-3)


def test_more_centres_leave_less_over(images: UInt8Image) -> None:
    left = []
    for n in (1, 8, 64):
        scorer = KMeans(size=64, n_prototypes=n).fit(images, calibration="split", alpha=0.2).scorer_
        with torch.inference_mode():
            norms = scorer.norms(scorer.backbone(torch.from_numpy(images[:8]).permute(0, 3, 1, 2)))
        left.append(float(sum(n.mean() for n in norms)))
    assert left[0] > left[1] > left[2]
