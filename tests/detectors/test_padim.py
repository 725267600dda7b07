"""PaDiM against a plain loop over positions, and the effect of its parameters."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.spatial.distance import mahalanobis

from anomem.data.sources import open_source, read_dataset
from anomem.data.synthetic import crops
from anomem.detectors import load
from anomem.detectors.baselines.padim import PaDiM, PaDiMScorer
from anomem.errors import ParameterError
from anomem.metrics import auroc
from anomem.types import ANOMALOUS, UInt8Image

TINY = {"size": 64, "n_channels": 24}


@pytest.fixture(scope="module")
def images() -> UInt8Image:
    return crops("gravel", 50, size=64, half="train", rng=np.random.default_rng(0))


@pytest.fixture(scope="module")
def fresh() -> UInt8Image:
    return crops("brick", 6, size=64, half="test", rng=np.random.default_rng(1))


@pytest.fixture(scope="module")
def fitted(images: UInt8Image) -> PaDiM:
    return PaDiM(**TINY).fit(images, calibration="split", alpha=0.2, fit_precision="float32")


def _scorer(detector: PaDiM) -> PaDiMScorer:
    scorer = detector.scorer_
    assert isinstance(scorer, PaDiMScorer)
    return scorer


def _embedded(scorer: PaDiMScorer, images: UInt8Image) -> NDArray[np.float64]:
    """(N, C, h, w): every position's nearest value of each stage, of the drawn channels."""
    with torch.inference_mode():
        features = scorer.backbone(torch.from_numpy(images).permute(0, 3, 1, 2))
    stacked = np.concatenate([f.numpy().repeat(16 // f.shape[2], 2).repeat(16 // f.shape[3], 3) for f in features], 1)
    starts = np.cumsum([0] + [f.shape[1] for f in features])
    parts = scorer.channels.split(scorer.config["counts"])
    chosen = np.concatenate([start + part.numpy() for start, part in zip(starts, parts, strict=False)])
    return np.asarray(stacked[:, chosen], dtype=np.float64)


def _learnt(detector: PaDiM, images: UInt8Image) -> UInt8Image:
    """All normals but those that were kept back to calibrate on."""
    source = open_source(images)
    kept_back = detector.digests_by_role_["calibration"]
    return images[[source.digest(i) not in kept_back for i in range(len(source))]]


def test_distances_equal_a_loop_over_positions(fitted: PaDiM, images: UInt8Image, fresh: UInt8Image) -> None:
    scorer = _scorer(fitted)
    learnt = _embedded(scorer, _learnt(fitted, images))
    assert len(learnt) == fitted.counts_["n_train"] + fitted.counts_["n_tune"]
    vectors = _embedded(scorer, fresh)
    with torch.inference_mode():
        features = scorer.backbone(torch.from_numpy(fresh).permute(0, 3, 1, 2))
        found = scorer.gaussian(scorer.embed(features)).numpy()
    assert found.shape == (6, 16, 16)
    for i, j in itertools.product(range(16), range(16)):
        covariance = np.cov(learnt[:, :, i, j], rowvar=False) + 0.01 * np.eye(24)
        mean, precision = learnt[:, :, i, j].mean(axis=0), np.linalg.inv(covariance)
        wanted = [mahalanobis(v, mean, precision) for v in vectors[:, :, i, j]]
        np.testing.assert_allclose(found[:, i, j], wanted, rtol=2e-3)


def test_the_map_is_smoothed_and_the_score_its_maximum(fitted: PaDiM, fresh: UInt8Image) -> None:
    scorer, batch = _scorer(fitted), torch.from_numpy(fresh).permute(0, 3, 1, 2)
    with torch.inference_mode():
        distances = scorer.gaussian(scorer.embed(scorer.backbone(batch)))
        output = scorer(batch)
    twice = torch.nn.functional.interpolate(distances[:, None], size=(32, 32), mode="bilinear")[:, 0]
    blurred = np.stack([gaussian_filter(m.numpy(), 4.0 / 2, mode="nearest", truncate=3.0) for m in twice])
    np.testing.assert_allclose(output.map.numpy(), blurred, rtol=1e-4)
    np.testing.assert_allclose(fitted.anomaly_score(fresh), blurred.max(axis=(1, 2)), rtol=1e-4)


def test_every_normal_but_those_of_the_calibration_is_learnt_from(fitted: PaDiM, images: UInt8Image) -> None:
    scorer = _scorer(fitted)
    mean = _embedded(scorer, _learnt(fitted, images)).mean(axis=0).reshape(24, -1).T
    np.testing.assert_allclose(scorer.gaussian.mean.numpy(), mean, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_features_are_learnt_from_in_the_precision_of_scoring(images: UInt8Image, precision: str) -> None:
    other = {"float32": "bfloat16", "bfloat16": "float32"}[precision]
    detector = PaDiM(**TINY, precision=precision).fit(images, calibration="split", alpha=0.2, fit_precision=other)
    scorer, learnt = _scorer(detector), torch.from_numpy(_learnt(detector, images)).permute(0, 3, 1, 2)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
        mean = scorer.embed(scorer.backbone(learnt)).mean(dim=0).flatten(1).T
    spread = scorer.gaussian.mean.std()
    assert (scorer.gaussian.mean - mean).abs().max() < 1e-3 * spread


def test_the_seed_draws_the_channels(images: UInt8Image) -> None:
    def drawn(seed: int) -> list[list[int]]:
        scorer = _scorer(PaDiM(**TINY, seed=seed).fit(images[:12], calibration="split", alpha=0.2))
        return [part.tolist() for part in scorer.channels.split(scorer.config["counts"])]

    with pytest.warns(match="normal"):
        first, again, other = drawn(0), drawn(0), drawn(1)
    assert first == again != other
    assert sum(map(len, first)) == 24
    for part, total in zip(first, (24, 40, 112), strict=True):
        assert part == sorted(set(part))
        assert all(0 <= channel < total for channel in part)


def test_without_a_number_all_channels_are_taken(images: UInt8Image) -> None:
    detector = PaDiM(size=64, stages=(2, 1), n_channels=None).fit(images, calibration="split", alpha=0.2)
    scorer = _scorer(detector)
    assert scorer.config["counts"] == [40, 24]
    assert scorer.channels.tolist() == [*range(40), *range(24)]
    assert scorer.gaussian.hw == (16, 16)


def test_more_channels_than_there_are(images: UInt8Image) -> None:
    with pytest.raises(ParameterError, match="n_channels=177 is not allowed: the stages have 176"):
        PaDiM(size=64, n_channels=177).fit(images, calibration="split", alpha=0.2)


def test_a_larger_ridge_shortens_distances(fitted: PaDiM, images: UInt8Image, fresh: UInt8Image) -> None:
    wide, wider = (
        PaDiM(**TINY, ridge=r).fit(images, calibration="split", alpha=0.2, fit_precision="float32") for r in (1.0, 1e6)
    )
    scores = [detector.anomaly_score(fresh) for detector in (wider, wide, fitted)]
    assert (scores[0] < scores[1]).all()
    assert (scores[1] < scores[2]).all()
    # Where the ridge is all there is, the distance is Euclidean in units of its root.
    scorer = _scorer(wider)
    vectors = _embedded(scorer, fresh).reshape(6, 24, -1).transpose(0, 2, 1)
    lengths = np.linalg.norm(vectors - scorer.gaussian.mean.numpy(), axis=2).reshape(6, 16, 16)
    batch = torch.from_numpy(fresh).permute(0, 3, 1, 2)
    with torch.inference_mode():
        distances = scorer.gaussian(scorer.embed(scorer.backbone(batch)))
    np.testing.assert_allclose(1e3 * distances.numpy(), lengths, rtol=1e-3)


def test_a_file_holds_half_of_the_factors(fitted: PaDiM, fresh: UInt8Image, tmp_path: Path) -> None:
    fitted.save(tmp_path / "model")
    backbone = sum(t.nbytes for t in _scorer(fitted).backbone.state_dict().values())
    factors = 256 * 24 * 25 // 2 * 4
    assert (tmp_path / "model").stat().st_size - backbone == pytest.approx(factors, rel=0.5)
    assert np.array_equal(load(tmp_path / "model").anomaly_score(fresh), fitted.anomaly_score(fresh))


@pytest.mark.realdata
def test_toothbrush(anomem_data: Path) -> None:
    data = read_dataset(anomem_data / "mvtec_ad_toothbrush/toothbrush")
    detector = PaDiM().fit(list(data.train), calibration="split", alpha=0.1)
    labels = np.asarray([int(sample.label == ANOMALOUS) for sample in data.test])
    assert auroc(detector.anomaly_score(data.test), labels) > 0.95
