"""Fit and score one image set with a detector of PyOD, on features of images, and save its raw scores and timings.

PyOD's own way with images, ``EmbeddingOD``: an encoder, then standardisation, then one of its detectors with its
defaults. PyOD's own image encoders (DINOv2, CLIP) are downloaded when they are first used; here the encoder is the
callable that `features` gives, so that nothing is downloaded and every side sees the same backbone.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import features
from pyod.models.deep_svdd import DeepSVDD
from pyod.models.embedding import EmbeddingOD

DETECTORS = {
    "copod": "COPOD",
    "deepsvdd": "DeepSVDD",
    "ecod": "ECOD",
    "iforest": "IForest",
    "knn": "KNN",
    "lof": "LOF",
    "lunar": "LUNAR",
    "ocsvm": "OCSVM",
}


def make(
    args: argparse.Namespace, encoder: features.Encoder
) -> tuple[Callable[[list[str]], object], Callable[[list[str]], features.Array]]:
    """Return how to fit and how to score.

    Parameters
    ----------
    args : argparse.Namespace
        Command line.
    encoder : features.Encoder
        From paths to features.

    Returns
    -------
    fit, score : callable
        Functions of image paths.
    """
    detector = DETECTORS[args.model]
    if args.model == "deepsvdd":
        # The only one that has to be told how many features there are.
        detector = DeepSVDD(n_features=encoder.model.num_features, random_state=args.seed, verbose=0)
    model = EmbeddingOD(encoder=encoder, detector=detector, random_state=args.seed)
    return model.fit, model.decision_function


if __name__ == "__main__":
    features.measure(__doc__, DETECTORS, make, ["pyod", "numba"])
