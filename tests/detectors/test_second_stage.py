"""Second stage against slow versions, and the paper's literal form by parameter."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

from anomem.data.synthetic import DEFECTS, crops, plant
from anomem.detectors.anomem import AnoMem, StageTwo
from anomem.errors import AnomemWarning, InputError
from anomem.metrics import auroc
from anomem.nn.kernel_ridge import Head, cross_validated_gain, fit_kernel_ridge, random_folds, squared_distances
from anomem.types import BoolArray, UInt8Image

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
    detector = (
        AnoMem(**TINY, stage_two__learner="distance").fit(images, calibration="split", alpha=0.1).label(defects[:6])
    )
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
    detector = AnoMem(**TINY).fit(images, calibration="split", alpha=0.1)
    fresh = crops("brick", 5, size=64, half="test", rng=np.random.default_rng(9))
    with pytest.warns(AnomemWarning):
        detector.calibrate(np.concatenate([fresh] * 4), alpha=0.2)
    assert detector.calibration_.n == 5


def test_unreadable_images_are_neither_accepted_nor_drawn(tmp_path: Any, images: UInt8Image) -> None:
    detector = AnoMem(**TINY).fit(images, calibration="split", alpha=0.1)
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"not an image")
    assert detector.predict([bad], skip_bad=True).tolist() == [-1]
    with pytest.raises(InputError, match="not an image"):
        detector.anomaly_map([bad])
    (result,) = detector.score([bad], maps=True, skip_bad=True)
    assert (result.map, result.anomalous) == (None, False)


# ------------------------------------------------------------- what labels weigh


@pytest.fixture(scope="module")
def planted() -> tuple[UInt8Image, BoolArray]:
    rng = np.random.default_rng(1)
    pairs = [
        plant(image, DEFECTS[i % len(DEFECTS)], rng, 0.35)
        for i, image in enumerate(crops("brick", 24, size=64, half="test", rng=rng))
    ]
    return np.stack([image for image, _ in pairs]), np.stack([mask for _, mask in pairs])


@pytest.fixture(scope="module")
def normal() -> UInt8Image:
    return crops("brick", 24, size=64, half="test", rng=np.random.default_rng(2))


@pytest.fixture(scope="module")
def fitted(images: UInt8Image) -> AnoMem:
    return AnoMem(**TINY).fit(images, calibration="split", alpha=0.2)


def _again(fitted: AnoMem) -> AnoMem:
    return copy.copy(fitted)


def _weight(detector: AnoMem) -> float:
    return float(detector.scorer_.second_stage.weight)


FAINT = [f"kind {i % 4}" for i in range(20)]


@pytest.fixture(scope="module")
def faint() -> UInt8Image:
    """Holes that the first stage hardly sees: 20 to learn from, 28 to judge by."""
    rng = np.random.default_rng(1)
    clean = crops("brick", 48, size=64, half="test", rng=np.random.default_rng(11))
    holes = np.stack([plant(image, "hole", rng, 0.35)[0] for image in clean])
    return (clean + 0.15 * (holes.astype(float) - clean)).round().astype(np.uint8)


def test_labels_help_where_the_first_stage_sees_little(fitted: AnoMem, normal: UInt8Image, faint: UInt8Image) -> None:
    detector = _again(fitted).label(faint[:20], types=FAINT)
    mixed, labels = np.concatenate([normal, faint[20:]]), [0] * len(normal) + [1] * 28
    before, after = (auroc(d.anomaly_score(mixed), labels) for d in (fitted, detector))
    assert after > before + 0.03
    (record,) = [r for r in detector.history_ if r.stage == "labels"]
    assert (record.facts["labelled"], record.facts["types"]) == (20, 4)
    assert record.facts["gain"] > record.facts["gain_error"]
    assert record.facts["weight"] == (15 + 20) / (45 + 20)
    assert _weight(detector) == pytest.approx(record.facts["weight"])


def test_labels_that_add_nothing_weigh_nothing(
    fitted: AnoMem, normal: UInt8Image, planted: tuple[UInt8Image, BoolArray]
) -> None:
    """Defects that the first stage tells from all normals: nothing is gained, and scores keep their order."""
    detector = _again(fitted).label(planted[0][:12], types=[DEFECTS[i % 5] for i in range(12)])
    assert _weight(detector) == 0
    mixed = np.concatenate([normal, planted[0][12:]])
    orders = [np.argsort(d.anomaly_score(mixed), kind="stable") for d in (fitted, detector)]
    assert np.array_equal(*orders)


def test_the_users_weight_is_taken(
    images: UInt8Image, planted: tuple[UInt8Image, BoolArray], normal: UInt8Image
) -> None:
    for weight in (0.0, 0.7):
        detector = AnoMem(**TINY, stage_two=StageTwo(weight=weight)).fit(images, calibration="split", alpha=0.2)
        one_class = detector.anomaly_score(normal)
        detector.label(planted[0][:8])
        assert _weight(detector) == pytest.approx(weight)
        order = np.corrcoef(one_class, detector.anomaly_score(normal))[0, 1]
        assert (order > 0.9999) == (weight == 0)


def test_labels_of_one_type_weigh_as_much_as_the_cap_at_most(images: UInt8Image, faint: UInt8Image) -> None:
    capped = AnoMem(**TINY, stage_two=StageTwo(cap=0.3)).fit(images, calibration="split", alpha=0.2)
    weights = [_weight(_again(capped).label(faint[:20], types=types)) for types in (["hole"] * 20, FAINT)]
    assert weights == pytest.approx([0.3, 35 / 65])


def test_masks_enter_the_map(images: UInt8Image, planted: tuple[UInt8Image, BoolArray]) -> None:
    defective, masks = planted
    fitted = AnoMem(**TINY, stage_two=StageTwo(weight=0.5)).fit(images, calibration="split", alpha=0.2)
    plain = _again(fitted).label(defective[:12])
    masked = _again(fitted).label(defective[:12], masks=list(masks[:12]))
    maps = [np.asarray(d.anomaly_map(defective[12:])) for d in (fitted, plain, masked)]
    contrast = [
        np.mean([(m[t].mean() - m[~t].mean()) / m.std() for m, t in zip(part, masks[12:], strict=True)])
        for part in maps
    ]
    assert min(contrast) > 1, "maps are higher on defects than beside them"
    assert contrast[2] > contrast[1] + 0.1, "masks say where"
