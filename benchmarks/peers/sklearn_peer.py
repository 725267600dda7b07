"""Fit and score one image set with a detector of scikit-learn on image features, and save raw scores.

The detectors have default parameters and take unscaled features; PyOD standardises them first, so that results of the
same detector differ.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import features
import numpy as np
from sklearn.ensemble import IsolationForest
from sklearn.neighbors import LocalOutlierFactor
from sklearn.svm import OneClassSVM

DETECTORS: dict[str, Callable[[int], OneClassSVM | IsolationForest | LocalOutlierFactor]] = {
    "iforest": lambda seed: IsolationForest(random_state=seed),
    "lof": lambda _: LocalOutlierFactor(novelty=True),
    "ocsvm": lambda _: OneClassSVM(),
}


def make(
    args: argparse.Namespace, encoder: features.Encoder
) -> tuple[Callable[[list[str]], object], Callable[[list[str]], features.Array]]:
    """Return the functions that fit and score.

    Parameters
    ----------
    args : argparse.Namespace
        Command line.
    encoder : features.Encoder
        Encoder of paths.

    Returns
    -------
    fit, score : callable
        Functions of image paths.
    """
    model = DETECTORS[args.model](args.seed)

    def fit(paths: list[str]) -> object:
        return model.fit(encoder(paths))

    def score(paths: list[str]) -> features.Array:
        # scikit-learn's scores are higher for normals.
        return -np.asarray(model.score_samples(encoder(paths)))

    return fit, score


if __name__ == "__main__":
    features.measure(__doc__, DETECTORS, make, [])
