"""Supervised baseline: balanced batches, cross entropy, training of the named parts alone."""

from __future__ import annotations

import itertools
import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import anomem
from anomem.data.synthetic import DEFECTS, crops, plant
from anomem.detectors.baselines import supervised as module
from anomem.detectors.baselines.supervised import Supervised, SupervisedScorer, balanced_loss
from anomem.errors import AnomemWarning, InputError
from anomem.fitting import make_run
from anomem.nn.endless import FullBatches
from anomem.training import Recipe, run_to_end
from anomem.types import UInt8Image

OPTIONS: dict[str, Any] = {"alpha": 0.2, "device": "cpu", "fit_precision": "float32"}
TINY: dict[str, Any] = {"size": 32, "train_steps": 3, "train_batch": 8}


@pytest.fixture(scope="module")
def normals() -> UInt8Image:
    return crops("gravel", 40, size=64, half="train", rng=np.random.default_rng(0))


def _defective(images: UInt8Image, seed: int, kind: str = "hole") -> UInt8Image:
    assert kind in DEFECTS
    rng = np.random.default_rng(seed)
    return np.stack([plant(image, kind, rng, 0.5)[0] for image in images])


def _fit(detector: Supervised, normals: UInt8Image, anomalies: UInt8Image) -> Supervised:
    y = [0] * len(normals) + [1] * len(anomalies)
    return detector.fit(np.concatenate([normals, anomalies]), y, **OPTIONS)


def _weights(scorer: Any) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in scorer.backbone.state_dict().items()}


def test_loss_equals_the_loop_over_images() -> None:
    odds = torch.tensor([-2.0, 0.5, 3.0, -1.0, 0.0, 4.0], dtype=torch.float64)
    total = 0.0
    for i, value in enumerate(odds.tolist()):
        chance = 1 / (1 + math.exp(-value))
        total -= math.log(chance if i >= 3 else 1 - chance)
    assert float(balanced_loss(odds)) == pytest.approx(total / 6, rel=1e-6)


def test_batches_are_joined_in_order_and_cut_to_length() -> None:
    parts = (torch.arange(first, first + n) for first, n in ((0, 2), (2, 1), (3, 7), (10, 3)))
    assert [b.tolist() for b in FullBatches(parts, 4)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]


def test_half_of_every_batch_is_anomalous_however_few_there_are() -> None:
    """The same vector 60 times normal and twice anomalous: balanced, neither is likelier."""
    scorer = SupervisedScorer.__new__(SupervisedScorer)
    torch.nn.Module.__init__(scorer)
    scorer.head = torch.nn.Linear(2, 1)
    run = make_run(Supervised(train_batch=16).resolve(), device="cpu", fit_precision="float32", batch_size=4, workers=0)
    same = torch.tensor([[1.0, -1.0]])
    recipe = Recipe(400, 0.05, "adamw", 0.0)
    run_to_end(module._train_head(scorer, same.repeat(60, 1), same.repeat(2, 1), recipe, run))
    assert scorer.log_odds(same).item() == pytest.approx(0, abs=0.02)


@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_it_learns_the_defect_it_is_shown(normals: UInt8Image, head: str) -> None:
    shown = _defective(crops("gravel", 8, size=64, half="train", rng=np.random.default_rng(5)), 1)
    detector = _fit(
        Supervised(size=64, head=head, train_steps=60, lr=1e-2 if head == "linear" else 1e-3), normals, shown
    )
    fresh = crops("gravel", 8, size=64, half="test", rng=np.random.default_rng(6))
    scores = detector.anomaly_score(np.concatenate([fresh, _defective(fresh, 2)]), device="cpu")
    assert scores[8:].min() > scores[:8].max()
    assert detector.counts_["n_labelled"] == 8


def test_the_score_is_the_logit(normals: UInt8Image) -> None:
    detector = _fit(Supervised(size=64, train_steps=300, lr=0.1), normals, _defective(normals[:6], 1))
    scorer = detector.scorer_
    assert isinstance(scorer, SupervisedScorer)
    pictures = torch.from_numpy(normals[:4]).permute(0, 3, 1, 2)
    with torch.inference_mode():
        vectors = scorer.normalise(scorer.backbone(pictures)[-1].flatten(1))
        wanted = vectors @ scorer.head.weight[0] + scorer.head.bias
    scores = detector.anomaly_score(normals[:4], device="cpu")
    assert scores == pytest.approx(wanted.numpy(), rel=1e-4)
    assert scores.min() < -1  # no probability


@pytest.mark.parametrize(
    ("train_backbone", "trained"),
    [("none", set()), ("last", {"blocks.5", "blocks.6", "conv_head", "bn2"})],
)
def test_only_what_is_named_is_trained(normals: UInt8Image, train_backbone: str, trained: set[str]) -> None:
    anomalies = _defective(normals[32:36], 1)
    after = _weights(_fit(Supervised(**TINY, train_backbone=train_backbone), normals[:32], anomalies).scorer_)
    still = Supervised(**TINY, train_backbone=train_backbone, lr=1e-30, weight_decay=0.0)
    before = _weights(_fit(still, normals[:32], anomalies).scorer_)
    moved = {name for name, value in after.items() if not torch.equal(value, before[name])}
    layers = {".".join(n.split(".")[1 : 3 if ".blocks." in n else 2]) for n in moved}
    assert layers == trained


def test_from_scratch_everything_is_trained(normals: UInt8Image) -> None:
    anomalies = _defective(normals[32:36], 1)
    options: dict[str, Any] = {**TINY, "backbone": "resnet18", "width": 0.125, "weights": None}
    detector = _fit(Supervised(**options), normals[:32], anomalies)
    before = _weights(_fit(Supervised(**{**options, "lr": 1e-30}, weight_decay=0.0), normals[:32], anomalies).scorer_)
    weights = _weights(detector.scorer_)
    trained = [name for name in weights if name.endswith("weight")]
    assert all(not torch.equal(weights[name], before[name]) for name in trained)
    assert weights["model.conv1.weight"].shape[1:] == (3, 3, 3)  # the stem for small images
    assert float(weights["model.bn1.running_mean"].abs().max()) > 0
    assert np.isfinite(detector.anomaly_score(normals[:3], device="cpu")).all()


def test_a_trained_backbone_survives_the_file(normals: UInt8Image, tmp_path: Any) -> None:
    detector = _fit(Supervised(**TINY, train_backbone="last", head="mlp", hidden=8), normals[:32], normals[32:34] // 2)
    detector.save(tmp_path / "model")
    scores = detector.anomaly_score(normals, device="cpu")
    assert np.array_equal(anomem.load(tmp_path / "model").anomaly_score(normals, device="cpu"), scores)


@pytest.mark.parametrize("train_backbone", ["none", "all"])
def test_three_normals_and_one_anomaly_are_enough(normals: UInt8Image, train_backbone: str) -> None:
    detector = Supervised(**TINY, train_backbone=train_backbone)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        detector.fit(np.concatenate([normals[:3], normals[3:4] // 2]), [0, 0, 0, 1], device="cpu")
    assert any(issubclass(w.category, AnomemWarning) for w in caught)
    assert np.isfinite(detector.anomaly_score(normals[:6], device="cpu")).all()


def test_labels_are_demanded_and_are_no_second_stage(normals: UInt8Image) -> None:
    with pytest.raises(InputError, match="no labelled anomalies"):
        Supervised(**TINY).fit(normals, device="cpu")
    detector = _fit(Supervised(**TINY), normals[:32], normals[32:34] // 2)
    with pytest.raises(InputError, match="no second stage"):
        detector.label(normals[:1], device="cpu")


def test_the_fit_reports_its_training(normals: UInt8Image) -> None:
    history = _fit(Supervised(**{**TINY, "train_steps": 20}), normals[:32], normals[32:34] // 2).history_
    stages = [key for key, _ in itertools.groupby(record.stage for record in history)]
    assert stages[:3] == ["features", "labelled", "head"]
    losses = [record.facts["loss"] for record in history if record.stage == "head"]
    assert losses[-1] < losses[0]
