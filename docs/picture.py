"""Draws the README's picture: what the model sees, where it deviates, and what it says of it.

Run from the project's root: ``.venv/bin/python docs/picture.py``. It fits on crops of the shipped brick photograph and
scores crops of its other half, one untouched and three with a planted defect.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np

import anomem
from anomem.data.synthetic import crops, plant
from anomem.runtime.overlay import overlay

KINDS = (None, "scratch", "cutpaste", "stain")
TARGET = Path(__file__).parent / "images" / "example.png"


def main() -> None:
    """Fit, score, draw."""
    rng = np.random.default_rng(7)
    detector = anomem.AnoMem().fit(crops("brick", 100, size=224, half="train", rng=rng), alpha=0.05)
    # Crops of the half that was learnt from overlap: too familiar to promise a rate for the other half.
    detector.calibrate(crops("brick", 60, size=224, half="test", rng=rng), alpha=0.05)
    fresh = crops("brick", len(KINDS), size=224, half="test", rng=rng)
    images = [f if kind is None else plant(f, kind, rng)[0] for f, kind in zip(fresh, KINDS, strict=True)]
    results = list(detector.score(images, maps=True))

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(2, len(KINDS), figsize=(10, 5.6), layout="constrained")
    for column, (image, result, kind) in enumerate(zip(images, results, KINDS, strict=True)):
        axes[0, column].imshow(image)
        axes[0, column].set_title("untouched" if kind is None else f"planted {kind}", fontsize=11)
        if result.map is not None:
            axes[1, column].imshow(overlay(image, result.map, *detector.map_scale_))
        verdict = "anomalous" if result.anomalous else "normal"
        axes[1, column].set_title(f"score {result.score:.1f}   p = {result.p_value:.3f}\n{verdict}", fontsize=11)
    for axis in axes.flat:
        axis.set_axis_off()
    figure.savefig(TARGET, dpi=80)


if __name__ == "__main__":
    main()
