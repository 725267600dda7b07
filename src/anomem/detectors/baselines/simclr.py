"""SimCLR and a one-class score: an encoder trained contrastively on normal images, without a memory."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anomem.data.imageset import ImageSet
from anomem.detector import Supervision
from anomem.detectors.baselines._one_class import (
    ClusterGaussians,
    NearestVectors,
    gaussians_of,
    nearest_of,
    prototypes_of,
)
from anomem.detectors.baselines._pooled import (
    MODEL,
    PRESET_DOC,
    WEIGHTS,
    PooledFeatures,
    PooledScorer,
    Pretrained,
    sample_embeddings,
)
from anomem.fitting import Labelled, Run
from anomem.nn.backbones import DEFAULT_BACKBONE, SMALL_STEM_BELOW, Backbone, load_backbone
from anomem.nn.contrastive_loss import nt_xent
from anomem.nn.precision import without_autocast
from anomem.nn.scorer import Output, Scorer
from anomem.nn.views import MOVED_VIEWS, Feed, Views, ViewsOf, projection_head, unfreeze
from anomem.params import OneOf, Parameters, Range, group, param, parameter_group, parameters
from anomem.training import Recipe, train
from anomem.types import Record

POSITIVE = Range(0.0, low_open=True)
SHARE = Range(0.0, 1.0)
TRAINED_FROM = -2
"""Feature map before "the last stage": for residual networks the fourth stage, for EfficientNet-Lite0 all layers behind
stride 16."""


class SimCLRScorer(PooledScorer):
    """One-class score of an encoder's pooled embedding.

    Parameters
    ----------
    config : dict
        ``backbone`` (as for :class:`~anomem.nn.backbones.Backbone`), ``metric``, ``dim``, and of the score: for
        "mahalanobis" ``n_clusters``, else ``n`` and ``k``.
    backbone : Backbone, optional
        Backbone with its weights; by default an empty one.
    """

    def __init__(self, config: dict[str, Any], backbone: Backbone | None = None) -> None:
        super().__init__(config, backbone or Backbone(**config["backbone"]))
        self.one_class: nn.Module
        if "n_clusters" in config:
            self.one_class = ClusterGaussians(config["n_clusters"], config["dim"])
        else:
            self.one_class = NearestVectors(config["n"], config["dim"], config["k"])

    def embed(self, features: list[Tensor]) -> Tensor:
        """Return pooled embeddings (B, D) float32, of unit norm for the cosine metric."""
        pooled = super().embed(features)
        return F.normalize(pooled, dim=1) if self.config["metric"] == "cosine" else pooled

    def forward(self, images: Tensor) -> Output:
        """Score prepared images; no maps."""
        vectors = self.embed(self.backbone(images))
        with without_autocast(vectors.device):
            return Output(self.one_class(vectors))


class ContrastedEncoder(nn.Module):
    """Encoder with SimCLR's projection head, as trained on two views per image.

    Parameters
    ----------
    backbone : Backbone
        Backbone whose embedding is contrasted; parameters that do not require a gradient stay frozen.
    dim : int
        Length of the embedding.
    projection_dim : int or None
        Output width of the two-layer head; None: the embedding itself is contrasted.
    temperature : float, > 0
        tau.
    rng : torch.Generator
        Generator of the views.
    """

    def __init__(
        self, backbone: Backbone, dim: int, *, projection_dim: int | None, temperature: float, rng: torch.Generator
    ) -> None:
        super().__init__()
        self.backbone, self.temperature, self.rng = backbone, temperature, rng
        self.head = nn.Identity() if projection_dim is None else projection_head(dim, projection_dim)

    def features(self, images: Tensor) -> list[Tensor]:
        """Return the backbone's maps of images (B, 3, S, S) with values 0 to 255, the embedding last."""
        return self.backbone(images)  # type: ignore[no-any-return]

    def embed(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Return one map: the projected embedding, (B, d, 1, 1)."""
        projected: Tensor = self.head(features[-1].flatten(1))
        return [projected[:, :, None, None]]

    def loss(self, first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
        """Return NT-Xent of both views' projections."""
        anchor, other = (view[0].flatten(1)[None] for view in (first, second))
        return nt_xent(anchor, other, self.temperature)


@parameter_group
class Training(Parameters):
    """Contrastive training of SimCLR's encoder."""

    steps: int = param(40, Range(1, integer=True), doc="Optimiser steps.", preset=True)
    train_backbone: str = param(
        "last",
        OneOf(("last", "all", "none")),
        doc="Trained layers of a pretrained backbone: those behind its last but one feature map, all, or none (no "
        "training). A backbone from scratch is trained whole.",
        preset=True,
    )
    batch: int = param(32, Range(2, integer=True), doc="Images per step (two views each).", preset=True)
    lr: float | None = param(
        None,
        POSITIVE,
        doc="Peak learning rate of SGD with Nesterov momentum and one cosine; none: 0.0003 on a pretrained backbone, "
        "whose embeddings coincide after a few steps at 0.01, and 0.03 from scratch.",
        optional=True,
        preset=True,
    )
    weight_decay: float = param(5e-4, Range(0.0), doc="Weight decay (L2).", preset=True)
    temperature: float = param(0.1, POSITIVE, doc="Temperature tau of NT-Xent.")
    projection_dim: int | None = param(
        128, Range(1, integer=True), doc="Output width of the two-layer projection head; none: no head.", optional=True
    )
    views: Views = group(Views, doc="Strengths of the views; the defaults are AnoMem's.")
    cache_mb: int = param(1024, Range(1, integer=True), doc="Memory for prepared images, MB.")


MOVED = {
    "train_steps": "training.steps",
    "train_backbone": "training.train_backbone",
    "train_batch": "training.batch",
    "lr": "training.lr",
    "weight_decay": "training.weight_decay",
    "temperature": "training.temperature",
    "projection_dim": "training.projection_dim",
    **{name: f"training.views.{member}" for name, member in MOVED_VIEWS.items()},
    "cache_mb": "training.cache_mb",
}
"""Map from former names to names within their group."""

# Budget and rates of AnoMem's paper preset: this is its control without a memory.
PRESETS: dict[str, Mapping[str, Any]] = {
    **Pretrained.presets,
    "paper": {
        "size": 32,
        "aspect": "square",
        "backbone": "resnet50",
        "weights": None,
        "training.steps": 1500,
        "training.train_backbone": "all",
        "training.batch": 1024,
        "training.lr": 1.0,
        "training.weight_decay": 1e-4,
    },
}


@parameters
class SimCLR(PooledFeatures):
    """SimCLR and a one-class score: contrastive learning without a memory.

    The encoder learns on normal images to recognise two views of one image among those of all others; the head is then
    dropped, and an image is scored by the position of its pooled embedding among the normal ones. The gain of a memory
    over contrastive learning is the difference between AnoMem and this method.

    References
    ----------
    Chen, Kornblith, Norouzi and Hinton, "A Simple Framework for Contrastive Learning of Visual Representations", ICML
    2020; Sehwag, Chiang and Mittal, "SSD: A Unified Framework for Self-Supervised Outlier Detection", ICLR 2021.

    Examples
    --------
    >>> SimCLR(one_class="mahalanobis", training=Training(steps=500))
    SimCLR(one_class='mahalanobis', training=Training(steps=500))
    """

    name: ClassVar[str] = "simclr"
    supervision: ClassVar[Supervision] = "none"
    paper: ClassVar[str] = "Chen et al., A Simple Framework for Contrastive Learning, 2020; Sehwag et al., SSD, 2021"
    test_params: ClassVar[dict[str, Any]] = {"size": 64, "max_items": 14, "training.steps": 2, "training.batch": 2}

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = PRESETS
    moved: ClassVar[Mapping[str, str]] = MOVED

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
    one_class: str = param(
        "knn",
        OneOf(("knn", "mahalanobis", "kmeans")),
        doc="Score of an embedding: sum of the squared distances to the k nearest normal ones, squared Mahalanobis "
        "distance (SSD), or squared distance to the nearest k-means centre.",
    )
    metric: str = param(
        "cosine",
        OneOf(("cosine", "euclidean")),
        doc="Metric of the embeddings: on unit norm (cosine), or raw (euclidean).",
    )
    k: int = param(2, Range(1, 1000, integer=True), doc="Number of neighbours of one_class=knn.", when="one_class=knn")
    n_prototypes: int = param(
        256, Range(1, 65536, integer=True), doc="Number of centres of one_class=kmeans.", when="one_class=kmeans"
    )
    n_clusters: int = param(
        1,
        Range(1, 64, integer=True),
        doc="Number of Gaussians of one_class=mahalanobis, one per k-means cluster.",
        when="one_class=mahalanobis",
    )
    shrinkage: float = param(
        0.01, SHARE, doc="Shrinkage of the covariances of one_class=mahalanobis.", when="one_class=mahalanobis"
    )
    training: Training | None = group(
        Training, doc="Contrastive training; none: the backbone is not trained.", optional=True, off=("train_steps", 0)
    )

    def _fit(
        self, learn: ImageSet, tune: ImageSet, labelled: Labelled | None, run: Run[Self]
    ) -> Generator[Record, None, Scorer]:
        p = run.params
        from_scratch = p.weights is None
        residual = p.backbone.startswith(("resnet", "wide_resnet"))
        options: dict[str, Any] = {
            "name": p.backbone,
            "stages": [TRAINED_FROM],
            "embedding": True,
            "width": p.width,
            "small_stem": from_scratch and p.size <= SMALL_STEM_BELOW and residual,
            "folded": not from_scratch,
        }
        backbone = load_backbone(**options, weights=p.weights).eval().to(run.device)
        config: dict[str, Any] = {
            "backbone": options,
            "metric": p.metric,
            "dim": backbone.describe(p.size)[-1].channels,
        }
        if p.training is not None and (from_scratch or p.training.train_backbone != "none"):
            yield from self._train(backbone, config["dim"], learn, p.training, run)
        scorer = SimCLRScorer({**config, "n": 1, "k": 1}, backbone.eval().requires_grad_(False))
        # Precision of scoring: where normals hardly vary, rounding would be mistaken for a deviation.
        alike = replace(run, fit_precision=p.precision)
        vectors = yield from sample_embeddings(scorer, learn, alike, limit=p.max_items)
        if p.one_class == "mahalanobis":
            gaussians = gaussians_of(vectors, p.n_clusters, p.shrinkage, run.rng)
            scorer.one_class, shapes = gaussians, {"n_clusters": len(gaussians.means)}
        else:
            knn = p.one_class == "knn"
            nearest = nearest_of(vectors, p.k) if knn else prototypes_of(vectors, p.n_prototypes, run.rng)
            scorer.one_class, shapes = nearest, {"n": len(nearest.bank), "k": nearest.k}
        scorer.config = {**config, **shapes}
        return scorer.to(run.device)

    def _train(
        self, backbone: Backbone, dim: int, learn: ImageSet, p: Training, run: Run[Self]
    ) -> Generator[Record, None, None]:
        from_scratch = run.params.weights is None
        unfreeze(backbone, "all" if from_scratch else p.train_backbone)
        model = ContrastedEncoder(
            backbone, dim, projection_dim=p.projection_dim, temperature=p.temperature, rng=run.rng
        ).to(run.device)
        # A folded backbone has no batch statistics; only one from scratch learns its own.
        backbone.train(from_scratch)
        # On a processor, gradients of bfloat16 convolutions take nearly twice as long as float32's.
        precision = "float32" if run.device.type == "cpu" else run.fit_precision
        views_of = ViewsOf(model, run.device, p.views.augmentation(), shared_geometry=False, precision=precision)

        def loss(batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Mapping[str, float]]:
            return model.loss(*views_of(batch[0])), {}

        feed = Feed(learn, None, p.batch, p.cache_mb, run.rng)
        rate = p.lr or (0.03 if from_scratch else 0.0003)
        recipe = Recipe(p.steps, rate, weight_decay=p.weight_decay)
        yield from train(
            model, loss, feed, recipe, device=run.device, precision=precision, stage="contrastive training", rng=run.rng
        )

    @classmethod
    def _build(cls, config: dict[str, Any]) -> Scorer:
        return SimCLRScorer(config)
