"""FYD's alignment on disturbed sets: pixels before and after it, its warps, and maps with faded and with even edges.

    python -m benchmarks.alignment

Training and test images are disturbed in space once per draw, and both aligners always take part.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from anomem.data.disturbance import disturbance_for
from anomem.data.imageset import ImageSet
from anomem.data.labelled_images import Images
from anomem.detectors import get
from anomem.detectors.fyd.aligned_backbone import Aligned
from anomem.detectors.fyd.alignment import angle_of, warp
from anomem.detectors.fyd.scorer import FYDScorer
from anomem.types import NORMAL
from benchmarks.common import HERE, SETS, Bench, Row, isolated, opened, options, spread, start
from benchmarks.maps import judged

MOST_SEEN = 0.9
"""Share of the images that must show a position for its deviation to count."""

QUANTILES = (0.05, 0.5, 0.95)
BATCH = 16
EDGES = ("faded", "even")


def pixel_deviation(images: Tensor, seen: Tensor) -> float:
    """Return the standard deviation of grey values across images (N, H, W), mean over the positions mostly seen."""
    count = seen.sum(dim=0).clamp_min(1)
    mean = (images * seen).sum(dim=0) / count
    variance = ((images - mean).square() * seen).sum(dim=0) / count
    return float(variance.sqrt()[seen.mean(dim=0) >= MOST_SEEN].mean())


def warps_of(thetas: Tensor) -> dict[str, float]:
    """Return quantiles of angle (degrees), magnification (%) and shift (% of the side) of warps (N, 2, 3)."""
    linear = thetas[:, :, :2]
    numbers = {
        "angle": angle_of(thetas).rad2deg(),
        "magnification": 100 * (torch.linalg.det(linear).abs().rsqrt() - 1),
        "shift": 100 * thetas[:, :, 2].norm(dim=1) / 2,
    }
    return {
        f"{name}, {share:.0%}": float(values.quantile(share)) for name, values in numbers.items() for share in QUANTILES
    }


def aligned(scorer: FYDScorer, images: ImageSet) -> Iterator[tuple[Tensor, Aligned]]:
    """Yield batches of images (B, 3, S, S) uint8 with what the aligned backbone finds."""
    for batch in images.batches(BATCH):
        yield batch.images, scorer.backbone(batch.images)


def alignment_of(scorer: FYDScorer, normals: ImageSet) -> dict[str, float]:
    """Return the pixels' deviation across normals before and after alignment, and quantiles of the warps."""
    before, after, seen, thetas = [], [], [], []
    for images, found in aligned(scorer, normals):
        grey = images.float().mean(dim=1, keepdim=True)
        hw, theta = (grey.shape[2], grey.shape[3]), found.theta()
        before.append(grey[:, 0])
        after.append(warp(grey, theta)[:, 0])
        seen.append(found.seen(hw))
        thetas.append(theta)
    mask = torch.cat(seen)
    shown = (mask.mean(dim=0, keepdim=True) >= MOST_SEEN).float().expand_as(mask)
    deviations = {
        "pixel deviation before": pixel_deviation(torch.cat(before), shown),
        "pixel deviation after": pixel_deviation(torch.cat(after), mask),
    }
    return deviations | warps_of(torch.cat(thetas))


def maps_of(scorer: FYDScorer, test: Images, prepared: ImageSet) -> dict[str, dict[str, float]]:
    """Return image AUROC, and with masks pixel AUROC and AUPRO, of maps with edges of either kind."""
    found = {}
    for edges in EDGES:
        scorer.edges = edges
        maps = torch.cat([scorer(batch.images).map for batch in prepared.batches(BATCH)])
        found[edges] = judged(maps.amax(dim=(1, 2)), maps, test)
    return found


def measure(name: str, draw: int, threads: int, limit: int | None) -> dict[str, Any]:
    """Fit on a disturbed set with both aligners, and measure; for a separate process."""
    torch.set_num_threads(threads)
    warnings.simplefilter("ignore")
    data = opened(name, limit)
    how = disturbance_for("spatial", data.category)
    train, test = (part.disturbed(how, draw, f"{part.name} {draw}") for part in (data.train, data.test))
    always: dict[str, Any] = {"image_aligner": {"keep": "on"}, "feature_aligner": {"keep": "on"}}
    detector: Any = get("fyd")(seed=draw, precision="float32", **always)
    detector.fit(train.source)
    scorer: FYDScorer = detector.scorer_
    normals = np.flatnonzero(test.labels == NORMAL)
    with torch.inference_mode():
        prepared = partial(ImageSet, test.source, detector.preprocessing_, workers=1)
        return {"alignment": alignment_of(scorer, prepared(indices=normals)), "maps": maps_of(scorer, test, prepared())}


def run(bench: Bench) -> None:
    """Measure all sets, and write a row per set and way."""
    rows = []
    for name in bench.args.sets:
        units = []
        for draw in bench.args.draws:
            key = {"set": name, "draw": draw, "threads": bench.args.threads}
            units.append(bench.unit(key, partial(isolated, measure, name, draw, bench.args.threads, bench.args.limit)))
        found = [unit["alignment"] for unit in units]
        values = {figure: spread([each[figure] for each in found], 1) for figure in found[0]}
        rows.append(Row("Test normals before and after alignment; grey values of 255, degrees, %", name, values))
        for edges in EDGES:
            figures = [unit["maps"][edges] for unit in units]
            values = {figure: spread([100 * each[figure] for each in figures], 1) for figure in figures[0]}
            rows.append(Row("Maps by their edges, %", f"{name}, {edges}", values))
    notes = [
        "disturbed in space, both aligners always on, float32, default settings else",
        "mean ± standard deviation of draws",
    ]
    bench.write(sorted(rows, key=lambda row: row.table, reverse=True), notes=notes)


def main() -> None:
    """Run the script from the command line."""
    parser = options(__doc__)
    parser.set_defaults(out=HERE / "results" / "variants" / "alignment.jsonl")
    parser.add_argument("--sets", nargs="+", default=["toothbrush", "bottle", "capsules"], choices=list(SETS))
    parser.add_argument("--draws", nargs="+", type=int, default=[0, 1, 2])
    run(start("alignment", "FYD's alignment", parser.parse_args()))


if __name__ == "__main__":
    main()
