"""Quality of fitted features: linear evaluation of the encoder, and compactness of normals."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from anomem.benchmark.fits import Settings
from anomem.benchmark.image_sets import BenchmarkSet
from anomem.benchmark.judging import Findings
from anomem.benchmark.protocols.base import Opener, Protocol, own_normals
from anomem.benchmark.unit import Task, Unit
from anomem.benchmark.workspace import Workspace
from anomem.data.imageset import ImageSet
from anomem.data.labelled_images import Images
from anomem.data.sources import open_source
from anomem.detector import Detector
from anomem.detectors.fyd.loss import distance_variance
from anomem.errors import InputError
from anomem.nn.backbones import Backbone
from anomem.nn.inference import feature_batches, outputs
from anomem.params import Range, param, parameters
from anomem.types import FloatArray, ImagesLike

__all__ = ["DistanceVariance", "LinearEvaluation", "compactness"]

POSITIONS_AT_ONCE = 64


@parameters
class LinearEvaluation(Protocol):
    """Classification by frozen features of a fit to all training images of a set, without their classes.

    References
    ----------
    Jezequel et al., "Anomaly Detection via Multi-Scale Contrasted Memory", 2022, Table 4 (a).
    """

    name: ClassVar[str] = "linear-evaluation"

    def tasks(self, data: BenchmarkSet, opened: Opener) -> Iterator[Task | str]:
        """Yield the only task."""
        if not data.classes:
            raise InputError(f"{data.name}: linear evaluation needs a set of classes")
        yield Task(self.name, data.name, data.category, {"normal": "all"})

    def run(self, unit: Unit, work: Workspace) -> Findings:
        """Fit, then classify the features."""
        data = work.open(unit.task.data, unit.limit)
        train, test = (data.choose(data.classes).train, data.test)
        fit = work.one_class(unit, train)
        accuracy = linear_evaluation(fit.detector, train.source, train.kinds, test.source, test.kinds)
        facts = {"accuracy": accuracy, "n_classes": len(data.classes), "n_test": {"images": len(test)}}
        return Findings(fit, facts)


@parameters
class DistanceVariance(Protocol):
    """Variance of the distances of normal images to their centre (FYD, Eq. 8 to 10), with a ridge and scale-free.

    For methods with a distribution per position; others have no such distances and raise an error.

    Parameters
    ----------
    ridge : float, default 0.01
        Added to the diagonal of each position's covariance. With a fixed ridge, smaller features have smaller
        distances; the scale-free value takes it relative to the features' own variance.
    most : int, default 256
        Maximum number of normal images, evenly spaced among the training images.

    References
    ----------
    Zheng et al., "Focus Your Distribution", 2022, Eq. 8 to 11.
    """

    name: ClassVar[str] = "distance-variance"

    ridge: float = param(0.01, Range(0.0, low_open=True), doc="Added to the diagonal of each covariance.")
    most: int = param(256, Range(2, 100_000, integer=True), doc="Maximum number of normal images.")

    def tasks(self, data: BenchmarkSet, opened: Opener) -> Iterator[Task | str]:
        """Yield the only task."""
        own_normals(data, self.name)
        yield Task(self.name, data.name, data.category, facts=self.options())

    def run(self, unit: Unit, work: Workspace) -> Findings:
        """Fit, then measure the features of normal images."""
        facts, data = unit.task.facts, work.open(unit.task.data, unit.limit)
        fit = work.one_class(unit, data.train)
        count = min(facts["most"], len(data.train))
        chosen = np.linspace(0, len(data.train) - 1, count).round().astype(int)
        normals = data.train.subset(chosen, f"{data.train.name} most={count}")
        return Findings(fit, compactness(fit.detector, normals, facts["ridge"], work.settings))


def compactness(detector: Detector, normals: Images, ridge: float, settings: Settings) -> dict[str, Any]:
    """Return the distance variance of normal images under a fitted detector, and its scale-free form.

    Raises
    ------
    InputError
        The method has no distribution per position.
    """
    scorer: Any = detector.scorer_
    if not (hasattr(scorer, "embed") and hasattr(scorer, "gaussian")):
        raise InputError(f"{detector.name}: no distribution per position; use padim or fyd")
    prepared = ImageSet(normals.source, detector.preprocessing_, workers=settings.workers)

    def embed(images: Tensor) -> Tensor:
        embedded: Tensor = scorer.embed(scorer.backbone(images))
        return embedded

    device = next(scorer.buffers()).device
    maps = outputs(embed, prepared, device=device, precision="float32", batch_size=settings.batch_size)
    features = torch.cat([batch.cpu() for batch in maps]).flatten(2)
    figures: dict[str, Any] = {"n_normals": len(features), "n_channels": features.shape[1]}
    for name, scale_free in (("distance_variance", False), ("distance_variance_scale_free", True)):
        pieces = features.split(POSITIONS_AT_ONCE, dim=2)
        values = [distance_variance(piece[..., None], ridge=ridge, scale_free=scale_free) for piece in pieces]
        figures[name] = float(np.average(values, weights=[piece.shape[2] for piece in pieces]))
    return figures


def linear_evaluation(
    detector: Detector,
    train: ImagesLike,
    train_classes: Sequence[Hashable],
    test: ImagesLike,
    test_classes: Sequence[Hashable],
    *,
    batch_size: int = 64,
) -> float:
    """Return the accuracy of a linear classifier on the frozen encoder of a fitted detector.

    This measures the encoder after the first stage: memory, second stage and classes do not change it. Features are the
    last map, averaged over positions and standardised on the training images; the classifier is
    logistic regression.

    Parameters
    ----------
    detector : Detector
        Fitted, with a backbone (every method here has one).
    train, test : images as for :meth:`~anomem.detector.Detector.score`
        Images to fit the classifier to, and images to judge it on.
    train_classes, test_classes : sequence
        One class per image, any hashable value.
    batch_size : int
        Images per forward pass.

    Returns
    -------
    float
        Share of correctly classified test images, from 0 to 1.

    Raises
    ------
    InputError
        Numbers of classes and images differ, classes are fewer than two, or the detector has no backbone.

    References
    ----------
    The linear evaluation of Jezequel et al., "Anomaly Detection via Multi-Scale Contrasted Memory", 2022.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if len(set(train_classes)) < 2:
        raise InputError("linear evaluation: fewer than two classes; add training images of another")
    features = [
        _encoded(detector, images, classes, batch_size)
        for images, classes in ((train, train_classes), (test, test_classes))
    ]
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    classifier.fit(features[0], np.asarray(train_classes))
    return float(np.mean(classifier.predict(features[1]) == np.asarray(test_classes)))


def _encoded(detector: Detector, images: ImagesLike, classes: Sequence[Hashable], batch_size: int) -> FloatArray:
    """Return pooled features of the backbone's last map, (N, C) float32."""
    backbone = getattr(detector.scorer_, "backbone", None)
    if not isinstance(backbone, Backbone):
        raise InputError(f"{detector.name}: no backbone to evaluate; use a method that has one")
    source = open_source(images)
    if len(source) != len(classes):
        raise InputError(f"{len(classes)} classes for {len(source)} images; give one per image")
    prepared = ImageSet(source, detector.preprocessing_)
    maps = feature_batches(backbone, prepared, precision="float32", batch_size=batch_size)
    pooled = torch.cat([batch[-1].float().mean(dim=(2, 3)) for batch in maps])
    return np.asarray(pooled.cpu().numpy())
