"""Draws docs/images/pmb.png: what PMB reconstructs, its error, what is taken off it, and the histogram that says so.

Run from the project's root: ``.venv/bin/python docs/pictures_pmb.py``. It fits on shots of one place of the shipped
photograph of bricks, as a camera above a conveyor takes them: a few pixels off, a little brighter or darker, noisy.
It then looks at new shots, one untouched and three with a planted defect.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch

import anomem
from anomem.data.synthetic import plant, texture
from anomem.detectors import get
from anomem.detectors.reconstruction.scorer import ReconstructionScorer, unavoidable_error
from anomem.types import FloatArray, UInt8Image

KINDS = (None, "blob", "scratch", "cutpaste")
TARGET = Path(__file__).parent / "images" / "pmb.png"
SIDE = 128


def shots(count: int, rng: np.random.Generator) -> UInt8Image:
    """Pictures (count, 128, 128, 3) of one place: shifted by at most 3 px, brightness 0.95 to 1.05, noise."""
    photograph = texture("brick")
    images = np.empty((count, SIDE, SIDE, 3), np.uint8)
    for image in images:
        top, left = 100 + rng.integers(-3, 4, 2)
        view = photograph[top : top + SIDE, left : left + SIDE] * rng.uniform(0.95, 1.05)
        image[...] = (view + rng.normal(0, 2, view.shape)).clip(0, 255)
    return images


def looked_at(
    scorer: ReconstructionScorer, images: UInt8Image
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Reconstructions, errors A, mu of each image, and corrected errors A'."""
    batch = torch.from_numpy(images).permute(0, 3, 1, 2)
    with torch.inference_mode():
        found = scorer.reconstruct(batch)
        error = (batch.float() / 255 - found).abs().mean(dim=1)
        mu, corrected = unavoidable_error(error, scorer.config["error_share"]), scorer(batch).map
    if corrected is None:
        raise TypeError("PMB draws maps")
    return found.clamp(0, 1).permute(0, 2, 3, 1).numpy(), error.numpy(), mu.numpy(), corrected.numpy()


def draw(images: UInt8Image, parts: tuple[FloatArray, ...], scores: FloatArray, target: Path) -> None:
    """One row an image: input, reconstruction, A, A', histogram of A with mu."""
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    found, error, mu, corrected = parts
    top = float(np.quantile(error, 0.999))
    figure, axes = plt.subplots(len(images), 5, figsize=(11, 9.2), layout="constrained")
    for row, kind in enumerate(KINDS):
        axes[row, 0].imshow(images[row])
        axes[row, 1].imshow(found[row])
        axes[row, 2].imshow(error[row], cmap="magma", vmin=0, vmax=top)
        axes[row, 3].imshow(corrected[row], cmap="magma", vmin=0, vmax=top)
        axes[row, 0].set_title("untouched" if kind is None else f"planted {kind}", fontsize=10)
        axes[row, 3].set_title(f"score {scores[row]:.0f}", fontsize=10)
        histogram(axes[row, 4], error[row], float(mu[row]), top)
        for axis in axes[row, :4]:
            axis.set_xticks([])
            axis.set_yticks([])
    for column, name in enumerate(("input X", "reconstruction", "error A", "corrected error A'", "pixels by error")):
        axes[-1, column].set_xlabel(name, fontsize=11)
    figure.savefig(target, dpi=80)


def histogram(axis: mpl.axes.Axes, error: FloatArray, mu: float, top: float) -> None:
    """How many pixels have which error; the share that mu is estimated on is darker."""
    edges = np.linspace(0, top, 41)
    median = float(np.median(error))
    for part, colour in ((error[error <= median], "#31688e"), (error[error > median], "#c7d9e6")):
        axis.hist(part.ravel(), bins=edges, color=colour)
    axis.axvline(mu, color="#b5367a", linewidth=1.5)
    axis.text(mu + 0.02 * top, 0.92, "$\\mu$", color="#b5367a", transform=axis.get_xaxis_transform(), fontsize=11)
    axis.set_yscale("log")
    axis.set_yticks([])
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.tick_params(labelsize=8)


def main() -> None:
    """Fit, look, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--out", type=Path, default=TARGET)
    args = parser.parse_args()
    rng = np.random.default_rng(5)
    detector: anomem.Detector = get("pmb")(train_steps=args.steps)  # type: ignore[call-arg]
    detector.fit(shots(80, rng), alpha=0.1)
    images = np.stack([s if k is None else plant(s, k, rng, 0.2)[0] for s, k in zip(shots(4, rng), KINDS, strict=True)])
    scorer = detector.scorer_
    if not isinstance(scorer, ReconstructionScorer):
        raise TypeError("PMB reconstructs")
    draw(images, looked_at(scorer, images), detector.anomaly_score(images), args.out)


if __name__ == "__main__":
    main()
