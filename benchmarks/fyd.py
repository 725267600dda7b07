"""FYD: the orderings that its paper claims, disturbed images against the frozen Gaussian, screw, alignment alone, time.

The frozen Gaussian (PaDiM) has the same backbone, the same drawn channels and the same input size. Groups of
measurements are chosen by ``--groups``; every fit is a process and a unit of its own.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from aligning import FEW_CHANNELS, TEXTURES, measure, measure_angles, measure_speed
from common import CONFOUNDED, SETS, Bench, Row, isolated, options, spread, start

from anomem.detectors.fyd.detector import FROZEN

GROUPS = ("orderings", "disturbed", "screw", "angle", "speed")
ARMS: dict[str, Mapping[str, Any]] = {
    "frozen": FROZEN,
    "+ non-contrastive training": {"image_alignment": "off", "feature_alignment": False},
    "+ FCA alone": {"image_alignment": "off"},
    "+ ICA alone": {"image_alignment": "on", "feature_alignment": False},
    "+ both": {"image_alignment": "on"},
}
BARE, TRAINED, FCA, ICA, BOTH = ARMS
CLAIMS = (
    ("training above the frozen Gaussian", TRAINED, (BARE,)),
    ("FCA above training alone", FCA, (TRAINED,)),
    ("ICA above training alone", ICA, (TRAINED,)),
    ("both above the better single one", BOTH, (FCA, ICA)),
    ("both above the frozen Gaussian", BOTH, (BARE,)),
)
"""What Table 4 of the paper claims: each arm above the rivals."""
GAIN_BAR, ARM_BAR, FIT_BAR = 2.0, 300.0, 900.0
ORDER, ARM, COMPACT, AGAINST, EACH, SCREW, ANGLE, TIME = (
    "Orderings on disturbed images: image AUROC, points",
    "Each arm of the orderings, on disturbed images",
    "Distance variance of normals in each arm (lower: more compact)",
    "Default against the frozen Gaussian: image AUROC, points",
    "Default and frozen Gaussian, each set",
    "Screw: pixel level",
    "Alignment alone: error against known rotations, degrees",
    "Seconds of a fit",
)


class Runs:
    """Units of this benchmark."""

    def __init__(self, bench: Bench) -> None:
        self.bench, self.args = bench, bench.args
        self.few = bench.args.seeds[: bench.args.few_seeds]

    def settings(self, changes: Mapping[str, Any], seed: int, size: int | None) -> dict[str, Any]:
        """Hyperparameters of a fit: the options' where given, but what an arm does not do stays undone."""
        asked = {"size": size, "train_steps": self.args.steps, "image_steps": self.args.image_steps}
        return {**{k: v for k, v in asked.items() if v is not None}, **changes, "seed": seed}

    def fit(
        self, name: str, changes: Mapping[str, Any], seed: int, *, disturbed: bool, size: int | None, compact: bool
    ) -> dict[str, Any]:
        """One fit, judged."""
        settings = self.settings(changes, seed, size)
        key = {"set": name, "disturbed": disturbed, "compact": compact, **settings}
        work = (measure, name, disturbed, settings, compact, self.args.limit, self.args.threads)
        return self.bench.unit(key, lambda: isolated(*work))

    def angles(self, name: str, turn: int, seed: int) -> dict[str, Any]:
        """ICA alone, against known rotations."""
        alone = {"image_alignment": "on", "feature_alignment": False, "train_steps": 0}
        settings = self.settings(alone, seed, self.args.order_size)
        key = {"angles": name, "turn": turn, "repeats": self.args.angle_repeats, **settings}
        work = (measure_angles, name, turn, settings, self.args.angle_repeats, self.args.limit, self.args.threads)
        return self.bench.unit(key, lambda: isolated(*work))

    def speed(self, changes: Mapping[str, Any], repeat: int) -> dict[str, Any]:
        """A fit's seconds."""
        settings = self.settings(changes, 0, None)
        key = {"speed": "screw", "repeat": repeat, "threads": self.args.threads, **settings}
        return self.bench.unit(
            key, lambda: isolated(measure_speed, "screw", settings, self.args.limit, self.args.threads)
        )


def order_rows(runs: Runs) -> list[Row]:
    """Each claim on the objects together and on the texture; each arm; distance variances."""
    args, rows = runs.args, []
    sets, size = [*args.order_sets, *args.textures], args.order_size
    units = {
        (name, arm): [runs.fit(name, ARMS[arm], s, disturbed=True, size=size, compact=True) for s in args.seeds]
        for name in sets
        for arm in ARMS
    }
    for claim, arm, rivals in CLAIMS:
        gains = {
            name: [
                u["image"] - max(r)
                for u, r in zip(units[name, arm], _columns(units, name, rivals, "image"), strict=True)
            ]
            for name in sets
        }
        means = [statistics.fmean(at) for at in zip(*(gains[name] for name in args.order_sets), strict=True)]
        values: dict[str, Any] = {name: spread(gains[name]) for name in sets}
        if means:
            values = {"mean of the objects": spread(means), **values}
        held = ("> 0 on objects", statistics.fmean(means) > 0) if means else ("", None)
        rows.append(Row(ORDER, claim, values, *held))
    for name in sets:
        for arm in ARMS:
            found = units[name, arm]
            rows.append(
                Row(ARM, f"{name}, {arm}", {**levels(found), "fit s": spread([u["seconds"] for u in found], 1)})
            )
            compact = {
                "all channels, ridge 0.01": _spread([u["all, ridge"] for u in found], 3),
                f"{FEW_CHANNELS} channels, ridge 0.01": _spread([u["ridge"] for u in found], 3),
                f"{FEW_CHANNELS}, relative ridge 0.01": _spread([u["relative ridge"] for u in found], 3),
                f"{FEW_CHANNELS}, no ridge": _spread([u["no ridge"] for u in found], 3),
            }
            rows.append(Row(COMPACT, f"{name}, {arm}", compact))
    slowest = max(u["seconds"] for found in units.values() for u in found)
    rows.append(
        Row(TIME, f"slowest arm of the orderings, {size} px", {"s": slowest}, f"<= {ARM_BAR:g}", slowest <= ARM_BAR)
    )
    return rows


def _columns(units: Mapping[Any, Any], name: str, arms: Iterable[str], key: str) -> list[tuple[float, ...]]:
    """For each seed the figures of some arms."""
    return list(zip(*([u[key] for u in units[name, arm]] for arm in arms), strict=True))


def _spread(values: Sequence[float | None], digits: int = 2) -> Any:
    there = [value for value in values if value is not None]
    return spread(there, digits) if len(there) == len(values) else None


def levels(units: Sequence[Mapping[str, Any]], *, image: bool = True) -> dict[str, Any]:
    """Columns of a table: what some seeds reach."""
    columns = {"image": "image AUROC %", "pixel": "pixel AUROC %", "aupro": "AUPRO %"}
    return {title: _spread([u[key] for u in units]) for key, title in columns.items() if image or key != "image"}


def against_rows(runs: Runs) -> list[Row]:
    """The default and the frozen Gaussian, on images as they are and disturbed."""
    args, rows, each = runs.args, [], []
    for disturbed, state in ((True, "disturbed"), (False, "as they are")):
        gains = {}
        for name in args.sets:
            units = {
                who: [runs.fit(name, how, s, disturbed=disturbed, size=args.size, compact=False) for s in runs.few]
                for who, how in (("FYD", {}), ("frozen", FROZEN))
            }
            gains[name] = [a["image"] - b["image"] for a, b in zip(units["FYD"], units["frozen"], strict=True)]
            for who, found in units.items():
                values = {**levels(found), "fit s": spread([u["seconds"] for u in found], 1)}
                if who == "FYD":
                    values["ICA kept"] = f"{sum(not u['ica_left_out'] for u in found)} of {len(found)}"
                each.append(Row(EACH, f"{name}, {state}, {who}", values))
        means = [statistics.fmean(at) for at in zip(*gains.values(), strict=True)]
        values = {"mean": spread(means), **{name: spread(gain) for name, gain in gains.items()}}
        held = (f">= +{GAIN_BAR:g} in the mean", statistics.fmean(means) >= GAIN_BAR) if disturbed else ("", None)
        rows.append(Row(AGAINST, f"FYD above frozen, images {state}", values, *held))
    return rows + each


def screw_rows(runs: Runs) -> list[Row]:
    """Pixel level of screw, images as they are."""
    args = runs.args
    units = {
        who: [runs.fit("screw", how, s, disturbed=False, size=args.size, compact=False) for s in runs.few]
        for who, how in (("FYD", {}), ("frozen", FROZEN))
    }
    rows = [Row(SCREW, who, levels(found, image=False)) for who, found in units.items()]
    gains = {
        title: [a[key] - b[key] for a, b in zip(units["FYD"], units["frozen"], strict=True)]
        for key, title in (("pixel", "pixel AUROC %"), ("aupro", "AUPRO %"))
    }
    met = all(statistics.fmean(gain) > 0 for gain in gains.values())
    return [*rows, Row(SCREW, "FYD above frozen", {k: spread(v) for k, v in gains.items()}, "> 0, both", met)]


def angle_rows(runs: Runs) -> list[Row]:
    """Error of the angles, beside that of turning nothing at all."""
    args, rows = runs.args, []
    for name, how in ANGLED.items():
        if name not in args.angle_sets:
            continue
        for turn in args.turns:
            units = [runs.angles(name, turn, seed) for seed in runs.few]
            for kind, title in how.items():
                values = {
                    f"{head}, {part}": spread([u[f"{who} {kind}"][part] for u in units], 1)
                    for who, head in (("ICA", "ICA"), ("none", "a constant"))
                    for part in ("median", "90 %")
                }
                met = values["ICA, median"]["mean"] < values["a constant, median"]["mean"]
                rows.append(Row(ANGLE, f"{name}, turned by up to {turn}, {title}", values, "median below", met))
    return rows


ANGLED = {
    "toothbrush": {"360": "one offset", "180": "one offset, modulo half a turn"},
    "screw": {"each": "between two turns of one"},
}
"""Screws lie anyhow to begin with: only how far each is turned is known, not where it points to."""


def speed_rows(runs: Runs) -> list[Row]:
    """Fits of screw's normals, files on disk, the default's input size."""
    rows = []
    for who, how in (("FYD", {}), ("frozen", FROZEN)):
        units = [runs.speed(how, repeat) for repeat in range(runs.args.repeats)]
        seconds = [u["seconds"] for u in units]
        held = (f"<= {FIT_BAR:g}", statistics.fmean(seconds) <= FIT_BAR) if who == "FYD" else ("", None)
        rows.append(Row(TIME, f"{who}, {units[0]['images']} images at 224 px", {"s": spread(seconds, 1)}, *held))
    return rows


def main() -> None:
    """Measure and write the result file."""
    parser = options(__doc__)
    parser.add_argument("--groups", nargs="+", choices=GROUPS, default=list(GROUPS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="they draw the disturbances as well")
    parser.add_argument("--few-seeds", type=int, help="how many of them outside the orderings; by default all")
    parser.add_argument("--order-sets", nargs="*", default=["toothbrush", "bottle"], choices=list(SETS))
    parser.add_argument("--textures", nargs="*", default=["textures/gravel"], choices=TEXTURES, help="of the orderings")
    parser.add_argument("--order-size", type=int, default=128, help="input size of the orderings and angles, pixels")
    parser.add_argument("--sets", nargs="+", default=["toothbrush", "bottle", "capsules"], choices=list(SETS))
    parser.add_argument("--size", type=int, help="input size elsewhere; by default the preset's")
    parser.add_argument("--angle-sets", nargs="+", default=list(ANGLED), choices=list(ANGLED))
    parser.add_argument("--turns", nargs="+", type=int, default=[45, 180], help="largest known rotations, degrees")
    parser.add_argument("--angle-repeats", type=int, default=8, help="turns of each fresh normal")
    parser.add_argument("--steps", type=int, help="train_steps; by default the detector's")
    parser.add_argument("--image-steps", type=int, help="of ICA alone; by default the detector's")
    parser.add_argument("--repeats", type=int, default=1, help="of the speed")
    bench = start("fyd", "FYD", parser.parse_args())
    args, runs = bench.args, Runs(bench)
    works: dict[str, tuple[Callable[[Runs], list[Row]], list[str]]] = {
        "disturbed": (against_rows, args.sets),
        "orderings": (order_rows, args.order_sets),
        "screw": (screw_rows, ["screw"]),
        "angle": (angle_rows, args.angle_sets),
        "speed": (speed_rows, ["screw"]),
    }
    rows = [row for group, (work, _) in works.items() if group in args.groups for row in work(runs)]
    rows.sort(key=lambda row: (AGAINST, ORDER, SCREW, ANGLE, TIME, EACH, ARM, COMPACT).index(row.table))
    names = [name for group, (_, used) in works.items() if group in args.groups for name in used]
    steps, image_steps = (value or "the default's" for value in (args.steps, args.image_steps))
    notes = [
        f"Seeds {args.seeds}, outside the orderings {runs.few}: of disturbance, split and channels; gains by seed.",
        f"Steps of training: {steps}; of the image aligner alone: {image_steps}; frozen: no step at all.",
        "Disturbed: every training and test image once, zoom 0.8 to 1.25, rotation up to 45 degrees, flips.",
        f"Orderings and angles at {args.order_size} px; elsewhere the default's input size: {args.size or 224} px.",
        "Paper, ResNet-18, all of MVTec AD: frozen 92.3, trained 95.7, one aligner 96.2, both 97.3.",
        "Paper, MVTec AD disturbed in space: frozen Gaussian 93.3, FYD 95.6.",
        f"screw: {CONFOUNDED}.",
        "Distance variance: Eq. 10, mean over positions; a fixed ridge favours small features, the others do not.",
        "A dash: no more normals than channels, so that all distances are the same.",
        "Angles: ICA alone, fitted to normals turned at random; fresh normals turned by known angles.",
    ]
    bench.write(rows, sets=dict.fromkeys(names), notes=notes)


if __name__ == "__main__":
    main()
