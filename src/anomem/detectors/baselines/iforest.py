"""Isolation forest on frozen pooled features."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from anomem.data.imageset import ImageSet
from anomem.detector import Supervision
from anomem.detectors.baselines._pooled import (
    NormalisedFeatures,
    NormalisedScorer,
    empty_config,
    learn_vectors,
    load_pooled,
)
from anomem.detectors.baselines._shallow import IsolationForest, fit_isolation_forest
from anomem.fitting import Labelled, Run
from anomem.nn.backbones import Backbone
from anomem.nn.scorer import Output, Scorer
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
        return Output(self.forest(self.vectors(images)))


@parameters
class IForest(NormalisedFeatures):
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
        p = run.params
        backbone = load_pooled(run)
        scorer = IForestScorer({**empty_config(backbone, run), "n_trees": 1, "n_samples": 1}, backbone)
        vectors = yield from learn_vectors(scorer, learn, run)
        seed = int(torch.randint(2**31 - 1, (1,), generator=run.rng))
        scorer.forest = fit_isolation_forest(vectors, n_trees=p.n_trees, n_samples=p.n_samples, seed=seed)
        scorer.config.update(n_trees=p.n_trees, n_samples=min(p.n_samples, len(vectors)))
        yield Record("trees", p.n_trees, p.n_trees)
        return scorer

    @classmethod
    def _build(cls, config: dict[str, Any]) -> Scorer:
        return IForestScorer(config)
