"""Principal components and the nearest neighbour in pixel space: what a method that reconstructs images has to beat.

    python -m benchmarks.pixels --out benchmarks/results/pixels.jsonl

Both learn from the normals that a fit of the same seed learns from and tunes on, and are judged on the same test
images, so that their lines stand beside those of `anomem bench`. Grey images, without a network; digits at their 28 px.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from anomem.benchmark.environment import made_by
from anomem.benchmark.image_sets import BenchmarkSet, open_bench_set
from anomem.benchmark.run_file import RunFile
from anomem.benchmark.unit import FORMAT, Task, Unit, Variant, images_digest
from anomem.data.labelled_images import Images
from anomem.data.sources import ImageSource
from anomem.data.splits import split_normals
from anomem.metrics import auroc, bootstrap_interval
from anomem.types import FloatArray

SETS = ("mnist", "mvtec_ad/toothbrush", "magnetic_tile", "mvtec_ad/bottle", "visa/capsules", "mvtec_ad/screw")
SIDES = {"mnist": 28}
SIDE = 64
COMPONENTS = (10, 40)


def main() -> None:
    """Append the lines that the file lacks."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--out", type=Path, required=True, help="file of lines, appended to")
    parser.add_argument(
        "--data", nargs="*", default=["mnist", "mvtec_ad/toothbrush", "magnetic_tile", "mvtec_ad/bottle"]
    )
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    args = parser.parse_args()
    with RunFile(args.out) as run_file:
        for name in args.data:
            for category, data in columns(open_bench_set(name)):
                for line in lines(name, category, data, args.seeds):
                    if line["key"] not in run_file.keys:
                        run_file.append({**line, "made_by": made_by("cpu", 1)})
            print(name, flush=True)


def columns(data: BenchmarkSet) -> Iterator[tuple[str, BenchmarkSet]]:
    """Yield every class as the normal one, or the set that says itself what is normal."""
    for normal in data.classes or ("",):
        yield normal or data.category, data.choose((normal,) if normal else ())


def lines(name: str, category: str, data: BenchmarkSet, seeds: list[int]) -> Iterator[dict[str, Any]]:
    """Yield the lines of one column."""
    side = SIDES.get(name, SIDE)
    (known, digests), (asked, judged) = (seen(images, side) for images in (data.train, data.test))
    for seed in seeds:
        split = split_normals(digests, data.train.groups or None, seed=seed)
        learnt = known[np.sort(np.concatenate([split.learn, split.tune]))]
        for label, scores in scored(learnt, asked).items():
            params = {"size": side, "by": label.partition(", ")[2]}
            task = task_of(name, category, bool(data.classes))
            unit = Unit(task, Variant("pixels", params, label), seed)
            low, high = bootstrap_interval(auroc, scores, data.test.labels, draws=100)
            image = {"auroc": float(auroc(scores, data.test.labels)), "auroc_ci": [float(low), float(high)]}
            yield {
                "format": FORMAT,
                "key": unit.key,
                "protocol": task.protocol,
                "data": name,
                "set": data.title,
                "category": category,
                "group": data.group,
                "role": data.role,
                "train": task.train,
                "task": task.facts,
                "method": "pixels",
                "label": label,
                "sweep": None,
                "seed": seed,
                "parameters": params,
                "limit": None,
                "dry_steps": None,
                "n_fit": {"train": len(learnt)},
                "image": image,
                "images_sha256": images_digest(judged),
            }


def task_of(name: str, category: str, of_classes: bool) -> Task:
    """Return the task as `anomem bench` has it."""
    if of_classes:
        return Task("one-vs-rest", name, category, {"normal": [category]}, {"gamma": 0.0})
    return Task("localisation", name, category, {}, {"maps": True})


_seen: dict[tuple[ImageSource, int], tuple[FloatArray, list[int]]] = {}


def seen(images: Images, side: int) -> tuple[FloatArray, list[int]]:
    """Return grey images of `side` pixels as rows of values from 0 to 1, and their content hashes; read once."""
    if (images.source, side) not in _seen:
        rows, digests = [], []
        for i in range(len(images)):
            image, digest = images.source.load_with_digest(i)
            grey = Image.fromarray(image).convert("L").resize((side, side), Image.Resampling.BILINEAR)
            rows.append(np.asarray(grey, np.float32).ravel() / 255)
            digests.append(digest)
        _seen[images.source, side] = np.stack(rows), digests
    return _seen[images.source, side]


def scored(known: FloatArray, asked: FloatArray) -> dict[str, FloatArray]:
    """Return scores of test images: squared error of their reconstruction, and squared distance to the nearest."""
    mean = known.mean(axis=0)
    axes = np.linalg.svd(known - mean, full_matrices=False)[2]
    scores: dict[str, FloatArray] = {}
    for count in COMPONENTS:
        kept = axes[:count]
        error = (asked - mean) - (asked - mean) @ kept.T @ kept
        scores[f"pixels, {count} principal components"] = np.square(error).sum(axis=1)
    squared = np.square(asked).sum(axis=1)[:, None] + np.square(known).sum(axis=1) - 2 * asked @ known.T
    return scores | {"pixels, nearest neighbour": squared.min(axis=1)}


if __name__ == "__main__":
    main()
