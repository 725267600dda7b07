"""Simulated inspector: what a label is worth, in the order of the review queue and in random order.

``python -m benchmarks.campaign.station.inspector``, hours, resumed where it was ended; ``$ANOMEM_DATA`` for the image
sets. Each run splits the test images into a pool, which the inspector sees, and a hidden half, which judges. The model
is fitted to normals alone; the inspector answers with the ground truth, parts confirmed normal teach nothing before the
next full fit, and after each batch of labels the second stage is refitted to the labelled defects, as the station does.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import anomem
from anomem.data.labelled_images import Images
from anomem.detector import Detector
from anomem.metrics.image import auroc
from anomem.params import parse_assignments
from anomem.service.queue import worth_order
from anomem.types import ANOMALOUS
from benchmarks.campaign.result import write_result
from benchmarks.common import Bench, opened, options, start

SETS = ("magnetic_tile", "toothbrush", "aitex", "stains", "capsules")
LABELS = (0, 2, 4, 8, 16, 32)
ORDERS = ("queue", "random")
ALPHA = 0.05


def run_of(name: str, seed: int, *, images: int, settings: Sequence[str]) -> dict[str, Any]:
    """Run an inspector per order on one set, and return the figures on the hidden half per number of labels."""
    warnings.simplefilter("ignore")
    data = opened(name, images)
    rng = np.random.default_rng([seed, 14])
    pool, hidden = _halves(data.test.labels, rng)
    drawn = rng.permutation(pool).tolist()
    found: dict[str, Any] = {"pool": len(pool), "hidden": len(hidden)}
    with tempfile.TemporaryDirectory(prefix="anomem-inspector-") as room:
        file = Path(room) / "model.safetensors"
        anomem.AnoMem(**{"seed": seed, **parse_assignments(anomem.AnoMem, settings)}).fit(
            list(data.train.paths), alpha=ALPHA
        ).save(file)
        for order in ORDERS:
            found[order] = _inspected(file, data.test, pool, hidden, drawn if order == "random" else None)
    return found


def _inspected(
    file: Path, test: Images, pool: list[int], hidden: list[int], drawn: list[int] | None
) -> list[dict[str, Any]]:
    """Label the pool step by step, in the order `drawn` or in that of the review queue."""
    model, seen, steps = _opened(file), list[int](), []
    for count in LABELS:
        if count > len(pool):
            break
        left = [i for i in drawn or pool if i not in set(seen)]
        seen += _next(model, left, test.paths, count - len(seen), queue=drawn is None)
        defects = [test.paths[i] for i in seen if test.labels[i] == ANOMALOUS]
        model = _opened(file)
        if defects:
            model.label(defects)
            model.set_alpha(max(ALPHA, model.calibration_.alpha_min))
        judged = _judged(model, [test.paths[i] for i in hidden], test.labels[hidden])
        steps.append({"labels": count, "defects": len(defects), **judged})
    return steps


def _halves(labels: Any, rng: np.random.Generator) -> tuple[list[int], list[int]]:
    """Return pool and hidden half, each with half of the images of either label."""
    pool: list[int] = []
    hidden: list[int] = []
    for label in sorted(set(labels.tolist())):
        own = rng.permutation(np.flatnonzero(labels == label))
        pool += own[: len(own) // 2].tolist()
        hidden += own[len(own) // 2 :].tolist()
    return sorted(pool), sorted(hidden)


def _opened(file: Path) -> Detector:
    model = anomem.load(file)
    if not isinstance(model, Detector):
        raise TypeError(f"{file}: is no fitted detector")
    model.set_alpha(max(ALPHA, model.calibration_.alpha_min))
    return model


def _next(model: Detector, left: list[int], paths: Sequence[Path], count: int, *, queue: bool) -> list[int]:
    """Return the images that the inspector labels next."""
    if count <= 0 or not queue:
        return left[: max(0, count)]
    results = list(model.score([paths[i] for i in left]))
    scores, p_values = [result.score for result in results], [result.p_value for result in results]
    return [left[i] for i in worth_order(scores, p_values, model.calibration_.alpha, count)]


def _judged(model: Detector, paths: list[Path], labels: Any) -> dict[str, Any]:
    results = list(model.score(paths))
    rejected = np.asarray([result.anomalous for result in results])
    defect = labels == ANOMALOUS
    return {
        "alpha": model.calibration_.alpha,
        "detection": float(rejected[defect].mean()),
        "false_alarms": float(rejected[~defect].mean()),
        "auroc": float(auroc([result.score for result in results], labels)),
    }


def compared(runs: list[dict[str, Any]], figure: str, count: int) -> dict[str, Any] | None:
    """Return mean figures of both orders after so many labels, and the paired difference with its 95 % interval."""
    values = {
        order: [step[figure] for run in runs for step in run[order] if step["labels"] == count] for order in ORDERS
    }
    pairs = list(zip(values["queue"], values["random"], strict=True))
    if not pairs:
        return None
    differences = [a - b for a, b in pairs]
    mean = statistics.fmean(differences)
    result: dict[str, Any] = {
        "queue": round(statistics.fmean(values["queue"]), 4),
        "random": round(statistics.fmean(values["random"]), 4),
        "difference": round(mean, 4),
    }
    if len(differences) > 1:
        from scipy.stats import t

        half = t.ppf(0.975, len(differences) - 1) * statistics.stdev(differences) / len(differences) ** 0.5
        result["interval_95"] = [round(float(mean - half), 4), round(float(mean + half), 4)]
    return result


def table(bench: Bench, name: str) -> list[dict[str, Any]]:
    """Run all inspectors of a set, and return its rows: one per number of labels."""
    args = bench.args
    runs = []
    for seed in range(args.runs):
        key = {"set": name, "seed": seed, "images": args.images, "settings": list(args.set)}
        work = {"images": args.images, "settings": list(args.set)}
        runs.append(bench.unit(key, lambda s=seed, w=work: run_of(name, s, **w)))
    rows = []
    for count in LABELS:
        figures = {figure: compared(runs, figure, count) for figure in ("detection", "false_alarms", "auroc")}
        defects = compared(runs, "defects", count)
        if defects is not None:
            rows.append({"labels": count, "defects_found": defects, **figures})
    return rows


def main() -> None:
    """Run the sets and write their tables."""
    parser = options(__doc__)
    parser.add_argument("--sets", nargs="*", choices=SETS, default=list(SETS))
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--images", type=int, default=300, help="at most so many normals, and test images per label")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="hyperparameters, for trials")
    parser.set_defaults(out=None)
    bench = start("inspector", "Simulated inspector", parser.parse_args())
    args: argparse.Namespace = bench.args
    result = {name: table(bench, name) for name in args.sets}
    facts = {"alpha": ALPHA, "runs": args.runs, "images": args.images, "settings": args.set}
    write_result("station-inspector", {**facts, "sets": result}, None if args.out is None else Path(args.out))


if __name__ == "__main__":
    main()
