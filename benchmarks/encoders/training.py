"""Training of AnoMem's first stage on unlabelled images, and what is measured on the trained encoder."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from anomem.benchmark.image_sets import open_bench_set
from anomem.data.imageset import ImageSet
from anomem.detectors.anomem import AnoMem
from anomem.detectors.anomem.gradients import memory_gradients
from anomem.detectors.anomem.scorer import MultiScaleScorer
from anomem.detectors.anomem.stage_one import contrasted, train_stage_one
from anomem.fitting import Run, make_run, read_preprocessing
from anomem.nn.inference import feature_batches
from anomem.nn.views import ViewsOf
from anomem.runtime.progress import run_to_end

SMALL: dict[str, Any] = {
    "preset": "paper",
    "backbone": "resnet18",
    "width": 0.25,
    "stage_one.batch": 128,
    "stage_one.epochs": None,
    "stage_one.lr": 0.06,
    "stage_one.weight_decay": 5e-4,
}
"""Quarter-width ResNet-18 at 32 px: the paper's method at a size that a CPU trains in minutes."""

Classes = Sequence[str]
NEIGHBOURS = 20


@dataclass(frozen=True)
class Images:
    """Images of a set with their classes."""

    images: ImageSet
    classes: Classes

    def part(self, chosen: Any) -> Images:
        """Return the images at some positions."""
        return Images(self.images.subset(chosen), [self.classes[int(i)] for i in chosen])


@dataclass(frozen=True)
class Trained:
    """Encoder after the first stage.

    Parameters
    ----------
    scorer : MultiScaleScorer
    history : list of dict
        Figures of training, one entry per record.
    seconds : float
    """

    scorer: MultiScaleScorer
    history: list[dict[str, float]]
    seconds: float


def settled(arm: Mapping[str, Any], steps: int, seed: int, **given: Any) -> AnoMem:
    """Return the detector of an arm at the small size."""
    return AnoMem(**{**SMALL, "stage_one.steps": steps, "seed": seed, **given, **arm})


def prepared(name: str, detector: AnoMem, split: str, *, most: int | None = None) -> Images:
    """Open the training or test images of a set of classes, at most some of them, drawn once for all."""
    data = open_bench_set(name)
    found = data.choose(data.classes).train if split == "train" else data.test
    order = np.random.default_rng(0).permutation(len(found))[:most]
    images = ImageSet(found.source, read_preprocessing(detector.resolve()), workers=1).subset(order)
    return Images(images, [found.kinds[int(i)] for i in order])


def running(detector: AnoMem, device: str = "cpu", precision: str = "auto") -> Run[AnoMem]:
    """Return the circumstances of a fit."""
    return make_run(detector.resolve(), device=device, fit_precision=precision, batch_size=128, workers=1)


def trained(detector: AnoMem, learn: ImageSet, run: Run[AnoMem]) -> Trained:
    """Seed and train the first stage alone."""
    started, stage = time.perf_counter(), run.params.stage_one
    if stage is None:
        raise TypeError("an encoder without stage_one; give its parameters")
    scorer = detector._empty(run, learn.preprocessing.hw)
    run_to_end(detector._seed(scorer, learn.subset(range(min(len(learn), 2_000))), run))
    records = train_stage_one(scorer, learn, None, stage, run)
    history = [{"step": float(record.step), **{k: float(v) for k, v in record.facts.items()}} for record in records]
    return Trained(scorer, history, time.perf_counter() - started)


def facts_of(found: Trained, held_out: ImageSet, run: Run[AnoMem], *, batches: int = 4) -> dict[str, float]:
    """Return the memory's figures on views of held-out images, in training mode: means over some batches."""
    stage = run.params.stage_one
    if stage is None:
        raise TypeError("an encoder without stage_one; give its parameters")
    found.scorer.requires_grad_(False)
    for scale in found.scorer.memories():
        if scale.memory is not None:
            scale.memory.requires_grad_(True)
    model = contrasted(found.scorer, stage, run)
    model.bypassed = run.params.memory == "identity"
    found.scorer.backbone.train()
    views_of = ViewsOf(model, run.device, stage.views.augmentation(), shared_geometry=False, precision="float32")
    rows = []
    for batch, _ in zip(held_out.batches(stage.batch), range(batches), strict=False):
        if len(batch.images) == stage.batch:
            rows.append(memory_gradients(model, *views_of(batch.images)))
    found.scorer.backbone.eval()
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def pooled(scorer: MultiScaleScorer, images: ImageSet) -> Tensor:
    """Return the last map's mean per image, (N, C)."""
    maps = feature_batches(scorer.backbone, images, precision="float32", batch_size=256)
    return torch.cat([batch[-1].float().mean(dim=(2, 3)).cpu() for batch in maps])


def neighbour_accuracy(train: Tensor, train_classes: Classes, test: Tensor, test_classes: Classes) -> float:
    """Return the accuracy of the vote of the NEIGHBOURS nearest training images by cosine."""
    names = sorted(set(train_classes))
    numbers = torch.tensor([names.index(c) for c in train_classes])
    truth = torch.tensor([names.index(c) for c in test_classes])
    similarity = F.normalize(test, dim=1) @ F.normalize(train, dim=1).T
    votes = numbers[similarity.topk(NEIGHBOURS, dim=1).indices]
    counted = torch.stack([(votes == c).sum(dim=1) for c in range(len(names))], dim=1)
    return float((counted.argmax(dim=1) == truth).float().mean())


def effective_rank(features: Tensor) -> float:
    """Return exp of the entropy of the shares of variance of the principal axes."""
    values = torch.linalg.svdvals((features - features.mean(dim=0)).double()).square()
    return float(torch.exp(torch.special.entr(values / values.sum()).sum()))


def curve(history: Sequence[Mapping[str, float]], every: int = 50) -> Iterator[dict[str, float]]:
    """Yield the figures of some steps, rounded, without rates and times."""
    for row in history:
        if int(row["step"]) % every == 0 or row is history[-1]:
            yield {name: round(value, 4) for name, value in row.items() if name not in ("lr", "seconds")}
