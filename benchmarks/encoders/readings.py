"""Readings of AnoMem's memory layer, trained for some steps on CIFAR-10 training images, and measured on others.

    python -m benchmarks.encoders.readings --out benchmarks/results/variants/anomem-readings.jsonl

The paper names a modern Hopfield layer, and neither the normalisation of its items nor their initial values. Each
reading trains a quarter-width ResNet-18 at 32 px without classes; 2,000 held-out training images show the mean cosine
of retrievals, the gradient that reaches the backbone and the items, the number of items in use, and the loss against
chance, ln(2B - 1). Test images are not opened. A finished reading is skipped.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import torch

from anomem.benchmark.environment import made_by
from anomem.benchmark.run_file import RunFile
from anomem.benchmark.unit import FORMAT, canonical
from benchmarks.encoders.training import (
    curve,
    effective_rank,
    facts_of,
    neighbour_accuracy,
    pooled,
    prepared,
    running,
    settled,
    trained,
)

_SEEDED: dict[str, Any] = {"seeding": "kmeans", "stage_one.warmup": 50}
READINGS: dict[str, dict[str, Any]] = {
    "raw, dot, beta 2, convergence": {
        "normalise": "raw",
        "association": "dot",
        "retrieval_steps": None,
    },
    "layernorm both, beta 2 / sqrt(C), random": {},
    "layernorm both, beta 2 / sqrt(C), seeded": _SEEDED,
    "layernorm both, beta 2, random": {"association": "dot"},
    "layernorm both, beta 2, seeded": {**_SEEDED, "association": "dot"},
    "unit both, beta 16, seeded": {**_SEEDED, "normalise": "unit-both", "beta": 16.0, "association": "dot"},
    "batch variance, layernorm both, beta 2 / sqrt(C), random": {
        "stage_one.contrast.variance": "batch",
        "stage_one.contrast.unit": None,
    },
    "identity": {"memory": "identity"},
    "seeded after 200 steps": {"seeding": "kmeans", "stage_one.warmup": 200},
    "seeded after 300 steps": {"seeding": "kmeans", "stage_one.warmup": 300},
    "unit both, beta 16, seeded after 200 steps": {
        "seeding": "kmeans",
        "stage_one.warmup": 200,
        "normalise": "unit-both",
        "beta": 16.0,
        "association": "dot",
    },
}
"""What each reading changes of preset "paper"."""


def main() -> None:
    """Train and measure every reading that the file lacks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="file of lines, appended to")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--images", type=int, default=10_000, help="training images that are learnt")
    parser.add_argument("--held-out", type=int, default=2_000, help="training images that measure")
    parser.add_argument("--only", nargs="*", default=list(READINGS))
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with RunFile(args.out) as run_file:
        for name in args.only:
            key = canonical([name, READINGS[name], args.steps, args.images, args.held_out, args.seed])
            if key not in run_file.keys:
                figures = measured(name, args)
                task = {"reading": name, "parameters": READINGS[name], "steps": args.steps, "seed": args.seed}
                line = {"format": FORMAT, "key": key, "protocol": "anomem-readings", "task": task, "figures": figures}
                run_file.append({**line, "made_by": made_by("cpu", 1)})
                print(name, {k: v for k, v in figures.items() if k != "curve"}, flush=True)


def measured(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Train one reading; return its figures."""
    detector = settled(READINGS[name], args.steps, args.seed)
    run = running(detector)
    images = prepared("cifar10", detector, "train", most=args.images + args.held_out)
    learn, held_out = images.part(range(args.images)), images.part(range(args.images, len(images.classes)))
    found = trained(detector, learn.images, run)
    facts = facts_of(found, held_out.images, run)
    known, asked = pooled(found.scorer, learn.images), pooled(found.scorer, held_out.images)
    stage = run.params.stage_one
    return {
        **{name: round(value, 4) for name, value in facts.items()},
        "chance": round(math.log(2 * (stage.batch if stage else 1) - 1), 4),
        "neighbours": round(neighbour_accuracy(known, learn.classes, asked, held_out.classes), 4),
        "effective_rank": round(effective_rank(asked), 2),
        "seconds": round(found.seconds, 1),
        "curve": list(curve(found.history)),
    }


if __name__ == "__main__":
    main()
