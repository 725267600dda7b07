"""PLUME on CIFAR-10: its ablations (Table 1c), all ten classes with the defaults, and the speed of its scorer.

Each image passes through the frozen backbone once; every fit, and k-NN beside it, reads the same table of features.
"""

from __future__ import annotations

import statistics
import time
import warnings
from typing import TYPE_CHECKING, Any

from cifar import Images, Table, neighbours
from common import SETS, Bench, Row, isolated, options, percent, spread, start

if TYPE_CHECKING:
    from frozen import FeatureTable

LITERAL: dict[str, Any] = {
    "normalise": "batch",
    "map_scale": None,
    "cooperative": True,
    "identity_start": False,
    "likelihood": False,
    "perturbator_width": None,
    "lr": None,
}
FORMS: dict[str, dict[str, Any]] = {
    "default": {},
    "the authors' code": {**LITERAL, "joint": False},
    "as printed": {**LITERAL, "constraint": "paper", "constraint_sum": True},
}
"""The default and two literal forms, all on the default backbone's own 1,280 values: adaptive pooling adds no rank."""
VARIANTS: dict[str, dict[str, str]] = {
    "LinearMap, contrast": {},
    "LinearMap, mean contrast": {"contrast": "mean"},
    "LinearMap, no contrast": {"contrast": "none"},
    "AddMult, contrast": {"perturbation": "addmult"},
    "AddMult, no contrast": {"perturbation": "addmult", "contrast": "none"},
    "Gaussian, contrast": {"perturbation": "gaussian"},
    "Gaussian, no contrast": {"perturbation": "gaussian", "contrast": "none"},
}
OURS = "LinearMap, contrast"
PAPER = {"LinearMap, contrast": 83.4, "LinearMap, no contrast": 76.8, "AddMult, no contrast": 68.4}
"""Mean AUROC of the ten classes where the paper's text gives it (ResNet-50, best epoch on the test set)."""
BAR, SPEED_BAR = 84.5, 0.95
FACTS = ("relative_size", "relative_size_sd", "divergence", "divergence_sd", "adaptivity")
TEN, EACH, ORDER, PERTURBED, LONG, SPEED = (
    "All ten classes with the default",
    "Each class, image AUROC %",
    "Table 1c: image AUROC %",
    "What the perturbation is like at the end of training",
    "Steps",
    "Scorer against its backbone alone",
)


def measure(table: FeatureTable, images: Images, kind: str, seed: int, settings: dict[str, Any]) -> dict[str, Any]:
    """Fit to one class and score the test images: AUROC, seconds, and what the training said last."""
    from frozen import TableSource, features_from

    from anomem.detectors import get
    from anomem.metrics import auroc

    started = time.perf_counter()
    with features_from(table), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        detector = get("plume")(preset="object", seed=seed, **settings)
        detector.fit(TableSource(table, images.rows("train", kind)), fit_precision="float32")
    seconds = time.perf_counter() - started
    test = images.rows("test")
    scores = detector.anomaly_score(TableSource(table, test), batch_size=256)
    facts = {k: v for record in detector.history_ for k, v in record.facts.items()}
    steps = max(record.step for record in detector.history_ if record.stage == "train")
    found = {"auroc": percent(auroc(scores, images.labels(test, kind))), "seconds": round(seconds, 1), "steps": steps}
    return found | {name: round(float(facts[name]), 4) for name in (*FACTS, "loss") if name in facts}


class Runs:
    """Units of this benchmark."""

    def __init__(self, bench: Bench, images: Images) -> None:
        self.bench, self.images, self.table = bench, images, Table(bench, images)

    def plume(self, kind: str, seed: int, **settings: Any) -> dict[str, Any]:
        """One fit of PLUME."""
        key = {"class": kind, "seed": seed, "precision": self.bench.args.precision, **settings}
        return self.bench.unit(key, lambda: measure(self.table(), self.images, kind, seed, settings))

    def knn(self, kind: str, seed: int) -> float:
        """AUROC of k-NN on the same features: sum of the two smallest squared distances."""
        key = {"class": kind, "seed": seed, "precision": self.bench.args.precision, "knn": "euclidean"}
        unit = self.bench.unit(key, lambda: neighbours(self.table(), self.images, kind, "euclidean", seed))
        return float(unit["0.0"])


def order_rows(runs: Runs, form: str, kinds: list[str]) -> list[Row]:
    """The seven rows of Table 1c, in one form, and k-NN beside them."""
    args = runs.bench.args
    settings = {**FORMS[form], "steps": args.steps}
    pairs = [(kind, seed) for kind in kinds for seed in args.seeds]
    found = {
        variant: [runs.plume(kind, seed, **settings, **changes) for kind, seed in pairs]
        for variant, changes in VARIANTS.items()
    }
    ours = [unit["auroc"] for unit in found[OURS]]
    rows = []
    for variant, units in found.items():
        level = [unit["auroc"] for unit in units]
        values = {"mean": spread(level), "paper, ten classes": PAPER.get(variant, "")}
        for kind in kinds:
            values[kind] = spread([a for (k, _), a in zip(pairs, level, strict=True) if k == kind])
        table = f"{ORDER}, {form}"
        if variant == OURS:
            rows.append(Row(table, variant, values))
            continue
        gain = spread([a - b for a, b in zip(ours, level, strict=True)])
        rows.append(Row(table, variant, {**values, "LinearMap, contrast gains": gain}, "gain > 0", gain["mean"] > 0))
    rows += [_perturbed(f"{form}: {variant}", units) for variant, units in found.items()]
    level = {kind: [runs.knn(kind, seed) for seed in args.seeds] for kind in kinds}
    every = [a for values in level.values() for a in values]
    rows.append(Row(f"{ORDER}, {form}", "k-NN", {"mean": spread(every), **{k: spread(v) for k, v in level.items()}}))
    return rows


def _perturbed(name: str, units: list[dict[str, Any]]) -> Row:
    values = {fact: spread([u[fact] for u in units], 3) for fact in FACTS if fact in units[0]}
    return Row(PERTURBED, name, {**values, "fit s": spread([u["seconds"] for u in units], 1)})


def ten_rows(runs: Runs, kinds: list[str]) -> list[Row]:
    """All classes with the default."""
    seeds = runs.bench.args.seeds[: runs.bench.args.ten_seeds]
    ours = {kind: [runs.plume(kind, seed) for seed in seeds] for kind in kinds}
    knn = {kind: [runs.knn(kind, seed) for seed in seeds] for kind in kinds}
    means = [statistics.fmean(units[i]["auroc"] for units in ours.values()) for i in range(len(seeds))]
    rivals = [statistics.fmean(values[i] for values in knn.values()) for i in range(len(seeds))]
    level = statistics.fmean(means)
    words = f">= {BAR} (the paper's, best epoch and lambda on the test set)"
    rows = [Row(TEN, "PLUME", {"AUROC %": spread(means)}, words, round(level, 2) >= BAR)]
    rows.append(Row(TEN, "k-NN on the same features", {"AUROC %": spread(rivals)}))
    for kind, units in ours.items():
        values = {"PLUME": spread([u["auroc"] for u in units]), "k-NN": spread(knn[kind])}
        rows.append(Row(EACH, kind, {**values, "fit s": spread([u["seconds"] for u in units], 1)}))
    return rows


def long_rows(runs: Runs, kind: str) -> list[Row]:
    """The paper's 100 epochs beside the default's number of steps."""
    args = runs.bench.args
    rows = []
    for name, settings in {"default": {}, "2,000": {"steps": args.steps}, "100 epochs": {"steps": None}}.items():
        unit = runs.plume(kind, args.seeds[0], **settings)
        steps = unit["steps"]
        rows.append(Row(LONG, f"{kind}, {name} ({steps} steps)", {"AUROC %": unit["auroc"], "fit s": unit["seconds"]}))
    return rows


def measure_speed(repeats: int, batch: int, threads: int) -> dict[str, Any]:
    """Forward passes of the scorer and of its backbone alone, taking turns; meant for a process of its own."""
    import numpy as np
    import torch

    from anomem.data.synthetic import crops
    from anomem.detectors import get

    torch.set_num_threads(threads)
    rng = np.random.default_rng(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        detector = get("plume")(steps=1).fit(crops("brick", 40, size=224, half="train", rng=rng))
    scorer = detector.scorer_
    images = torch.from_numpy(crops("brick", batch, size=224, half="test", rng=rng)).permute(0, 3, 1, 2)
    seconds: dict[str, list[float]] = {"scorer": [], "backbone": []}
    with torch.inference_mode():
        for turn in range(repeats + 3):
            order = list(seconds) if turn % 2 else list(seconds)[::-1]
            for name in order:
                forward = scorer if name == "scorer" else scorer.backbone
                started = time.perf_counter()
                forward(images)
                seconds[name].append(time.perf_counter() - started)
    timed = {name: values[3:] for name, values in seconds.items()}  # the first passes warm up
    ratios = [b / s for s, b in zip(timed["scorer"], timed["backbone"], strict=True)]
    rates = {name: batch / statistics.median(values) for name, values in timed.items()}
    return {"ratio": statistics.median(ratios), "rates": rates, "repeats": repeats, "batch": batch}


def speed_rows(bench: Bench) -> list[Row]:
    """Images a second of the scorer, relative to its backbone alone."""
    args = bench.args
    key = {"speed": args.repeats, "threads": args.threads}
    unit = bench.unit(key, lambda: isolated(measure_speed, args.repeats, 16, args.threads))
    values = {"ratio, median of pairs": round(unit["ratio"], 3)}
    values |= {f"{name}, images/s": round(rate, 1) for name, rate in unit["rates"].items()}
    return [Row(SPEED, "PLUME at 224 px", values, f">= {SPEED_BAR}x", unit["ratio"] >= SPEED_BAR)]


def main() -> None:
    """Measure and write the result file."""
    parser = options(__doc__)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="bfloat16", help="of the backbone")
    parser.add_argument("--classes", nargs="*", type=int, default=[1, 3, 5], help="of the ablations, by number")
    parser.add_argument("--forms", nargs="*", choices=list(FORMS), default=["default"], help="of the ablations")
    parser.add_argument("--steps", type=int, default=2000, help="of every fit of the ablations")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--ten", type=int, default=10, help="how many classes with the default; 0: none")
    parser.add_argument("--ten-seeds", type=int, default=1, help="how many of the seeds")
    parser.add_argument("--long", type=int, default=3, help="class of the run of 100 epochs, by number; -1: none")
    parser.add_argument("--repeats", type=int, default=40, help="pairs of timed passes; 0: none")
    bench = start("plume", "PLUME on frozen features", parser.parse_args())
    args, images = bench.args, Images(SETS["cifar10"].path, bench.args.limit)
    runs, rows = Runs(bench, images), []
    if args.ten:
        rows += ten_rows(runs, images.classes[: args.ten])
    kinds = [images.classes[number] for number in args.classes]
    for form in args.forms if kinds else ():
        rows += order_rows(runs, form, kinds)
    if args.long >= 0:
        rows += long_rows(runs, images.classes[args.long])
    if args.repeats:
        rows += speed_rows(bench)
    tables = list(dict.fromkeys(row.table for row in rows))
    rows.sort(key=lambda row: tables.index(row.table))
    notes = [
        f"Frozen backbone in {args.precision}, its features kept as float16; learnt from 65 % of a class.",
        f"Ablations: {args.steps} steps of 32 images each, {len(args.seeds)} seeds, classes {', '.join(kinds)}.",
        "Neither steps, rates nor lambda were chosen on CIFAR-10; the last step counts, no epoch is chosen.",
        "k-NN: sum of the two smallest squared Euclidean distances on the same features.",
    ]
    bench.write(rows, sets=["cifar10"], notes=notes)


if __name__ == "__main__":
    main()
