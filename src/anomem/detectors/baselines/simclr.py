"""SimCLR and a one-class score: an encoder trained contrastively on normal images, without a memory."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anomem.data.augment import Augmentation
from anomem.data.imageset import ImageSet
from anomem.detector import Supervision
from anomem.detectors.baselines._one_class import (
    ClusterGaussians,
    NearestVectors,
    gaussians_of,
    nearest_of,
    prototypes_of,
)
from anomem.detectors.baselines._pooled import PooledFeatures, PooledScorer, sample_embeddings
from anomem.fitting import Labelled, Run
from anomem.nn.backbones import SMALL_STEM_BELOW, Backbone, load_backbone
from anomem.nn.contrastive_loss import nt_xent
from anomem.nn.scorer import Output, Scorer
from anomem.nn.views import Feed, ViewsOf, projection_head, unfreeze
from anomem.params import OneOf, Range, param
from anomem.training import Recipe, train
from anomem.types import Record

POSITIVE = Range(0.0, low_open=True)
SHARE = Range(0.0, 1.0)
TRAINED_FROM = -2
"""What follows this feature map is "the last stage": of residual networks the fourth, of EfficientNet-Lite0 all behind
stride 16."""


class SimCLRScorer(PooledScorer):
    """A one-class score of an encoder's pooled embedding.

    Parameters
    ----------
    config : dict
        ``backbone`` (as for :class:`~anomem.nn.backbones.Backbone`), ``metric``, ``dim``, and of the score: for
        "mahalanobis" ``n_clusters``, else ``n`` and ``k``.
    backbone : Backbone, optional
        Instead of an empty one.
    """

    def __init__(self, config: dict[str, Any], backbone: Backbone | None = None) -> None:
        super().__init__(config, backbone or Backbone(**config["backbone"]))
        self.one_class: nn.Module
        if "n_clusters" in config:
            self.one_class = ClusterGaussians(config["n_clusters"], config["dim"])
        else:
            self.one_class = NearestVectors(config["n"], config["dim"], config["k"])

    def embed(self, features: list[Tensor]) -> Tensor:
        """Pooled embeddings (B, D) float32, of unit norm for the cosine metric."""
        pooled = super().embed(features)
        return F.normalize(pooled, dim=1) if self.config["metric"] == "cosine" else pooled

    def forward(self, images: Tensor) -> Output:
        """Score prepared images; no maps."""
        vectors = self.embed(self.backbone(images))
        with torch.autocast(vectors.device.type, enabled=False):
            return Output(self.one_class(vectors))


class ContrastedEncoder(nn.Module):
    """An encoder with SimCLR's projection head, as it is trained on two views of each image.

    Parameters
    ----------
    backbone : Backbone
        Its embedding is what is contrasted; parameters that do not require a gradient stay frozen.
    dim : int
        Length of the embedding.
    projection_dim : int or None
        Output width of the two-layer head; None: the embedding itself is contrasted.
    temperature : float, > 0
        tau.
    rng : torch.Generator
        Draws the views.
    """

    def __init__(
        self, backbone: Backbone, dim: int, *, projection_dim: int | None, temperature: float, rng: torch.Generator
    ) -> None:
        super().__init__()
        self.backbone, self.temperature, self.rng = backbone, temperature, rng
        self.head = nn.Identity() if projection_dim is None else projection_head(dim, projection_dim)

    def features(self, images: Tensor) -> list[Tensor]:
        """The backbone's maps of images (B, 3, S, S) with values 0 to 255, the embedding last."""
        return self.backbone(images)  # type: ignore[no-any-return]

    def embed(self, features: Sequence[Tensor]) -> list[Tensor]:
        """One map: the projected embedding, (B, d, 1, 1)."""
        projected: Tensor = self.head(features[-1].flatten(1))
        return [projected[:, :, None, None]]

    def loss(self, first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
        """NT-Xent of both views' projections."""
        anchor, other = (view[0].flatten(1)[None] for view in (first, second))
        return nt_xent(anchor, other, self.temperature)


@dataclass(kw_only=True, repr=False, eq=False)
class SimCLR(PooledFeatures):
    """SimCLR and a one-class score: contrastive learning without a memory.

    The encoder learns on normal images to recognise two views of one image among those of all others; the head is then
    dropped, and an image is scored by where its pooled embedding lies among the normal ones. What a memory adds to
    contrastive learning is the difference between AnoMem and this.

    Parameters
    ----------
    preset : {"surface", "object"}
        Input size: 224 or 160 pixels.
    backbone, weights
        As for :func:`~anomem.nn.backbones.load_backbone`. None: from scratch, with a small stem for residual networks
        at 64 px and less.
    width : float, default 1.0
        Multiplies the channels of a residual backbone.
    one_class : {"knn", "mahalanobis", "kmeans"}
        Sum of the squared distances to the k nearest normal embeddings; squared Mahalanobis distance (SSD); squared
        distance to the nearest k-means centre.
    metric : {"cosine", "euclidean"}
        Whether embeddings are scaled to unit norm before any of the three.
    k : int, default 2
        Neighbours of "knn".
    n_prototypes : int, default 256
        Centres of "kmeans".
    n_clusters : int, default 1
        Gaussians of "mahalanobis", one for each k-means cluster (m of SSD).
    shrinkage : float, default 0.01
        Of their covariances.
    max_items : int, default 16384
        Embeddings kept (or fitted to) at most, drawn uniformly.
    train_steps : int, default 40
        Optimiser steps; 0: the backbone as it comes.
    train_backbone : {"last", "all", "none"}
        What is trained of a pretrained backbone: what follows its last but one feature map, everything, or nothing
        (``train_steps`` then has no say). A backbone from scratch is always trained whole.
    train_batch : int, default 32
        Images a step (two views each).
    lr : float or None, default None
        Peak rate of SGD with Nesterov momentum and one cosine. None: 0.03 from scratch and 0.0003 on a pretrained
        backbone, whose embeddings have no batch normalisation and coincide after a few steps at 0.01.
    weight_decay : float
        L2.
    temperature : float, default 0.1
        tau of NT-Xent.
    projection_dim : int or None, default 128
        Output width of the projection head; None: no head.
    crop, flip, brightness, contrast_jitter, saturation, hue, grey, blur, noise : float
        Strengths of the views. The defaults are AnoMem's, so that the two differ by the memory alone; SimCLR has
        crop 0.08, hue 0.1, grey 0.2 and no noise.
    cache_mb : int, default 1024
        Prepared images are kept in memory up to this; beyond it they are decoded again every epoch.

    References
    ----------
    Chen, Kornblith, Norouzi and Hinton, "A Simple Framework for Contrastive Learning of Visual Representations", ICML
    2020; Sehwag, Chiang and Mittal, "SSD: A Unified Framework for Self-Supervised Outlier Detection", ICLR 2021.

    Examples
    --------
    >>> SimCLR(one_class="mahalanobis", train_steps=500)
    SimCLR(one_class='mahalanobis', train_steps=500)
    """

    name: ClassVar[str] = "simclr"
    supervision: ClassVar[Supervision] = "none"
    paper: ClassVar[str] = "Chen et al., A Simple Framework for Contrastive Learning, 2020; Sehwag et al., SSD, 2021"
    test_params: ClassVar[dict[str, Any]] = {"size": 64, "max_items": 14, "train_steps": 2, "train_batch": 2}

    width: float = param(1.0, Range(0.05, 4.0), doc="Multiplies a residual backbone's channels.")
    one_class: str = param("knn", OneOf(("knn", "mahalanobis", "kmeans")), doc="One-class score of an embedding.")
    metric: str = param("cosine", OneOf(("cosine", "euclidean")), doc="Unit-norm embeddings, or as they are.")
    k: int = param(2, Range(1, 1000, integer=True), doc="Neighbours of knn.")
    n_prototypes: int = param(256, Range(1, 65536, integer=True), doc="Centres of kmeans.")
    n_clusters: int = param(1, Range(1, 64, integer=True), doc="Gaussians of mahalanobis.")
    shrinkage: float = param(0.01, SHARE, doc="Of the covariances of mahalanobis.")
    train_steps: int = param(40, Range(0, integer=True), doc="Optimiser steps.")
    train_backbone: str = param("last", OneOf(("last", "all", "none")), doc="What is trained of the backbone.")
    train_batch: int = param(32, Range(2, integer=True), doc="Images a step.")
    lr: float | None = param(
        None, POSITIVE, doc="Peak learning rate; none: 0.0003 pretrained, 0.03 from scratch.", optional=True
    )
    weight_decay: float = param(5e-4, Range(0.0), doc="Weight decay.")
    temperature: float = param(0.1, POSITIVE, doc="tau of NT-Xent.")
    projection_dim: int | None = param(128, Range(1, integer=True), doc="Projection head.", optional=True)
    crop: float = param(0.2, Range(0.0, 1.0, low_open=True), doc="Smallest share of the area that a crop keeps.")
    flip: float = param(0.5, SHARE, doc="Chance of a horizontal flip.")
    brightness: float = param(0.4, SHARE, doc="Strength of brightness jitter.")
    contrast_jitter: float = param(0.4, SHARE, doc="Strength of contrast jitter.")
    saturation: float = param(0.4, SHARE, doc="Strength of saturation jitter.")
    hue: float = param(0.0, Range(0.0, 0.5), doc="Strength of hue jitter.")
    grey: float = param(0.0, SHARE, doc="Chance of grey.")
    blur: float = param(0.5, SHARE, doc="Chance of a Gaussian blur.")
    noise: float = param(0.02, SHARE, doc="Standard deviation of noise.")
    cache_mb: int = param(1024, Range(1, integer=True), doc="Memory for prepared images, MB.")

    def _fit(
        self, learn: ImageSet, tune: ImageSet, labelled: Labelled | None, run: Run
    ) -> Generator[Record, None, Scorer]:
        p = run.params
        from_scratch = p.weights is None
        residual = p.backbone.startswith(("resnet", "wide_resnet"))
        options = {
            "name": p.backbone,
            "stages": [TRAINED_FROM],
            "embedding": True,
            "width": p.width,
            "small_stem": from_scratch and p.size <= SMALL_STEM_BELOW and residual,
            "folded": not from_scratch,
        }
        backbone = load_backbone(**options, weights=p.weights).eval().to(run.device)
        config = {"backbone": options, "metric": p.metric, "dim": backbone.describe(p.size)[-1].channels}
        if p.train_steps and (from_scratch or p.train_backbone != "none"):
            yield from self._train(backbone, config["dim"], learn, run)
        scorer = SimCLRScorer({**config, "n": 1, "k": 1}, backbone.eval().requires_grad_(False))
        # In the precision that the model scores in: where normals hardly vary, rounding would pass for a deviation.
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

    def _train(self, backbone: Backbone, dim: int, learn: ImageSet, run: Run) -> Generator[Record, None, None]:
        p = run.params
        from_scratch = p.weights is None
        unfreeze(backbone, "all" if from_scratch else p.train_backbone)
        model = ContrastedEncoder(
            backbone, dim, projection_dim=p.projection_dim, temperature=p.temperature, rng=run.rng
        ).to(run.device)
        # A folded backbone has no batch statistics; only one from scratch learns its own.
        backbone.train(from_scratch)
        augmentation = Augmentation(
            crop_scale=(p.crop, 1.0),
            flip=p.flip,
            brightness=p.brightness,
            contrast=p.contrast_jitter,
            saturation=p.saturation,
            hue=p.hue,
            grey=p.grey,
            blur=p.blur,
            noise=p.noise,
        )
        # On a processor, gradients of bfloat16 convolutions take nearly twice as long as float32's.
        precision = "float32" if run.device.type == "cpu" else run.fit_precision
        views_of = ViewsOf(model, run.device, augmentation, shared_geometry=False, precision=precision)

        def loss(batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Mapping[str, float]]:
            return model.loss(*views_of(batch[0])), {}

        feed = Feed(learn, None, p.train_batch, p.cache_mb, run.rng)
        rate = p.lr or (0.03 if from_scratch else 0.0003)
        recipe = Recipe(p.train_steps, rate, weight_decay=p.weight_decay)
        yield from train(
            model, loss, feed, recipe, device=run.device, precision=precision, stage="contrastive training"
        )

    @classmethod
    def _build(cls, config: dict[str, Any]) -> Scorer:
        return SimCLRScorer(config)
