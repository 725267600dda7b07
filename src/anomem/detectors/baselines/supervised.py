"""Classifier of labelled anomalies against normals, trained on balanced batches."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from operator import itemgetter
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anomem.data.augment import Augmentation, view
from anomem.data.imageset import ImageSet
from anomem.detector import Supervision
from anomem.detectors.baselines._hypersphere import draw_weights
from anomem.detectors.baselines._pooled import (
    MODEL,
    PRESET_DOC,
    WEIGHTS,
    NormalisedFeatures,
    NormalisedScorer,
    Pretrained,
    anomalous_vectors,
    learn_vectors,
)
from anomem.errors import InputError
from anomem.fitting import Labelled, Run
from anomem.nn.backbones import DEFAULT_BACKBONE, SMALL_STEM_BELOW, Backbone, load_backbone
from anomem.nn.endless import FullBatches, Mapped, Together
from anomem.nn.precision import without_autocast
from anomem.nn.scorer import Output, Scorer
from anomem.nn.views import Feed, unfreeze
from anomem.params import OneOf, Range, param, parameters
from anomem.training import Recipe, train
from anomem.types import Record

TRAINED_FROM = -2
"""Index of the feature map behind which a backbone's last stage begins."""
RATES = {"linear": 1e-2, "mlp": 1e-4, "backbone": 1e-4}
"""Peak learning rates of a head on frozen features, and of a backbone together with its head."""
POSITIVE = Range(0.0, low_open=True)
SHARE = Range(0.0, 1.0)


class SupervisedScorer(NormalisedScorer):
    """Log odds that an image is anomalous.

    Parameters
    ----------
    config : dict
        ``backbone`` (as for :class:`~anomem.nn.backbones.Backbone`), ``normalise``, ``dim``, and ``hidden``, the width
        of the head's hidden layer (None: a linear head).
    """

    def __init__(self, config: dict[str, Any], backbone: Backbone | None = None) -> None:
        super().__init__(config, backbone or Backbone(**config["backbone"]))
        dim, hidden = config["dim"], config["hidden"]
        self.head: nn.Module = nn.Linear(dim, 1)
        if hidden is not None:
            self.head = nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Linear(hidden, 1))

    def log_odds(self, vectors: Tensor) -> Tensor:
        """Return log odds of (B, D) normalised embeddings: (B,) float32."""
        with without_autocast(vectors.device):
            odds: Tensor = self.head(vectors)[:, 0]
        return odds

    def forward(self, images: Tensor) -> Output:
        """Score prepared images; no maps."""
        return Output(self.log_odds(self.vectors(images)))


PRESETS: dict[str, Mapping[str, Any]] = {
    **Pretrained.presets,
    "paper": {
        "size": 32,
        "aspect": "square",
        "backbone": "resnet50",
        "weights": None,
        "train_backbone": "all",
        "train_steps": 1500,
        "train_batch": 256,
        "lr": 1e-3,
        "weight_decay": 1e-4,
    },
}


@parameters
class Supervised(NormalisedFeatures):
    """Binary classifier of labelled anomalies against normals.

    Half of every batch is normal, half anomalous, whatever their numbers; the loss is binary cross entropy, and the
    anomaly score is the logit. It recognises anomalies like the labelled ones; others may be missed.

    References
    ----------
    The row "Supervised" of Table 1 in Jezequel et al., 2022: a classical deep classifier trained with batches balanced
    between normal images and anomalies.

    Examples
    --------
    >>> Supervised(train_backbone="last", train_steps=500)
    Supervised(train_backbone='last', train_steps=500)
    """

    name: ClassVar[str] = "supervised"
    supervision: ClassVar[Supervision] = "required"
    paper: ClassVar[str] = "Baseline of Jezequel et al., 2022, Table 1: a classifier trained on balanced batches"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = PRESETS
    test_params: ClassVar[dict[str, Any]] = {"size": 64, "max_items": 14, "train_steps": 40}

    preset: str = param("surface", OneOf(tuple(PRESETS)), doc=f"{PRESET_DOC}; paper: from scratch, at 32 pixels.")
    backbone: str = param(DEFAULT_BACKBONE, MODEL, doc="Backbone, a timm model.", preset=True)
    weights: str | None = param(
        "default",
        WEIGHTS,
        doc="Weights of the backbone; none: from scratch, residual networks of 64 px and less with a small stem.",
        optional=True,
        preset=True,
    )
    width: float = param(1.0, Range(0.05, 4.0), doc="Factor on the channels of a residual backbone.")
    head: str = param(
        "linear", OneOf(("linear", "mlp")), doc="Head on the embedding: logistic regression, or one hidden layer."
    )
    hidden: int = param(
        256, Range(1, 65536, integer=True), doc="Width of the hidden layer of head=mlp.", when="head=mlp"
    )
    train_backbone: str = param(
        "none",
        OneOf(("none", "last", "all")),
        doc="Layers of the backbone trained with the head, on augmented images; from scratch, all of them.",
        preset=True,
    )
    train_steps: int = param(300, Range(1, integer=True), doc="Optimiser steps.", preset=True)
    train_batch: int = param(64, Range(2, integer=True), doc="Images per step, half of them anomalous.", preset=True)
    lr: float | None = param(
        None,
        POSITIVE,
        doc="Peak learning rate of AdamW; none: 0.01 for a linear head, 1e-4 for an mlp or a trained backbone.",
        optional=True,
        preset=True,
    )
    weight_decay: float = param(0.01, Range(0.0), doc="Weight decay of AdamW.", preset=True)
    crop: float = param(
        0.5,
        Range(0.0, 1.0, low_open=True),
        doc="Minimum share of the area that a random crop keeps, where the backbone is trained.",
        when="train_backbone=last|all or weights=none",
    )
    flip: float = param(
        0.5,
        SHARE,
        doc="Probability of a horizontal flip, where the backbone is trained.",
        when="train_backbone=last|all or weights=none",
    )
    jitter: float = param(
        0.2,
        SHARE,
        doc="Strength of brightness, contrast and saturation jitter.",
        when="train_backbone=last|all or weights=none",
    )
    cache_mb: int = param(
        1024,
        Range(1, integer=True),
        doc="Memory for prepared images, where the backbone is trained, MB.",
        when="train_backbone=last|all or weights=none",
    )

    def _fit(
        self, learn: ImageSet, tune: ImageSet, labelled: Labelled | None, run: Run[Self]
    ) -> Generator[Record, None, Scorer]:
        if labelled is None:
            raise InputError("y: no labelled anomalies, which supervised learns from; label some (y = 1)")
        p = run.params
        trained = "all" if p.weights is None else p.train_backbone
        scorer = self._empty(trained, run)
        rate = p.lr or RATES[p.head if trained == "none" else "backbone"]
        recipe = Recipe(p.train_steps, rate, "adamw", p.weight_decay)
        if trained == "none":
            normals = yield from learn_vectors(scorer, learn, run)
            anomalies = yield from anomalous_vectors(scorer, labelled, run)
            yield from _train_head(scorer, normals, anomalies, recipe, run)
        else:
            if p.weights is not None:
                yield from learn_vectors(scorer, learn, run)
            yield from _train_whole(scorer, trained, learn, labelled.anomalies(), recipe, run)
        return scorer

    def _empty(self, trained: str, run: Run[Supervised]) -> SupervisedScorer:
        p = run.params
        from_scratch = p.weights is None
        options: dict[str, Any] = {
            "name": p.backbone,
            "stages": [TRAINED_FROM],
            "embedding": True,
            "width": p.width,
            "small_stem": from_scratch
            and p.size <= SMALL_STEM_BELOW
            and p.backbone.startswith(("resnet", "wide_resnet")),
            "folded": trained == "none",
        }
        backbone = load_backbone(**options, weights=p.weights).eval().requires_grad_(False).to(run.device)
        config = {
            "backbone": options,
            # From scratch, statistics of embeddings before the training say nothing about those after it.
            "normalise": "raw" if from_scratch else p.normalise,
            "dim": backbone.describe(p.size)[-1].channels,
            "hidden": p.hidden if p.head == "mlp" else None,
        }
        scorer = SupervisedScorer(config, backbone)
        draw_weights(scorer.head, run.rng)
        return scorer

    @classmethod
    def _build(cls, config: dict[str, Any]) -> Scorer:
        return SupervisedScorer(config)


def balanced_loss(log_odds: Tensor) -> Tensor:
    """Return the binary cross entropy of (2B,) log odds, the first half normal, the second anomalous."""
    targets = (torch.arange(len(log_odds), device=log_odds.device) >= len(log_odds) // 2).float()
    return F.binary_cross_entropy_with_logits(log_odds, targets)


def _train_head(
    scorer: SupervisedScorer, normals: Tensor, anomalies: Tensor, recipe: Recipe, run: Run[Supervised]
) -> Generator[Record, None, None]:
    """Train the head on frozen embeddings."""
    half = run.params.train_batch // 2
    scorer.to(run.device).head.requires_grad_(True)
    classes = [normals.to(run.device), anomalies.to(run.device)]

    def drawn() -> Iterator[Tensor]:
        while True:
            rows = [torch.randint(len(c), (half,), generator=run.rng) for c in classes]
            yield torch.cat([c[r.to(run.device)] for c, r in zip(classes, rows, strict=True)])

    def loss(batch: Tensor) -> tuple[Tensor, Mapping[str, float]]:
        return balanced_loss(scorer.log_odds(batch)), {}

    yield from train(scorer.head, loss, drawn(), recipe, device=run.device, stage="head", rng=run.rng)


def _train_whole(
    scorer: SupervisedScorer, trained: str, learn: ImageSet, anomalies: ImageSet, recipe: Recipe, run: Run[Supervised]
) -> Generator[Record, None, None]:
    """Train the head and the backbone layers named by `trained` on augmented images."""
    p = run.params
    half = p.train_batch // 2
    scorer.to(run.device).head.requires_grad_(True)
    unfreeze(scorer.backbone, trained)
    # Pretrained batch statistics come from far more images than a fit has; only a backbone from scratch learns its own.
    scorer.backbone.train(p.weights is None)
    augmentation = Augmentation(
        crop_scale=(p.crop, 1.0),
        flip=p.flip,
        brightness=p.jitter,
        contrast=p.jitter,
        saturation=p.jitter,
        blur=0.0,
        noise=0.0,
    )
    feeds = [Feed(images, None, half, p.cache_mb, run.rng) for images in (learn, anomalies)]
    batches = Together(*(FullBatches(Mapped(itemgetter(0), feed), half) for feed in feeds))

    def loss(batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Mapping[str, float]]:
        with without_autocast(run.device):
            images = view(torch.cat(batch).to(run.device).float() / 255, augmentation, generator=run.rng)
        return balanced_loss(scorer(images * 255).score), {}

    options: dict[str, Any] = {"device": run.device, "precision": run.fit_precision, "rng": run.rng}
    yield from train(scorer, loss, batches, recipe, **options, stage="backbone and head")
    scorer.backbone.eval()
