"""Second stage against slow versions, and the paper's literal form by parameter."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from anomem.data.synthetic import crops, plant
from anomem.detectors.anomem.detector import AnoMem
from anomem.errors import AnomemWarning, InputError, ParameterError
from anomem.metrics import auroc
from anomem.nn.kernel_ridge import Head, cross_validated_gain, fit_kernel_ridge, random_folds, squared_distances
from anomem.types import UInt8Image

TINY: dict[str, Any] = {"size": 64, "memory_size": (32,)}


@pytest.fixture(scope="module")
def images() -> UInt8Image:
    return crops("brick", 40, size=64, half="train", rng=np.random.default_rng(0))


@pytest.fixture(scope="module")
def defects() -> UInt8Image:
    rng = np.random.default_rng(3)
    return np.stack([plant(i, "hole", rng, 0.4)[0] for i in crops("brick", 12, size=64, half="test", rng=rng)])


def test_kernel_ridge_equals_the_dual_solved_by_hand() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(30, 5)).astype(np.float32)
    labels = (np.arange(30) >= 22).astype(np.float32)
    squared = squared_distances(torch.from_numpy(vectors), torch.from_numpy(vectors))
    fitted = fit_kernel_ridge(squared, torch.from_numpy(labels), sharpness=2.0, ridge=0.01)
    weights = np.where(labels == 1, 0.5 / 8, 0.5 / 22)
    mean = weights @ vectors
    bandwidth = 2 * (weights @ ((vectors - mean) ** 2).sum(axis=1)) / 2.0
    kernel = np.exp(-((vectors[:, None] - vectors[None]) ** 2).sum(axis=2) / bandwidth)
    root = np.sqrt(weights)
    system = kernel * root[:, None] * root + 0.01 * np.eye(30)
    alpha = root * np.linalg.solve(system, root * np.where(labels == 1, 1.0, -1.0))
    assert float(fitted.bandwidth) == pytest.approx(bandwidth, rel=1e-4)
    np.testing.assert_allclose(fitted.alpha.numpy(), alpha, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(fitted(squared).numpy(), kernel @ alpha, rtol=1e-3, atol=1e-4)


def test_the_gain_is_found_where_there_is_one_and_not_where_there_is_none() -> None:
    rng = torch.Generator().manual_seed(0)
    labels = torch.cat([torch.zeros(80), torch.ones(20)])
    useful = torch.randn(100, 4, generator=rng) + 2 * labels[:, None]
    useless = torch.randn(100, 4, generator=rng)
    deviation = torch.randn(100, generator=rng) + labels
    for vectors, helps in ((useful, True), (useless, False)):
        head = Head(squared_distances(vectors, vectors))
        gain, error = cross_validated_gain([head], deviation, labels, 0.5, rng=rng)
        assert (gain > error) is helps


def test_a_single_label_allows_no_test() -> None:
    labels = torch.cat([torch.zeros(10), torch.ones(1)])
    assert random_folds(labels, torch.Generator()) is None


def test_the_literal_second_stage_is_the_papers_distance(images: UInt8Image, defects: UInt8Image) -> None:
    detector = AnoMem(**TINY, stage_two__learner="distance").fit(images, alpha=0.1).label(defects[:6])
    stage = detector.scorer_.second_stage
    assert stage.weight == 1.0
    evidence = detector.scorer_.calibration_evidence
    by_hand = torch.zeros(len(evidence))
    for s, weight in enumerate(stage.weights):
        by_hand += weight * stage.distance(s, stage.signed(evidence, s)) / stage.weights.sum()
    by_hand = (by_hand - stage.distance_affine[0]) / stage.distance_affine[1]
    found = detector.scorer_.conclude(detector.scorer_.calibration_one_class, evidence)
    torch.testing.assert_close(found, by_hand, rtol=1e-4, atol=1e-4)
    fresh = crops("brick", 12, size=64, half="test", rng=np.random.default_rng(5))
    scores = detector.anomaly_score(np.concatenate([fresh, defects[6:]]))
    assert auroc(scores, [0] * 12 + [1] * 6) > 0.7


def test_a_repeated_image_makes_no_promise_stronger(images: UInt8Image) -> None:
    detector = AnoMem(**TINY).fit(images, alpha=0.1)
    fresh = crops("brick", 5, size=64, half="test", rng=np.random.default_rng(9))
    with pytest.warns(AnomemWarning):
        detector.calibrate(np.concatenate([fresh] * 4), alpha=0.2)
    assert detector.calibration_.n == 5


@pytest.mark.parametrize("backbone", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"])
def test_backbones_without_feature_maps_are_refused_in_one_line(images: UInt8Image, backbone: str) -> None:
    options = {"stages": (0, 1), "neighbourhood": (1,), "max_grid": (28,), "scale_weights": (1.0,)}
    with pytest.raises(ParameterError, match=backbone):
        AnoMem(backbone=backbone, weights=None, **options).fit(images)


def test_unreadable_images_are_neither_accepted_nor_drawn(tmp_path: Any, images: UInt8Image) -> None:
    detector = AnoMem(**TINY).fit(images, alpha=0.1)
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"not an image")
    assert detector.predict([bad], skip_bad=True).tolist() == [-1]
    with pytest.raises(InputError, match="not an image"):
        detector.anomaly_map([bad])
    (result,) = detector.score([bad], maps=True, skip_bad=True)
    assert (result.map, result.anomalous) == (None, False)
