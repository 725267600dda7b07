"""Isolation forest on frozen pooled features."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from anomem.cross_fitting import ClosedForm
from anomem.data.imageset import ImageSet
from anomem.detector import Supervision
from anomem.detectors.baselines._pooled import (
    NormalisedFeatures,
    NormalisedScorer,
    empty_config,
    learn_vectors,
    load_pooled,
    own,
)
from anomem.detectors.baselines._shallow import IsolationForest, fit_isolation_forest
from anomem.fitting import Labelled, Run
from anomem.nn.backbones import Backbone
from anomem.nn.scorer import Deviation, MapScorer, Output, Scorer
from anomem.params import Range, param, parameters
from anomem.types import Record


class IForestScorer(NormalisedScorer):
    """Isolation score of an image's embedding: the fewer random cuts isolate it from normal ones, the higher.

    Parameters
    ----------
    config : dict
        As for :class:`~anomem.detectors.baselines._pooled.NormalisedScorer`, and ``n_trees``, ``n_samples``.
    """

    continuous: ClassVar[bool] = False

    def __init__(self, config: dict[str, Any], backbone: Backbone | None = None) -> None:
        super().__init__(config, backbone)
        self.forest = IsolationForest(config["n_trees"], config["n_samples"])

    def forward(self, images: Tensor) -> Output:
        """Score prepared images; no maps."""
        return self.fuse(self.deviation_of(self.backbone(images)).norms)

    def deviation_of(self, maps: list[Tensor]) -> Deviation:
        """Return the score, (B,)."""
        return Deviation([self.forest(self.vectors_of(maps))])


@parameters
class IForest(NormalisedFeatures, ClosedForm):
    """Isolation forest on frozen pooled features.

    scikit-learn's ``IsolationForest``, converted to tensors: the anomaly score is minus its ``score_samples``, Eq. 2 of
    the paper.

    References
    ----------
    Liu, Ting and Zhou, "Isolation Forest", ICDM 2008.

    Examples
    --------
    >>> IForest(n_trees=300)
    IForest(n_trees=300)
    """

    name: ClassVar[str] = "iforest"
    supervision: ClassVar[Supervision] = "none"
    paper: ClassVar[str] = "Liu et al., Isolation Forest, 2008"
    test_params: ClassVar[dict[str, Any]] = {"size": 64, "max_items": 14}

    n_trees: int = param(100, Range(1, 10_000, integer=True), doc="Number of trees.")
    n_samples: int = param(256, Range(2, 65536, integer=True), doc="Maximum number of embeddings per tree (psi).")

    def _fit(
        self, learn: ImageSet, tune: ImageSet, labelled: Labelled | None, run: Run[Self]
    ) -> Generator[Record, None, Scorer]:
        scorer = self._empty(run, learn.preprocessing.hw)
        yield from self._memorise(scorer, learn, run)
        return scorer

    def _empty(self, run: Run[Self], hw: tuple[int, int], backbone: Backbone | None = None) -> IForestScorer:
        backbone = load_pooled(run) if backbone is None else backbone
        return IForestScorer({**empty_config(backbone, run), "n_trees": 1, "n_samples": 1}, backbone)

    def _memorise(self, scorer: MapScorer, learn: ImageSet, run: Run[Self]) -> Generator[Record, None, None]:
        p, scorer = run.params, own(scorer, IForestScorer)
        vectors = yield from learn_vectors(scorer, learn, run)
        seed = int(torch.randint(2**31 - 1, (1,), generator=run.rng))
        scorer.forest = fit_isolation_forest(vectors, n_trees=p.n_trees, n_samples=p.n_samples, seed=seed)
        scorer.config.update(n_trees=p.n_trees, n_samples=min(p.n_samples, len(vectors)))
        yield Record("trees", p.n_trees, p.n_trees)

    @classmethod
    def _build(cls, config: dict[str, Any]) -> Scorer:
        return IForestScorer(config)
