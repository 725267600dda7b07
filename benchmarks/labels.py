"""What a few labelled defects add: k = 3, 10, 30 of them in ten draws, and labels of one type scored on the others.

One fit a set and seed. Every test image is observed once; after each refit the second stage concludes from what was
observed, which is checked against the ordinary scoring path once a set. All k of a draw are scored on the same images:
test normals and the defects that no k of that draw has labelled.
"""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from common import SETS, Bench, Row, options, percent, spread, start

COUNTS = {"magnetic_tile": (3, 10, 30), "capsules": (3, 10, 30), "toothbrush": (3, 10)}
BAR_AT_30 = {"magnetic_tile": (96.0, 98.0), "capsules": (86.0, 93.0)}
CROSS_TYPE_SET, CROSS_TYPE_COUNTS = "magnetic_tile", (10, 30)
SLACK = 0.3
GAIN, LEVEL = "Labelled defects", "Held against the bars"
CROSS, PIXEL = "Labels of one type, scored on the other types", "Pixel level at k = 10, one draw"


@dataclass
class Fit:
    """A fitted detector, the test images, and what it observed on them."""

    detector: Any
    before: Any
    test: list[Any]
    labels: Any
    one_class: Any
    evidence: Any

    def refit(self, chosen: Sequence[int], *, masks: bool = False) -> Any:
        """Refit the one-class fit to these test images, all of them defects; return scores of all test images."""
        import torch

        self.detector._fitted = self.before
        samples = [self.test[i] for i in chosen]
        options = {} if masks else {"masks": [None] * len(samples)}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.detector.label(samples, **options)
        with torch.inference_mode():
            return self.detector.scorer_.conclude(self.one_class, self.evidence).numpy()


def open_fit(bench: Bench, name: str, seed: int) -> Fit:
    """Fit, or load the model of an earlier run, and observe the test images."""
    import torch
    from scoring import labels_of, read_set

    import anomem
    from anomem.data.imageset import ImageSet
    from anomem.data.sources import open_source
    from anomem.nn.inference import score_images

    torch.set_num_threads(bench.args.threads)
    train, test = read_set(name, bench.args.limit)
    file = bench.folder / f"{name}-{seed}.safetensors"
    if not file.exists():
        anomem.AnoMem(seed=seed).fit(train).save(file)
    detector = anomem.load(file)
    images = ImageSet(open_source(test), detector.preprocessing_)
    results = list(score_images(detector.scorer_, images, precision="float32", batch_size=16, evidence=True))
    one_class = torch.tensor([r.one_class for r in results])
    return Fit(detector, detector._fitted, test, labels_of(test), one_class, torch.stack([r.evidence for r in results]))


class Fits:
    """Opens a fit when the first unit asks for it, and holds one at a time."""

    def __init__(self, bench: Bench) -> None:
        self.bench, self.held = bench, {}

    def __call__(self, name: str, seed: int) -> Fit:
        """The fit of this set and seed."""
        if (name, seed) not in self.held:
            self.held = {(name, seed): open_fit(self.bench, name, seed)}
        return self.held[name, seed]


def check(fit: Fit, count: int) -> dict[str, Any]:
    """Compare the shortcut with the ordinary scoring path on the first images, after a refit."""
    import numpy as np

    chosen = np.flatnonzero(fit.labels == 1)[:10]
    shortcut = fit.refit(chosen)[:count]
    plain = fit.detector.anomaly_score(fit.test[:count])
    difference = float(np.abs(shortcut - plain).max() / np.ptp(plain))
    if difference > 1e-5:
        raise RuntimeError(f"scores from kept evidence differ from the scoring path by {difference:.1e} of their range")
    return {"largest_difference": difference, "images": len(plain)}


def draw(fit: Fit, counts: Sequence[int], number: int) -> dict[str, Any]:
    """One draw: AUROC one-class and at each k, on the same images."""
    import numpy as np

    from anomem.metrics import auroc

    order = np.random.default_rng(number).permutation(np.flatnonzero(fit.labels == 1))
    rest = np.setdiff1d(np.arange(len(fit.labels)), order[: max(counts)])
    found: dict[str, Any] = {"one_class": percent(auroc(fit.one_class.numpy()[rest], fit.labels[rest])), "n": len(rest)}
    for k in counts:
        scores = fit.refit(order[:k])
        found[str(k)] = percent(auroc(scores[rest], fit.labels[rest]))
        found[f"weight_{k}"] = round(fit.detector.scorer_.second_stage.weight, 3)
    return found


def cross_draw(fit: Fit, kind: str, counts: Sequence[int], number: int) -> dict[str, Any]:
    """One draw of labels of one type: AUROC on normals and the other types, one-class and at each k."""
    import numpy as np

    from anomem.metrics import auroc

    types = np.asarray([sample.type or "" for sample in fit.test])
    order = np.random.default_rng(number).permutation(np.flatnonzero(types == kind))
    rest = np.flatnonzero(types != kind)
    found: dict[str, Any] = {"one_class": percent(auroc(fit.one_class.numpy()[rest], fit.labels[rest]))}
    for k in counts:
        scores = fit.refit(order[:k])
        found[str(k)] = percent(auroc(scores[rest], fit.labels[rest]))
        found[f"weight_{k}"] = round(fit.detector.scorer_.second_stage.weight, 3)
    return found


def pixels(fit: Fit, k: int) -> dict[str, Any]:
    """Pixel level on the images of draw 0 that stay unlabelled: one-class, with labels, with labels and masks."""
    import numpy as np
    from scoring import pixel_level

    order = np.random.default_rng(0).permutation(np.flatnonzero(fit.labels == 1))
    samples = [fit.test[i] for i in np.setdiff1d(np.arange(len(fit.labels)), order[:k])]
    found = {}
    for setting in ("one_class", "labels", "labels_and_masks"):
        fit.detector._fitted = fit.before
        if setting != "one_class":
            fit.refit(order[:k], masks=setting == "labels_and_masks")
        found[setting] = pixel_level(samples, (r.map for r in fit.detector.score(samples, maps=True)))
    return found


def draws_of(bench: Bench, fits: Fits, name: str) -> list[dict[str, Any]]:
    """All draws of a set, over all seeds."""
    args, counts = bench.args, COUNTS[name] if not bench.args.limit else (3,)
    units = []
    for seed in args.seeds:
        here = {"set": name, "seed": seed}
        bench.unit({**here, "what": "check"}, lambda s=seed: check(fits(name, s), 64))
        units += [
            bench.unit({**here, "draw": d, "counts": list(counts)}, lambda s=seed, d=d: draw(fits(name, s), counts, d))
            for d in range(args.draws)
        ]
    return units


def rows_of(name: str, units: list[dict[str, Any]]) -> list[Row]:
    """Rows of one set: one a k, and those that are held against a bar."""
    rows = []
    one_class = [u["one_class"] for u in units]
    for k in [int(key) for key in units[0] if key.isdigit()]:
        scores = [u[str(k)] for u in units]
        gains = [a - b for a, b in zip(scores, one_class, strict=True)]
        gain = statistics.fmean(gains)
        values = {
            "one-class AUROC %": spread(one_class),
            "with labels %": spread(scores),
            "gain": spread(gains),
            "worst": round(min(gains), 2),
            "share of labels": spread([u[f"weight_{k}"] for u in units]),
            "images": units[0]["n"],
        }
        rows.append(Row(GAIN, f"{name}, k = {k}", values))
        rows.append(Row(LEVEL, f"gain, {name}, k = {k}", {"": round(gain, 2)}, ">= 0", round(gain, 2) >= 0))
        if k == 30:
            bar, goal = BAR_AT_30[name]
            level = statistics.fmean(scores)
            words = f">= {bar:g} (goal {goal:g})"
            rows.append(Row(LEVEL, f"AUROC %, {name}, k = 30", {"": round(level, 2)}, words, level >= bar))
    return rows


def cross_rows(bench: Bench, fits: Fits) -> list[Row]:
    """Rows of labels of one type, scored on the others."""
    from scoring import read_set

    args, counts = bench.args, CROSS_TYPE_COUNTS if not bench.args.limit else (3,)
    name = CROSS_TYPE_SET
    kinds = sorted({s.type for s in read_set(name, args.limit)[1] if s.type})
    gains: dict[int, list[float]] = {k: [] for k in counts}
    rows = []
    for kind in kinds:
        units = [
            bench.unit(
                {"set": name, "seed": seed, "labelled": kind, "draw": d, "counts": list(counts)},
                lambda s=seed, d=d, kind=kind: cross_draw(fits(name, s), kind, counts, d),
            )
            for seed in args.seeds[:1]
            for d in range(args.draws)
        ]
        for k in counts:
            here = [u[str(k)] - u["one_class"] for u in units]
            gains[k] += here
            values = {
                "one-class AUROC % on the others": spread([u["one_class"] for u in units]),
                "with labels %": spread([u[str(k)] for u in units]),
                "gain": spread(here),
                "share of labels": spread([u[f"weight_{k}"] for u in units]),
            }
            rows.append(Row(CROSS, f"{kind}, k = {k}", values))
    for k, all_gains in gains.items():
        mean = statistics.fmean(all_gains)
        title = f"gain on other types, {name}, k = {k}"
        rows.append(Row(LEVEL, title, {"": round(mean, 2)}, f">= -{SLACK} (mean over types)", mean >= -SLACK))
    return rows


def pixel_rows(bench: Bench, fits: Fits, name: str) -> list[Row]:
    """Rows of the pixel level with and without masks."""
    seed, k = bench.args.seeds[0], min(10, bench.args.limit or 10)
    unit = bench.unit({"set": name, "seed": seed, "what": "pixels", "k": k}, lambda: pixels(fits(name, seed), k))
    words = {"one_class": "one-class", "labels": "labels", "labels_and_masks": "labels and masks"}
    return [
        Row(PIXEL, f"{name}, {text}", {"pixel AUROC %": unit[key]["pixel_auroc"], "AUPRO %": unit[key]["aupro"]})
        for key, text in words.items()
    ]


def main() -> None:
    """Measure all sets and write the result file."""
    parser = options(__doc__)
    parser.add_argument("--sets", nargs="+", default=list(COUNTS), choices=COUNTS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1], help="of the fits; the first for cross-type")
    parser.add_argument("--draws", type=int, default=10)
    bench = start("labels", "Labelled defects", parser.parse_args())
    fits, rows = Fits(bench), []
    for name in bench.args.sets:
        rows += rows_of(name, draws_of(bench, fits, name))
        rows += pixel_rows(bench, fits, name)
        if name == CROSS_TYPE_SET:
            rows += cross_rows(bench, fits)
    tables = (LEVEL, GAIN, CROSS, PIXEL)
    rows.sort(key=lambda row: tables.index(row.table))
    notes = [
        "Spread: deviation over draws and seeds. Share of labels: w, 0 where cross-validation shows no gain.",
        "Draws label without masks, and with each defect's type; masks enter the pixel level alone.",
        f"Sets: {', '.join(f'{n} ({SETS[n].role})' for n in bench.args.sets)}.",
    ]
    bench.write(rows, sets=bench.args.sets, notes=notes)


if __name__ == "__main__":
    main()
