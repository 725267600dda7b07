"""k nearest neighbours on frozen pooled features (DN2)."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from anomem.cross_fitting import ClosedForm
from anomem.data.imageset import ImageSet
from anomem.detector import Supervision
from anomem.detectors.baselines._pooled import PooledFeatures, PooledScorer, load_pooled, own, sample_embeddings
from anomem.fitting import Labelled, Run
from anomem.nn.backbones import Backbone
from anomem.nn.kernel_ridge import squared_distances
from anomem.nn.precision import without_autocast
from anomem.nn.scorer import Deviation, MapScorer, Output, Scorer
from anomem.params import OneOf, Range, param, parameters
from anomem.types import Record


class KNNScorer(PooledScorer):
    """Sum of the k smallest squared distances from an image's embedding to those of normal images.

    Parameters
    ----------
    config : dict
        ``backbone``, ``k``, ``metric``, and the bank's shape ``n``, ``dim``.
    """

    bank: Tensor

    def __init__(self, config: dict[str, Any], backbone: Backbone | None = None) -> None:
        super().__init__(config, backbone)
        self.register_buffer("bank", torch.zeros(config["n"], config["dim"]))

    def embed(self, features: list[Tensor]) -> Tensor:
        """Return pooled embeddings (B, D) float32, of unit norm for the cosine metric."""
        pooled = super().embed(features)
        return F.normalize(pooled, dim=1) if self.config["metric"] == "cosine" else pooled

    def forward(self, images: Tensor) -> Output:
        """Score prepared images; no maps."""
        return self.fuse(self.deviation_of(self.backbone(images)).norms)

    def deviation_of(self, maps: list[Tensor]) -> Deviation:
        """Return the sum of distances, (B,)."""
        vectors = self.embed(maps)
        with without_autocast(vectors.device):
            squared = squared_distances(vectors, self.bank)
            return Deviation([squared.topk(self.config["k"], dim=1, largest=False).values.sum(dim=1)])


@parameters
class KNN(PooledFeatures, ClosedForm):
    """k nearest neighbours on frozen pooled features (DN2).

    The anomaly score is the sum of the squared L2 distances to the k nearest normal embeddings.

    References
    ----------
    Bergman, Cohen and Hoshen, "Deep Nearest Neighbor Anomaly Detection", 2020.
    """

    name: ClassVar[str] = "knn"
    supervision: ClassVar[Supervision] = "none"
    paper: ClassVar[str] = "Bergman et al., Deep Nearest Neighbor Anomaly Detection, 2020"
    test_params: ClassVar[dict[str, Any]] = {"size": 64, "max_items": 14}

    k: int = param(2, Range(1, 1000, integer=True), doc="Number of nearest neighbours.")
    metric: str = param(
        "euclidean", OneOf(("euclidean", "cosine")), doc="Distance between raw, or between unit-norm embeddings."
    )

    def _fit(
        self, learn: ImageSet, tune: ImageSet, labelled: Labelled | None, run: Run[Self]
    ) -> Generator[Record, None, Scorer]:
        scorer = self._empty(run, learn.preprocessing.hw)
        yield from self._memorise(scorer, learn, run)
        return scorer

    def _empty(self, run: Run[Self], hw: tuple[int, int], backbone: Backbone | None = None) -> KNNScorer:
        p = run.params
        config = {"backbone": p.backbone, "k": p.k, "metric": p.metric, "n": 0, "dim": 0}
        return KNNScorer(config, load_pooled(run) if backbone is None else backbone)

    def _memorise(self, scorer: MapScorer, learn: ImageSet, run: Run[Self]) -> Generator[Record, None, None]:
        p, scorer = run.params, own(scorer, KNNScorer)
        bank = yield from sample_embeddings(scorer, learn, run, limit=p.max_items)
        scorer.bank = bank.to(run.device)
        scorer.config.update(n=len(bank), dim=bank.shape[1], k=min(p.k, len(bank)))

    @classmethod
    def _build(cls, config: dict[str, Any]) -> Scorer:
        return KNNScorer(config)
