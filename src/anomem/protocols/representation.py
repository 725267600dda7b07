"""What a fit has made of its features: linear evaluation of the encoder, and how compact normals are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from anomem.data.imageset import ImageSet
from anomem.detector import Detector
from anomem.errors import InputError
from anomem.losses.alignment import distance_variance
from anomem.nn.inference import autocast
from anomem.params import Range, param
from anomem.protocols.datasets import BenchSet
from anomem.protocols.fits import Settings
from anomem.protocols.images import Images
from anomem.protocols.judging import Findings
from anomem.protocols.linear import linear_evaluation
from anomem.protocols.protocol import Opener, Protocol, own_normals
from anomem.protocols.units import Task, Unit
from anomem.protocols.workbench import Workbench

__all__ = ["DistanceVariance", "LinearEvaluation", "compactness"]

POSITIONS_AT_ONCE = 64


@dataclass(kw_only=True, repr=False, eq=False)
class LinearEvaluation(Protocol):
    """Fit to all training images of a set without their classes; then tell the classes apart by frozen features.

    References
    ----------
    Jezequel et al., "Anomaly Detection via Multi-Scale Contrasted Memory", 2022, Table 4 (a).
    """

    name: ClassVar[str] = "linear-evaluation"

    def tasks(self, data: BenchSet, opened: Opener) -> Iterator[Task | str]:
        """The one task."""
        if not data.classes:
            raise InputError(f"{data.name}: linear evaluation needs a set of classes")
        yield Task(self.name, data.name, data.category, {"normal": "all"})

    def run(self, unit: Unit, work: Workbench) -> Findings:
        """Fit, then classify."""
        data = work.open(unit.task.data, unit.limit)
        train, test = (data.choose(data.classes).train, data.test)
        fit = work.one_class(unit, train)
        accuracy = linear_evaluation(fit.detector, train.source, train.kinds, test.source, test.kinds)
        facts = {"accuracy": accuracy, "n_classes": len(data.classes), "n_test": {"images": len(test)}}
        return Findings(fit, facts)


@dataclass(kw_only=True, repr=False, eq=False)
class DistanceVariance(Protocol):
    """How much the distances of normal images to their centre vary (FYD, Eq. 8 to 10), with a ridge and scale-free.

    For methods that compare each position with its own past; others have no such distances and are refused.

    Parameters
    ----------
    ridge : float, default 0.01
        On the diagonal of each position's covariance. With a fixed one, smaller features have smaller distances; the
        scale-free value takes it relative to the features' own variance.
    most : int, default 256
        Normal images at most, evenly spaced among the training images.

    References
    ----------
    Zheng et al., "Focus Your Distribution", 2022, Eq. 8 to 11.
    """

    name: ClassVar[str] = "distance-variance"

    ridge: float = param(0.01, Range(0.0, low_open=True), doc="On the diagonal of each covariance.")
    most: int = param(256, Range(2, 100_000, integer=True), doc="Normal images at most.")

    def tasks(self, data: BenchSet, opened: Opener) -> Iterator[Task | str]:
        """The one task."""
        own_normals(data, self.name)
        yield Task(self.name, data.name, data.category, facts=self.options())

    def run(self, unit: Unit, work: Workbench) -> Findings:
        """Fit, then look at the features of normal images."""
        facts, data = unit.task.facts, work.open(unit.task.data, unit.limit)
        fit = work.one_class(unit, data.train)
        count = min(facts["most"], len(data.train))
        chosen = np.linspace(0, len(data.train) - 1, count).round().astype(int)
        normals = data.train.subset(chosen, f"{data.train.name} most={count}")
        return Findings(fit, compactness(fit.detector, normals, facts["ridge"], work.settings))


def compactness(detector: Detector, normals: Images, ridge: float, settings: Settings) -> dict[str, Any]:
    """Distance variance of normal images under a fitted detector, and its scale-free form.

    Raises
    ------
    InputError
        For a method that does not compare positions with their own past.
    """
    scorer: Any = detector.scorer_
    if not (hasattr(scorer, "embed") and hasattr(scorer, "gaussian")):
        raise InputError(f"{detector.name} has no distribution at each position; take padim or fyd")
    prepared = ImageSet(normals.source, detector._state().preprocessing, workers=settings.workers)
    parts: list[Tensor] = []
    for batch in prepared.batches(settings.batch_size):
        images = batch.images.to(next(scorer.buffers()).device)
        with torch.inference_mode(), autocast(images.device, "float32"):
            parts.append(scorer.embed(scorer.backbone(images)).cpu())
    features = torch.cat(parts).flatten(2)
    figures: dict[str, Any] = {"n_normals": len(features), "n_channels": features.shape[1]}
    for name, scale_free in (("distance_variance", False), ("distance_variance_scale_free", True)):
        pieces = features.split(POSITIONS_AT_ONCE, dim=2)
        values = [distance_variance(piece[..., None], ridge=ridge, scale_free=scale_free) for piece in pieces]
        figures[name] = float(np.average(values, weights=[piece.shape[2] for piece in pieces]))
    return figures
