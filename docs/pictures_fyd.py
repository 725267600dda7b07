"""Draws docs/images/fyd.png: normals as they lie and aligned, their mean and deviation, a defect's map on its way back.

Run from the project's root: ``.venv/bin/python docs/pictures_fyd.py``. The part is drawn: a spanner whose metal is the
shipped photograph of gravel, thrown anyhow on a bench, which is the photograph of bricks. No photograph of a data set
is shown.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch

import anomem
from anomem.data.synthetic import texture
from anomem.detectors import get
from anomem.detectors.fyd.alignment import angle_of, warp
from anomem.detectors.fyd.scorer import FYDScorer
from anomem.runtime.overlay import overlay
from anomem.types import FloatArray, UInt8Image

TARGET = Path(__file__).parent / "images" / "fyd.png"
SIDE, FINE = 128, 2
SHOWN, AVERAGED = 6, 40


def shot(rng: np.random.Generator, degrees: float, crack: float | None = None) -> UInt8Image:
    """One picture (128, 128, 3) of the spanner, turned by `degrees`; `crack`: where along its shaft it has one."""
    from scipy.ndimage import map_coordinates

    angle, zoom = np.deg2rad(degrees), np.exp(rng.uniform(-0.1, 0.1))
    places = (np.arange(SIDE * FINE) + 0.5) / FINE - SIDE / 2
    y, x = np.meshgrid(places, places, indexing="ij")
    # Along the shaft and across it, in the spanner's own frame, whose pixels stay with it.
    u, v = (x * np.cos(angle) - y * np.sin(angle)) / zoom, (x * np.sin(angle) + y * np.cos(angle)) / zoom
    head = (np.hypot(u - 32, v) < 16) & ~((u > 30) & (np.abs(v) < 7))
    ring = (np.hypot(u + 34, v) < 12) & (np.hypot(u + 34, v) > 6)
    metal = head | ring | ((np.abs(v) < 6) & (u > -26) & (u < 20))
    if crack is not None:
        metal &= ~(np.abs(u - crack - 0.4 * v) < 2)
    top, left = rng.integers(0, 448 - SIDE, 2)
    bench = texture("brick")[top : top + SIDE, left : left + SIDE, 0].astype(float).repeat(FINE, 0).repeat(FINE, 1)
    grain = map_coordinates(texture("gravel")[..., 0].astype(float), [v + 200, u + 200], order=1, mode="reflect")
    grey = np.where(metal, 165 + 0.3 * (grain - 128), 60 + 0.15 * (bench - 128))
    small = grey.reshape(SIDE, FINE, SIDE, FINE).mean(axis=(1, 3)) + rng.normal(0, 2, (SIDE, SIDE))
    return np.repeat(small.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)


def in_common_frame(scorer: FYDScorer, images: UInt8Image) -> tuple[UInt8Image, FloatArray, FloatArray]:
    """Images as the composed warp shows them, their distances (N, h, w) there, and the warps' angles, degrees."""
    batch = torch.from_numpy(images).permute(0, 3, 1, 2)
    with torch.inference_mode():
        found = scorer.backbone(batch)
        theta = found.theta()
        aligned = warp(batch, theta, padding="zeros")
        distances = scorer.gaussian(scorer.embed(found)) * found.seen(scorer.hw)
    pictures = aligned.permute(0, 2, 3, 1).round().byte().numpy()
    return pictures, distances.numpy(), angle_of(theta).rad2deg().numpy()


def draw(
    scorer: FYDScorer,
    normals: UInt8Image,
    spoilt: UInt8Image,
    result: anomem.Scored,
    scores: FloatArray,
    target: Path,
) -> None:
    """Draw normals, the same aligned, their mean and deviation; below, the defect's steps, the warps and scores."""
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    aligned, _, angles = in_common_frame(scorer, normals)
    (turned,), (distances,), _ = in_common_frame(scorer, spoilt[None])
    figure, axes = plt.subplots(3, SHOWN + 2, figsize=(11, 4.8), layout="constrained")
    for row, (images, name) in enumerate(((normals, "as they lie"), (aligned, "aligned"))):
        for column in range(SHOWN):
            axes[row, column].imshow(images[column])
        axes[row, SHOWN].imshow(images.mean(axis=0).astype(np.uint8))
        axes[row, 0].set_ylabel(name, fontsize=11)
        axes[row, SHOWN].set_title(f"mean of {len(images)}", fontsize=10)
        deviation = images[..., 0].std(axis=0)
        axes[row, SHOWN + 1].imshow(deviation, cmap="magma", vmin=0, vmax=80)
        axes[row, SHOWN + 1].set_title(f"deviation, {deviation.mean():.0f} of 255", fontsize=10)
    steps = [
        ("a crack", spoilt, None),
        ("aligned", turned, None),
        ("distances there", distances, "magma"),
        ("brought back", result.map, "magma"),
        ("on the image", overlay(spoilt, result.map, *draw_scale(result)), None),
    ]
    for column, (title, image, colours) in enumerate(steps):
        axes[2, column].imshow(image, cmap=colours)
        axes[2, column].set_title(title, fontsize=10)
    axes[2, 0].set_ylabel("a defect", fontsize=11)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
        axis.set_visible(bool(axis.images))
    grid = axes[0, 0].get_gridspec()
    histogram(figure.add_subplot(grid[2, len(steps)]), angles, "turned by, degrees")
    scored = figure.add_subplot(grid[2, len(steps) + 1 :])
    histogram(scored, scores, "scores: normals, the defect")
    scored.axvline(result.score, color="#b5367a", linewidth=1.5)
    figure.savefig(target, dpi=80)


def histogram(axis: mpl.axes.Axes, values: FloatArray, title: str) -> None:
    """Distribution of some values."""
    axis.hist(values, bins=20, color="#c7d9e6")
    axis.set_title(title, fontsize=10)
    axis.set_yticks([])
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right", "left"]].set_visible(False)


def draw_scale(result: anomem.Scored) -> tuple[float, float]:
    """Where colours begin and end: this map's median and maximum."""
    if result.map is None:
        raise TypeError("FYD draws maps")
    return float(np.median(result.map)), float(result.map.max())


def main() -> None:
    """Fit, look, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--normals", type=int, default=120)
    parser.add_argument("--turn", type=float, default=180.0, help="how far parts are turned, degrees either way")
    parser.add_argument("--out", type=Path, default=TARGET)
    args = parser.parse_args()
    rng = np.random.default_rng(3)
    detector: anomem.Detector = get("fyd")(size=SIDE, image_aligner={"keep": "on"})  # type: ignore[call-arg]
    turns = rng.uniform(-args.turn, args.turn, args.normals + AVERAGED)
    normals = np.stack([shot(rng, degrees) for degrees in turns])
    detector.fit(normals[: args.normals], alpha=0.1)
    fresh, spoilt = normals[args.normals :], shot(rng, 60.0, crack=-6.0)
    scorer = detector.scorer_
    if not isinstance(scorer, FYDScorer):
        raise TypeError("FYD aligns")
    (result,) = detector.score(spoilt[None], maps=True)
    draw(scorer, fresh, spoilt, result, detector.anomaly_score(fresh), args.out)


if __name__ == "__main__":
    main()
