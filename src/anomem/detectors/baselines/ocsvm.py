"""One-class support vector machine on frozen pooled features."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, ClassVar, Self

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
from anomem.detectors.baselines._shallow import OneClassSVM, fit_one_class_svm
from anomem.fitting import Labelled, Run
from anomem.nn.backbones import Backbone
from anomem.nn.scorer import Deviation, MapScorer, Output, Scorer
from anomem.params import Either, OneOf, Range, param, parameters
from anomem.types import Record


class OCSVMScorer(NormalisedScorer):
    """Distance of an image's embedding outside the learnt region.

    Parameters
    ----------
    config : dict
        As for :class:`~anomem.detectors.baselines._pooled.NormalisedScorer`, and ``n``, the support vectors.
    """

    def __init__(self, config: dict[str, Any], backbone: Backbone | None = None) -> None:
        super().__init__(config, backbone)
        self.boundary = OneClassSVM(config["n"], config["dim"])

    def forward(self, images: Tensor) -> Output:
        """Score prepared images; no maps."""
        return self.fuse(self.deviation_of(self.backbone(images)).norms)

    def deviation_of(self, maps: list[Tensor]) -> Deviation:
        """Return the score, (B,)."""
        return Deviation([self.boundary(self.vectors_of(maps))])


@parameters
class OCSVM(NormalisedFeatures, ClosedForm):
    """One-class support vector machine with a Gaussian kernel on frozen pooled features.

    scikit-learn's ``OneClassSVM``, converted to tensors: the anomaly score is minus its decision function, above 0
    outside of the region that it learnt.

    References
    ----------
    Schoelkopf, Platt, Shawe-Taylor, Smola and Williamson, "Estimating the Support of a High-Dimensional Distribution",
    Neural Computation 13, 2001.

    Examples
    --------
    >>> OCSVM(nu=0.05, normalise="raw")
    OCSVM(normalise='raw', nu=0.05)
    """

    name: ClassVar[str] = "ocsvm"
    supervision: ClassVar[Supervision] = "none"
    paper: ClassVar[str] = "Schoelkopf et al., Estimating the Support of a High-Dimensional Distribution, 2001"
    test_params: ClassVar[dict[str, Any]] = {"size": 64, "max_items": 14}

    max_items: int = param(
        4096,
        Range(1, integer=True),
        doc="Maximum number of embeddings used for fitting; time grows with its square.",
    )
    nu: float = param(
        0.1,
        Range(0.0, 0.99, low_open=True),
        doc="Largest share of normals outside of the region, and smallest share kept as support vectors.",
    )
    gamma: float | str = param(
        "scale",
        Either((Range(0.0, low_open=True), OneOf(("scale", "auto")))),
        doc="gamma of the kernel exp(-gamma ||x - v||^2); scale: 1 / (D variance of all values), auto: 1 / D.",
    )

    def _fit(
        self, learn: ImageSet, tune: ImageSet, labelled: Labelled | None, run: Run[Self]
    ) -> Generator[Record, None, Scorer]:
        scorer = self._empty(run, learn.preprocessing.hw)
        yield from self._memorise(scorer, learn, run)
        return scorer

    def _empty(self, run: Run[Self], hw: tuple[int, int], backbone: Backbone | None = None) -> OCSVMScorer:
        backbone = load_pooled(run) if backbone is None else backbone
        return OCSVMScorer({**empty_config(backbone, run), "n": 0}, backbone)

    def _memorise(self, scorer: MapScorer, learn: ImageSet, run: Run[Self]) -> Generator[Record, None, None]:
        p, scorer = run.params, own(scorer, OCSVMScorer)
        vectors = yield from learn_vectors(scorer, learn, run)
        scorer.boundary = fit_one_class_svm(vectors, nu=p.nu, gamma=p.gamma)
        support = int((scorer.boundary.weights > 0).sum())
        scorer.config["n"] = len(scorer.boundary.weights)
        yield Record("support vectors", len(vectors), len(vectors), {"support_vectors": float(support)})

    @classmethod
    def _build(cls, config: dict[str, Any]) -> Scorer:
        return OCSVMScorer(config)
