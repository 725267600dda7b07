"""Fit and score one image set with a method of anomem, in a separate process and with the same figures as peers.

The other scripts of this folder do not import anomem; this one runs in anomem's environment. Maps are computed, in each
image's own frame, and discarded, as in scoring; the fitted model is stored, which reproduces them bit for bit.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import numpy as np
import torch
from outcome import Watch, describe, options, parsed, save

from anomem.data.sources import read_dataset
from anomem.detectors import DETECTORS, get

PACKAGES = ("anomem", "torch", "timm", "numpy", "pillow", "scipy", "scikit-learn")


def run(args: argparse.Namespace) -> None:
    """Fit, score, and write the results.

    Parameters
    ----------
    args : argparse.Namespace
        Command line.
    """
    torch.set_num_threads(args.threads)
    detector = get(args.model)(seed=args.seed, size=args.size)
    watch = Watch()
    dataset = read_dataset(args.folder)
    train, test = list(dataset.train), list(dataset.test)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        detector.fit(train)
    watch.fitted()
    scores = [found.score for found in detector.score(test, maps=detector.localizes, batch_size=args.batch)]
    figures = watch.figures(len(test))
    args.out.mkdir(parents=True, exist_ok=True)
    detector.save(args.out / f"{args.name}.safetensors")
    facts = describe(args, PACKAGES) | {"localizes": detector.localizes, "counts": detector.counts_}
    facts |= {"n_train": len(train), "n_test": len(test)} | figures
    paths: list[str | Path] = [sample.path for sample in test]
    save(args, paths, np.asarray(scores), None, facts)


def main() -> None:
    """Read the command line and run."""
    run(parsed(options(__doc__, DETECTORS)))


if __name__ == "__main__":
    main()
