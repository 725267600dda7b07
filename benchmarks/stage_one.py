"""What stage 1 is worth on a pretrained backbone: seeding alone, the memories trained, the last stages trained too.

Four industrial sets with the default preset; CIFAR-10 classes and the coarse classes of CIFAR-100 with the preset for
objects. Where the backbone stays frozen, test images are scored from a table of its features.
"""

from __future__ import annotations

import statistics
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coarse import COARSE
from common import SETS, Bench, Row, isolated, options, percent, spread, start

if TYPE_CHECKING:
    from frozen import FeatureTable

VARIANTS = {
    "seeding alone": {},
    "memory trained": {"train_backbone": "none"},
    "memory and last stages": {"train_backbone": "last"},
}
INDUSTRIAL = ("magnetic_tile", "toothbrush", "bottle", "capsules")
SUMMARY, EACH, SECONDS = "Image AUROC %", "Image AUROC %, each class", "Seconds of the fit"


def parameters(variant: str, recipe: dict[str, Any]) -> dict[str, Any]:
    """Hyperparameters of a variant: steps only where something is trained."""
    if not VARIANTS[variant]:
        return {}
    return {"train_steps": recipe["steps"], "train_batch": recipe["batch"], "lr": recipe["lr"], **VARIANTS[variant]}


def fit(paths: list[Path], settings: dict[str, Any]) -> tuple[Any, float]:
    """A fitted detector, and seconds."""
    import anomem

    started = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        detector = anomem.AnoMem(**settings).fit(paths)
    return detector, round(time.perf_counter() - started, 1)


def measure_set(name: str, variant: str, recipe: dict[str, Any], limit: int | None, threads: int) -> dict[str, Any]:
    """One industrial set; meant for a process of its own."""
    import torch
    from scoring import labels_of, read_set

    from anomem.metrics import auroc

    torch.set_num_threads(threads)
    train, test = read_set(name, limit)
    settings = {**parameters(variant, recipe), "seed": recipe["seed"]}
    detector, seconds = fit([sample.path for sample in train], settings)
    scores = detector.anomaly_score(test)
    return {"image_auroc": percent(auroc(scores, labels_of(test))), "seconds": seconds}


class Objects:
    """CIFAR images of some classes: few enough normals to learn from, and a test set for all classes.

    Parameters
    ----------
    name : str
        Of the set.
    groups : dict
        Class to the folders that belong to it.
    n_train, n_test : int
        Images of each folder at most.
    """

    def __init__(self, name: str, groups: dict[str, tuple[str, ...]], n_train: int, n_test: int) -> None:
        self.name, root = name, SETS[name].path
        self.train = {kind: _files(root / "train", folders, n_train) for kind, folders in groups.items()}
        every = [folder.name for folder in sorted((root / "test").iterdir()) if folder.is_dir()]
        self.test = [path for folder in every for path in _files(root / "test", (folder,), n_test)]
        self.groups = groups

    def labels(self, kind: str) -> Any:
        """(N,) 1 where a test image is not of the class."""
        import numpy as np

        return np.asarray([int(path.parent.name not in self.groups[kind]) for path in self.test])


def _files(root: Path, folders: tuple[str, ...], count: int) -> list[Path]:
    return [path for folder in folders for path in sorted((root / folder).iterdir())[:count]]


class Tested:
    """Frozen features of a test set, extracted when first asked for."""

    def __init__(self, bench: Bench, objects: Objects) -> None:
        self.bench, self.objects = bench, objects
        self._opened: FeatureTable | None = None

    def __call__(self) -> FeatureTable:
        """The table."""
        if self._opened is None:
            import torch
            from cifar import shape
            from frozen import FeatureTable

            torch.set_num_threads(self.bench.args.threads)
            size, stages = shape()
            folder = self.bench.folder / f"{self.objects.name}-{size}-{len(self.objects.test)}"
            self._opened = FeatureTable(folder, self.objects.test, stages, size, precision="float32")
        return self._opened


def measure_class(table: Tested, kind: str, variant: str, recipe: dict[str, Any]) -> dict[str, Any]:
    """One class as normal."""
    from frozen import TableBackbone, TableSource

    from anomem.metrics import auroc

    objects, frozen = table.objects, VARIANTS[variant].get("train_backbone") != "last"
    opened = table()
    settings = {**parameters(variant, recipe), "preset": "object", "seed": recipe["seed"]}
    detector, seconds = fit(objects.train[kind], settings)
    images: Any = objects.test
    if frozen:
        detector.scorer_.backbone = TableBackbone(opened)
        images = TableSource(opened, range(len(objects.test)))
    scores = detector.anomaly_score(images, batch_size=64)
    return {"image_auroc": percent(auroc(scores, objects.labels(kind))), "seconds": seconds}


def industrial_rows(bench: Bench, recipe: dict[str, Any]) -> list[Row]:
    """Rows of the industrial sets."""
    args, rows = bench.args, []
    for name in args.sets:
        units = {
            variant: bench.unit(
                {"set": name, "variant": variant, **recipe},
                lambda n=name, v=variant: isolated(measure_set, n, v, recipe, args.limit, args.threads),
            )
            for variant in VARIANTS
        }
        label = f"{name} ({SETS[name].role})"
        rows.append(Row(SUMMARY, label, {v: u["image_auroc"] for v, u in units.items()}))
        rows.append(Row(SECONDS, label, {v: u["seconds"] for v, u in units.items()}))
    return rows


def object_rows(bench: Bench, objects: Objects, recipe: dict[str, Any]) -> list[Row]:
    """Rows of a CIFAR set: each class, and their mean."""
    table, found = Tested(bench, objects), {}
    for kind in objects.groups:
        found[kind] = {
            variant: bench.unit(
                {"set": objects.name, "class": kind, "variant": variant, **recipe, "train": len(objects.train[kind])},
                lambda k=kind, v=variant: measure_class(table, k, v, recipe),
            )
            for variant in VARIANTS
        }
    each = [
        Row(EACH, f"{objects.name}, {kind}", {v: u["image_auroc"] for v, u in units.items()})
        for kind, units in found.items()
    ]
    label = f"{objects.name}, mean of {len(found)} classes ({SETS[objects.name].role})"
    base = [units["seeding alone"]["image_auroc"] for units in found.values()]
    means: dict[str, Any] = {}
    for variant in VARIANTS:
        level = [units[variant]["image_auroc"] for units in found.values()]
        means[variant] = round(statistics.fmean(level), 2)
        if variant != "seeding alone":
            means[f"gain, {variant}"] = spread([a - b for a, b in zip(level, base, strict=True)])
    seconds = {v: spread([units[v]["seconds"] for units in found.values()], 1) for v in VARIANTS}
    return [Row(SUMMARY, label, means), Row(SECONDS, label, seconds), *each]


def main() -> None:
    """Measure all sets and write the result file."""
    parser = options(__doc__)
    parser.add_argument("--sets", nargs="*", default=list(INDUSTRIAL), choices=INDUSTRIAL)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lr", type=float, default=0.003)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cifar10", nargs="*", type=int, default=[1, 3, 5], help="classes, by number")
    parser.add_argument("--cifar10-train", type=int, default=1000, help="normals of a class")
    parser.add_argument("--cifar10-test", type=int, default=100, help="test images of each class")
    parser.add_argument("--coarse", type=int, default=len(COARSE), help="how many of CIFAR-100's coarse classes")
    bench = start("stage_one", "What stage 1 is worth on a pretrained backbone", parser.parse_args())
    args = bench.args
    recipe = {"steps": args.steps, "batch": args.batch, "lr": args.lr, "seed": args.seed}
    rows, sets = industrial_rows(bench, recipe), [*args.sets]
    cap = args.limit or 10**9
    if args.coarse:
        chosen = dict(list(COARSE.items())[: args.coarse])
        rows += object_rows(bench, Objects("cifar100_small", chosen, cap, cap), recipe)
        sets.append("cifar100_small")
    if args.cifar10:
        names = sorted(folder.name for folder in (SETS["cifar10"].path / "test").iterdir() if folder.is_dir())
        groups = {names[number]: (names[number],) for number in args.cifar10}
        part = Objects("cifar10", groups, min(args.cifar10_train, cap), min(args.cifar10_test, cap))
        rows += object_rows(bench, part, recipe)
        sets.append("cifar10")
    tables = (SUMMARY, SECONDS, EACH)
    rows.sort(key=lambda row: tables.index(row.table))
    notes = [
        f"{args.steps} steps of {args.batch} images (two views each), peak rate {args.lr:g}; one seed.",
        f"CIFAR-10: {len(args.cifar10)} classes, {args.cifar10_train} normals; {args.cifar10_test} test images each.",
        "CIFAR-100: 200 normals of a coarse class, 1,500 test images. Gain: mean and deviation over classes.",
    ]
    bench.write(rows, sets=sets, notes=notes)


if __name__ == "__main__":
    main()
