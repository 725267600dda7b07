"""Simulated inspector: what a label is worth, in the order of the review queue and in random order.

``python -m benchmarks.campaign.station.inspector``, resumed where it was ended; ``$ANOMEM_DATA`` for the image sets.
The model is fitted once per set, to normals alone. Each run splits the test images into a pool, which the inspector
sees, and a hidden half, which judges; the inspector answers with the ground truth. Defects are rare in the pool, as on
a line. After each batch of labels the second stage is refitted to the labelled defects, and the candidate is judged and
promoted by the station's own rule: if it is better on the labels. Parts confirmed normal teach nothing before the next
full fit.
"""

from __future__ import annotations

import argparse
import hashlib
import statistics
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch

import anomem
from anomem.data.corpus import read_corpus
from anomem.data.samples import Sample
from anomem.detector import Detector
from anomem.detectors.anomem.scorer import MultiScaleScorer
from anomem.detectors.anomem.stage_two import Observed, fit_heads, observe
from anomem.fitting import Run, conclude, gather_labelled, make_run
from anomem.metrics.image import auroc
from anomem.nn.devices import copy_scorer
from anomem.params import parse_assignments
from anomem.runtime.calibration import Calibration, calibrate
from anomem.runtime.progress import run_to_end
from anomem.service.jobs.candidates import judged
from anomem.service.jobs.spec import ImageRow, Spec
from anomem.service.queue import worth_order
from anomem.training import isolated_rng
from anomem.types import ANOMALOUS
from benchmarks.campaign.result import write_result
from benchmarks.common import Bench, opened, options, start

SETS = ("magnetic_tile", "toothbrush", "aitex", "stains", "capsules")
LABELS = (0, 2, 4, 8, 16, 32)
ORDERS = ("queue", "random")
ALPHA = 0.05
GOOD_PER_DEFECT, LEAST_DEFECTS = 3, 6
"""Good parts per defect in the pool, and the number of defects that it holds all the same."""


@dataclass(frozen=True)
class Parts:
    """Test images of a set as a fitted model sees them: everything but the second stage, computed once.

    Parameters
    ----------
    rows : sequence of ImageRow
        Test images.
    labels : array of int
        Ground truth, (n,).
    observed : Observed
    types : sequence of str or None
    model : Detector
        Fitted to normals alone.
    """

    rows: Sequence[ImageRow]
    labels: Any
    observed: Observed
    types: Sequence[str | None]
    model: Detector

    def run(self) -> Run[Any]:
        """Return the circumstances of one refit."""
        params = type(self.model).from_dict(self.model.resolved_).resolve(strict=False)
        return make_run(params, device="cpu", fit_precision="auto", batch_size=16, workers=1)


class Version:
    """Version of the model: labels and scores as a detector does, without a forward pass.

    Parameters
    ----------
    parts : Parts
    scorer : MultiScaleScorer
    calibration : Calibration
    """

    def __init__(self, parts: Parts, scorer: MultiScaleScorer, calibration: Calibration) -> None:
        self._parts, self._scorer, self._row_of = parts, scorer, {Path(r.path): i for i, r in enumerate(parts.rows)}
        self.calibration_ = calibration

    def copy(self) -> Version:
        """Return a version that further labels change on its own."""
        return Version(self._parts, self._scorer, self.calibration_)

    def label(self, samples: Sequence[Sample], **_: Any) -> None:
        """Refit the second stage to defects."""
        chosen = torch.tensor([self._row_of[sample.path] for sample in samples])
        scorer, run = self._scorer.relabelled(), self._parts.run()
        types = [self._parts.types[i] for i in chosen.tolist()]
        seen, defects = self._parts.observed.subset(chosen), torch.ones(len(chosen), dtype=torch.bool)
        run_to_end(isolated_rng(fit_heads(scorer, seen, defects, types, run, maps=False), int(run.params.seed)))
        known = self.calibration_
        options: dict[str, Any] = {"kind": known.kind, "folds": known.folds}
        self._scorer, self.calibration_ = scorer, calibrate(conclude(scorer), known.alpha, known.precision, **options)

    def scores(self, rows: Sequence[int]) -> Any:
        """Return the scores of test images."""
        seen = self._parts.observed.subset(torch.tensor(rows))
        if not self._scorer.second_stage.active:
            return seen.one_class.numpy()
        with torch.inference_mode():
            return self._scorer.conclude(seen.one_class, seen.evidence).numpy()

    def score(self, paths: Sequence[str], **_: Any) -> Iterator[SimpleNamespace]:
        """Score test images, as a detector does."""
        scores = self.scores([self._row_of[Path(path)] for path in paths])
        for score, p_value in zip(scores, self.calibration_.p_value(scores), strict=True):
            yield SimpleNamespace(score=float(score), p_value=float(p_value), error=None)


def prepared(name: str, *, images: int, settings: Sequence[str]) -> Parts:
    """Fit the model of a set, and observe its test images."""
    warnings.simplefilter("ignore")
    data = opened(name, images)
    model = anomem.AnoMem(**parse_assignments(anomem.AnoMem, settings)).fit(list(data.train.paths), alpha=ALPHA)
    run, options = Parts([], None, None, (), model).run(), {"preprocessing": model.preprocessing_}
    corpus = run_to_end(read_corpus(list(data.test.paths), data.test.labels.tolist(), **options))
    everything = np.arange(len(data.test.paths))
    labelled, _ = gather_labelled(corpus, everything, model.preprocessing_, model.digests_by_role_, run)
    observed = run_to_end(observe(copy_scorer(model.scorer_, torch.device("cpu")), labelled, run))
    hashes = [hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in data.test.paths]
    rows = [ImageRow(str(path), path.name, i, hashes[i], defect=True) for i, path in enumerate(data.test.paths)]
    return Parts(rows, data.test.labels, observed, labelled.types, model)


def run_of(parts: Parts, seed: int) -> dict[str, Any]:
    """Run an inspector per order, and return the figures on the hidden half per number of labels."""
    rng = np.random.default_rng([seed, 14])
    pool, hidden = _halves(parts.labels, rng)
    drawn = rng.permutation(pool).tolist()
    found: dict[str, Any] = {"pool": len(pool), "hidden": len(hidden)}
    for order in ORDERS:
        found[order] = _inspected(parts, pool, hidden, drawn if order == "random" else None)
    return found


def _inspected(parts: Parts, pool: list[int], hidden: list[int], drawn: list[int] | None) -> list[dict[str, Any]]:
    """Label the pool step by step, in the order `drawn` or in that of the review queue."""
    current, seen, steps = Version(parts, parts.model.scorer_, parts.model.calibration_), list[int](), []
    known: dict[str, float] = {}
    for count in LABELS:
        if count > len(pool):
            break
        left = [i for i in drawn or pool if i not in set(seen)]
        seen += _next(current, left, count - len(seen), queue=drawn is None)
        defects = [parts.rows[i] for i in seen if parts.labels[i] == ANOMALOUS]
        candidate, promoted = current.copy(), False
        if defects:
            spec = Spec(kind="refit", out="", alpha=ALPHA, max_pixels=0, out_of_fold=known)
            figures = judged(cast(Detector, candidate), spec, defects, lambda _: None)
            candidate.label([row.sample() for row in defects])
            promoted = bool(figures["better"])
            if promoted:
                current, known = candidate, figures["out_of_fold"]
        judgement = _judged(current, hidden, parts.labels[hidden])
        steps.append({"labels": count, "defects": len(defects), "promoted": int(promoted), **judgement})
    return steps


def _halves(labels: Any, rng: np.random.Generator) -> tuple[list[int], list[int]]:
    """Return pool and hidden half, each with half of the images of either label, some defects left out of the pool."""
    good, defects = (rng.permutation(np.flatnonzero((labels == ANOMALOUS) == anomalous)) for anomalous in (False, True))
    n_good, n_defects = len(good) // 2, len(defects) // 2
    rare = min(n_defects, max(LEAST_DEFECTS, n_good // GOOD_PER_DEFECT))
    pool = [*good[:n_good].tolist(), *defects[:rare].tolist()]
    return sorted(pool), sorted([*good[n_good:].tolist(), *defects[n_defects:].tolist()])


def _next(version: Version, left: list[int], count: int, *, queue: bool) -> list[int]:
    """Return the images that the inspector labels next."""
    if count <= 0 or not queue:
        return left[: max(0, count)]
    scores = version.scores(left)
    p_values = version.calibration_.p_value(scores)
    return [left[i] for i in worth_order(scores.tolist(), p_values.tolist(), _alpha(version), count)]


def _alpha(version: Version) -> float:
    return max(ALPHA, version.calibration_.alpha_min)


def _judged(version: Version, rows: list[int], labels: Any) -> dict[str, Any]:
    scores = version.scores(rows)
    rejected = version.calibration_.p_value(scores) <= _alpha(version)
    defect = labels == ANOMALOUS
    return {
        "alpha": _alpha(version),
        "detection": float(rejected[defect].mean()),
        "false_alarms": float(rejected[~defect].mean()),
        "auroc": float(auroc(scores, labels)),
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
    parts = cache(lambda: prepared(name, images=args.images, settings=args.set))
    runs = []
    for seed in range(args.runs):
        key = {"set": name, "seed": seed, "images": args.images, "settings": list(args.set)}
        runs.append(bench.unit(key, lambda s=seed: run_of(parts(), s)))
    rows = []
    for count in LABELS:
        figures = {figure: compared(runs, figure, count) for figure in ("detection", "false_alarms", "auroc")}
        defects, promoted = compared(runs, "defects", count), compared(runs, "promoted", count)
        if defects is not None:
            rows.append({"labels": count, "defects_found": defects, "promoted": promoted, **figures})
    return rows


def main() -> None:
    """Run the sets and write their tables."""
    parser = options(__doc__)
    parser.add_argument("--sets", nargs="*", choices=SETS, default=list(SETS))
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--images", type=int, default=100, help="at most so many normals, and test images per kind")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="hyperparameters, for trials")
    parser.set_defaults(out=None)
    bench = start("inspector", "Simulated inspector", parser.parse_args())
    args: argparse.Namespace = bench.args
    result = {name: table(bench, name) for name in args.sets}
    facts = {"alpha": ALPHA, "runs": args.runs, "images": args.images, "settings": args.set}
    write_result("station-inspector", {**facts, "sets": result}, None if args.out is None else Path(args.out))


if __name__ == "__main__":
    main()
