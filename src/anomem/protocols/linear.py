"""Linear evaluation of an encoder: how well its frozen features tell known classes apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from anomem.data.imageset import ImageSet
from anomem.data.sources import open_source
from anomem.detector import Detector
from anomem.errors import InputError
from anomem.nn.backbones import Backbone
from anomem.nn.features import feature_batches
from anomem.types import FloatArray


def linear_evaluation(
    detector: Detector,
    train: Any,
    train_classes: Sequence[Any],
    test: Any,
    test_classes: Sequence[Any],
    *,
    batch_size: int = 64,
) -> float:
    """Accuracy of a linear classifier on the frozen encoder of a fitted detector.

    The memory, the second stage and the classes take no part in the encoder: this measures what the first stage taught
    it. Features are the last map, averaged over positions and standardised on the training images; the classifier is
    logistic regression.

    Parameters
    ----------
    detector : Detector
        Fitted, with a backbone (every method here has one).
    train, test : images as for :meth:`~anomem.detector.Detector.score`
        What the classifier is fitted to, and what it is judged on.
    train_classes, test_classes : sequence
        A class for each image, of any hashable kind.
    batch_size : int
        Images a forward pass.

    Returns
    -------
    float
        Share of the test images that are given their own class, from 0 to 1.

    Raises
    ------
    InputError
        For numbers of classes and images that differ, fewer than two classes, or a detector without a backbone.

    References
    ----------
    The linear evaluation of Jezequel et al., "Anomaly Detection via Multi-Scale Contrasted Memory", 2022.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if len(set(train_classes)) < 2:
        raise InputError("a linear evaluation needs training images of at least two classes")
    features = [
        _encoded(detector, images, classes, batch_size)
        for images, classes in ((train, train_classes), (test, test_classes))
    ]
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    classifier.fit(features[0], np.asarray(train_classes))
    return float(np.mean(classifier.predict(features[1]) == np.asarray(test_classes)))


def _encoded(detector: Detector, images: Any, classes: Sequence[Any], batch_size: int) -> FloatArray:
    """Pooled features of the backbone's last map, (N, C) float32."""
    backbone = getattr(detector.scorer_, "backbone", None)
    if not isinstance(backbone, Backbone):
        raise InputError(f"{detector.name} has no backbone whose features could be evaluated")
    source = open_source(images)
    if len(source) != len(classes):
        raise InputError(f"{len(classes)} classes for {len(source)} images; give one an image")
    prepared = ImageSet(source, detector._state().preprocessing)
    maps = feature_batches(backbone, prepared, precision="float32", batch_size=batch_size)
    pooled = torch.cat([batch[-1].float().mean(dim=(2, 3)) for batch in maps])
    return np.asarray(pooled.cpu().numpy())
