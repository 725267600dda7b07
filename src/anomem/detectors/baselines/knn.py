"""k nearest neighbours on frozen pooled features (DN2)."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from anomem.data.imageset import ImageSet
from anomem.detector import Detector, Supervision
from anomem.fitting import Labelled, Run
from anomem.nn.backbones import DEFAULT_BACKBONE, Backbone, load_backbone
from anomem.nn.features import feature_batches
from anomem.nn.kernel_ridge import squared_distances
from anomem.nn.sampling import VectorSample
from anomem.nn.scorer import Output, Scorer
from anomem.params import Either, OneOf, Range, Text, param
from anomem.types import Record


class KNNScorer(Scorer):
    """Sum of the k smallest squared distances from an image's embedding to those of normal images.

    Parameters
    ----------
    config : dict
        ``backbone``, ``k``, ``metric``, and the bank's shape ``n``, ``dim``.
    """

    bank: Tensor

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self.backbone = Backbone(config["backbone"], stages=(-1,), embedding=True, folded=True)
        self.register_buffer("bank", torch.zeros(config["n"], config["dim"]))

    def embed(self, features: list[Tensor]) -> Tensor:
        """Pooled embeddings (B, D) float32, of unit norm for the cosine metric."""
        pooled = features[-1].float().flatten(1)
        return F.normalize(pooled, dim=1) if self.config["metric"] == "cosine" else pooled

    def forward(self, images: Tensor) -> Output:
        """Score prepared images; no maps."""
        vectors = self.embed(self.backbone(images))
        with torch.autocast(vectors.device.type, enabled=False):
            squared = squared_distances(vectors, self.bank)
        return Output(squared.topk(self.config["k"], dim=1, largest=False).values.sum(dim=1))


@dataclass(kw_only=True, repr=False, eq=False)
class KNN(Detector):
    """k nearest neighbours on frozen pooled features (DN2).

    The anomaly score is the sum of the squared L2 distances to the k nearest normal embeddings.

    Parameters
    ----------
    preset : {"surface", "object"}
        Input size: 224 or 160 pixels.
    backbone, weights
        As for :func:`~anomem.nn.backbones.load_backbone`.
    k : int, default 2
        Neighbours.
    metric : {"euclidean", "cosine"}
        Distance between raw, or between unit-norm embeddings.
    max_items : int, default 16384
        Embeddings kept at most, drawn uniformly, so that memory and file stay bounded.

    References
    ----------
    Bergman, Cohen and Hoshen, "Deep Nearest Neighbor Anomaly Detection", 2020.
    """

    name: ClassVar[str] = "knn"
    supervision: ClassVar[Supervision] = "none"
    localizes: ClassVar[bool] = False
    paper: ClassVar[str] = "Bergman et al., Deep Nearest Neighbor Anomaly Detection, 2020"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"surface": {"size": 224}, "object": {"size": 160}}
    test_params: ClassVar[dict[str, Any]] = {"size": 64, "max_items": 14}

    size: int | None = param(None, Range(16, 4096, integer=True), doc="Input side, pixels.", preset=True)
    preset: str = param("surface", OneOf(("surface", "object")), doc="Named set of parameters.")
    backbone: str = param(DEFAULT_BACKBONE, Text("a timm model's name"), doc="A timm model.")
    weights: str | None = param(
        "default", Either((Text("default, a file or a timm tag"),)), doc="Its weights.", optional=True
    )
    k: int = param(2, Range(1, 1000, integer=True), doc="Neighbours.")
    metric: str = param("euclidean", OneOf(("euclidean", "cosine")), doc="Distance between embeddings.")
    max_items: int = param(16384, Range(1, integer=True), doc="Embeddings kept at most.")

    def _fit(
        self, learn: ImageSet, tune: ImageSet, labelled: Labelled | None, run: Run
    ) -> Generator[Record, None, Scorer]:
        p = run.params
        backbone = (
            load_backbone(p.backbone, (-1,), weights=p.weights, embedding=True, folded=True).eval().to(run.device)
        )
        config = {"backbone": p.backbone, "k": p.k, "metric": p.metric, "n": 0, "dim": 0}
        scorer = KNNScorer(config)
        scorer.backbone = backbone
        sample, done = VectorSample(p.max_items, run.rng), 0
        for features in feature_batches(backbone, learn, precision=run.fit_precision, batch_size=run.batch_size):
            sample.add(scorer.embed(features)[:, :, None, None])
            done += len(features[-1])
            yield Record("features", done, max(done, len(learn)))
        scorer.bank = sample.result()[0].to(run.device)
        config.update(n=len(scorer.bank), dim=scorer.bank.shape[1], k=min(p.k, len(scorer.bank)))
        return scorer

    @classmethod
    def _build(cls, config: dict[str, Any]) -> Scorer:
        return KNNScorer(config)
