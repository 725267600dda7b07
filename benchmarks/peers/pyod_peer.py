"""Fit and score one image set with a detector of PyOD on image features, and save raw scores and timings.

It uses PyOD's image pipeline, ``EmbeddingOD``: an encoder, then standardisation, then a detector with default
parameters. PyOD downloads its image encoders (DINOv2, CLIP) on first use; here the encoder comes from `features`, so
that nothing is downloaded and all sides have the same backbone.
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
    detector = DETECTORS[args.model]
    if args.model == "deepsvdd":
        # The only detector that needs the number of features.
        detector = DeepSVDD(n_features=encoder.model.num_features, random_state=args.seed, verbose=0)
    model = EmbeddingOD(encoder=encoder, detector=detector, random_state=args.seed)
    return model.fit, model.decision_function


if __name__ == "__main__":
    features.measure(__doc__, DETECTORS, make, ["pyod", "numba"])
