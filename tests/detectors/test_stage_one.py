"""AnoMem's first stage from scratch: the published layer learns, and its controls are what they are called."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import anomem
from anomem.benchmark.image_sets import open_bench_set
from anomem.data.imageset import ImageSet
from anomem.data.sources import open_source
from anomem.data.synthetic import crops
from anomem.detectors.anomem import AnoMem, Contrast, StageOne
from anomem.detectors.anomem.gradients import memory_gradients
from anomem.detectors.anomem.scorer import MultiScaleScorer
from anomem.detectors.anomem.stage_one import budget, contrasted, mean_cosine, train_stage_one
from anomem.errors import ParameterError
from anomem.fitting import Run, make_run, read_preprocessing
from anomem.nn.contrastive_loss import nt_xent
from anomem.nn.hopfield import HopfieldMemory
from anomem.nn.views import ViewsOf
from anomem.runtime.progress import run_to_end
from anomem.types import UInt8Image

TINY: dict[str, Any] = {
    "preset": "paper",
    "backbone": "resnet18",
    "width": 0.0625,
    "memory_size": (64, 32),
    "stage_one.epochs": None,
    "stage_one.batch": 16,
    "stage_one.lr": 0.02,
}
RAW: dict[str, Any] = {
    "normalise": "raw",
    "association": "dot",
    "retrieval_steps": None,
    "seeding": "random",
    "stage_one.warmup": 0,
}


@pytest.fixture(scope="module")
def images() -> UInt8Image:
    kinds = ("brick", "gravel", "grass")
    return np.concatenate([crops(k, 32, size=32, half="train", rng=np.random.default_rng(0)) for k in kinds])


def _train(
    images: UInt8Image, precision: str = "float32", **params: Any
) -> tuple[MultiScaleScorer, Run[AnoMem], list[dict[str, float]]]:
    """Train stage 1 alone."""
    detector = AnoMem(**{**TINY, "stage_one.steps": 4, **params})
    run = make_run(detector.resolve(), device="cpu", fit_precision=precision, batch_size=32, workers=0)
    learn = ImageSet(open_source(images), read_preprocessing(run.params), workers=0)
    scorer = detector._empty(run, learn.preprocessing.hw)
    run_to_end(detector._seed(scorer, learn, run))
    stage = run.params.stage_one
    assert isinstance(stage, StageOne)
    return scorer, run, [dict(r.facts) for r in train_stage_one(scorer, learn, None, stage, run)]


def _facts(scorer: MultiScaleScorer, run: Run[AnoMem], images: UInt8Image) -> dict[str, float]:
    stage = run.params.stage_one
    assert isinstance(stage, StageOne)
    scorer.requires_grad_(False)
    for scale in scorer.memories():
        assert isinstance(scale.memory, HopfieldMemory)
        scale.memory.requires_grad_(True)
    model = contrasted(scorer, stage, run)
    scorer.backbone.train()
    views_of = ViewsOf(model, run.device, stage.views.augmentation(), shared_geometry=False, precision="float32")
    return memory_gradients(model, *views_of(torch.from_numpy(images).permute(0, 3, 1, 2)))


# ------------------------------------------------------------- the layer


def test_items_are_normalised_whenever_they_are_recalled() -> None:
    generator = torch.Generator().manual_seed(0)
    layer = HopfieldMemory(12, 16, beta=2.0, association="dot", item_norm="layernorm", per_root_dim=True)
    layer.items.data.mul_(100.0)  # Far above the floor of the variance.
    plain = HopfieldMemory(12, 16, beta=2.0 / math.sqrt(16), association="dot")
    plain.items.data.copy_(F.layer_norm(layer.items.data, (16,)))
    queries = torch.randn(20, 16, generator=generator)
    assert torch.allclose(layer(queries), plain(queries), atol=1e-6)
    assert torch.allclose(layer.distances(queries), plain.distances(queries), atol=1e-5)
    layer.items.data.mul_(10.0)
    assert torch.allclose(layer(queries), plain(queries), atol=1e-4), "the items' own length has no part"


def test_mean_cosine_is_that_of_pairs() -> None:
    vectors = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0))
    pairs = [
        float(F.cosine_similarity(v[i], v[j], dim=0)) for v in vectors for i in range(5) for j in range(5) if i != j
    ]
    assert mean_cosine(vectors) == pytest.approx(float(np.mean(pairs)), abs=1e-6)


# ------------------------------------------------------------- three facts


def test_the_paper_preset_passes_gradients_where_the_raw_reading_has_none(images: UInt8Image) -> None:
    batch = images[::3]
    facts = _facts(*_train(images, width=0.25)[:2], batch)
    raw = _facts(*_train(images, width=0.25, **RAW)[:2], batch)
    for s in (1, 2):
        assert facts[f"retrieval_cosine_{s}"] < 0.5
        assert facts[f"gradient_ratio_{s}"] > 0.1
        assert facts[f"item_gradient_{s}"] > 0.01
        assert raw[f"retrieval_cosine_{s}"] > 0.999
        assert raw[f"gradient_ratio_{s}"] < 0.001


@pytest.mark.slow
@pytest.mark.realdata
def test_the_paper_preset_learns_in_200_steps(anomem_data: Path) -> None:
    """Quarter-width ResNet-18, 32 px, B = 128: facts on views of training images that were not learnt."""
    data = open_bench_set("cifar10", anomem_data)
    source = data.choose(data.classes).train.source
    chosen = np.random.default_rng(0).permutation(len(source))[:5_128]
    pictures = np.stack([source.load(int(i)) for i in chosen])
    learn, held_out = pictures[:5_000], pictures[5_000:]
    size = {"width": 0.25, "memory_size": (512, 256), "stage_one.batch": 128, "stage_one.lr": 0.06}
    scorer, run, _ = _train(learn, **size, **{"stage_one.steps": 200})
    facts = _facts(scorer, run, held_out)
    for s in (1, 2):
        assert facts[f"retrieval_cosine_{s}"] < 0.5
        assert facts[f"gradient_ratio_{s}"] > 0.1
        assert facts[f"effective_items_{s}"] > 32
        assert facts[f"contrast_{s}"] < math.log(2 * 128 - 1) - 0.5


# ------------------------------------------------------------- identity, warm-up, centres


def test_identity_contrasts_the_features_themselves(images: UInt8Image) -> None:
    scorer, run, history = _train(images, memory="identity")
    stage = run.params.stage_one
    assert isinstance(stage, StageOne)
    model = contrasted(scorer, stage, run)
    model.bypassed = True
    maps = [[torch.randn(6, m.channels, *m.hw) for m in scorer.memories()] for _ in range(2)]
    model.contrast = Contrast(ratios=(1.0,)).resolve()
    value, _ = model.loss(*maps, torch.ones(6, dtype=torch.bool))
    terms, count = [], 0
    for weight, first, second in zip((1.0, 2.0), *maps, strict=True):
        flat = [m.flatten(2).permute(2, 0, 1) for m in (first, second)]
        terms.append(weight * len(flat[0]) * nt_xent(*flat, 0.1))
        count += len(flat[0])
    assert float(value) == pytest.approx(float(sum(terms)) / count, abs=1e-5)
    assert history[-1]["effective_items_1"] == 0.0


def test_identity_scores_by_centres_of_the_trained_features(images: UInt8Image) -> None:
    detector = AnoMem(**TINY, memory="identity", stage_one__steps=3).fit(images, calibration="split", alpha=0.2)
    scorer = detector.scorer_
    assert isinstance(scorer, MultiScaleScorer)
    memory = scorer.memories()[1].memory
    assert isinstance(memory, HopfieldMemory)
    assert memory.hard
    with torch.inference_mode():
        features = scorer.features(torch.from_numpy(images[::4]).permute(0, 3, 1, 2))
        z = scorer.memories()[1].embed(features[1]).flatten(2).transpose(1, 2).reshape(-1, memory.dim)
        away = memory.distances(z).mean() / z.norm(dim=1).mean()
    assert away < 0.7, "centres of these features are near them; random directions are 1.4 away"


def test_a_warm_up_trains_the_backbone_and_seeds_from_its_training_features(images: UInt8Image) -> None:
    seeded = {"seeding": "kmeans", "stage_one.lr": 1e-6}
    scorer, run, history = _train(images, **seeded, **{"stage_one.warmup": 3})
    cold, cold_run, _ = _train(images, **seeded)
    assert _nearness(scorer, run, images) > _nearness(cold, cold_run, images) + 0.05
    assert history[-1]["effective_items_1"] > 1.0
    *_, history = _train(images, **seeded, **{"stage_one.warmup": 4})
    assert history[-1]["effective_items_1"] == 0.0, "no memory during the warm-up"


def test_seeding_in_training_works_in_half_precision(images: UInt8Image) -> None:
    """The loss, and so the seeding within, runs under autocast."""
    *_, history = _train(images, "bfloat16", seeding="kmeans", **{"stage_one.warmup": 2})
    assert history[-1]["effective_items_1"] > 1.0
    assert np.isfinite(history[-1]["loss"])


def _nearness(scorer: MultiScaleScorer, run: Run[AnoMem], images: UInt8Image) -> float:
    """Mean cosine of last-scale features, in training mode, and their nearest items."""
    stage = run.params.stage_one
    assert isinstance(stage, StageOne)
    model = contrasted(scorer, stage, run)
    scorer.backbone.train()
    views_of = ViewsOf(model, run.device, stage.views.augmentation(), shared_geometry=False, precision="float32")
    with torch.no_grad():
        z = views_of(torch.from_numpy(images[::3]).permute(0, 3, 1, 2))[0][1].flatten(2).transpose(1, 2)
        memory = scorer.memories()[1].memory
        assert isinstance(memory, HopfieldMemory)
        unit = F.normalize(z.reshape(-1, memory.dim), dim=1)
        return float((unit @ F.normalize(memory.patterns, dim=1).T).amax(dim=1).mean())


def test_a_warm_up_needs_a_backbone_that_is_trained(images: UInt8Image) -> None:
    with pytest.raises(ParameterError, match="warmup trains the backbone alone"):
        AnoMem(size=64, stage_one__steps=2, stage_one__warmup=1).fit(images, calibration="split", alpha=0.2)


@pytest.mark.parametrize(
    ("given", "n_images", "steps"),
    [
        ({"steps": 7}, 1000, 7),
        ({"steps": None, "epochs": 3, "batch": 100}, 1000, 30),
        ({"steps": 7, "epochs": 3, "batch": 100}, 1000, 7),
        ({"steps": None, "epochs": 3, "batch": 100}, 40, 3),
    ],
)
def test_budgets(given: dict[str, Any], n_images: int, steps: int) -> None:
    assert budget(StageOne(**given).resolve(), n_images) == steps


def test_no_budget_is_refused() -> None:
    with pytest.raises(ParameterError, match="both none"):
        budget(StageOne(steps=None).resolve(), 10)


# ------------------------------------------------------------- the published training of g


def test_the_published_second_stage_learns_from_the_normals_of_stage_one(images: UInt8Image, tmp_path: Path) -> None:
    labels = [0] * 64 + [1] * 32
    detector = AnoMem(**TINY, stage_one__steps=3)
    detector.fit(images, labels, calibration="split", alpha=0.2)
    scorer = detector.scorer_
    assert isinstance(scorer, MultiScaleScorer)
    learnt = scorer.second_stage.learnt_deltas
    assert len(learnt) > len(scorer.tune_one_class)
    assert scorer.second_stage.weight == 1.0
    scores = detector.anomaly_score(images)
    assert scores[64:].mean() > scores[:64].mean()
    detector.save(tmp_path / "model")
    assert np.array_equal(anomem.load(tmp_path / "model").anomaly_score(images), scores)
