"""CIFAR-10 one-vs-rest with the preset for objects: normals alone, and with labelled anomalies of all other classes.

Each of the 60,000 images passes through the frozen backbone once; every fit reads its features from the table of
`frozen`, which is checked against a fit to the image files.
"""

from __future__ import annotations

import statistics
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common import SETS, Bench, Row, options, percent, spread, start

if TYPE_CHECKING:
    from frozen import FeatureTable

GAMMAS = (0.01, 0.05, 0.10)
PAPER = {0.0: 91.5, 0.01: 92.5, 0.05: 97.1, 0.10: 97.6}
METRICS = ("euclidean", "cosine")
NARROW = "Labelled anomalies from one class only (the next by number), scored on all others: mean of the first classes"
BARS, CLASSES = "Mean of the ten classes", "Each class"


class Images:
    """The image files in one order, and which class and part each belongs to."""

    def __init__(self, root: Path, limit: int | None) -> None:
        self.paths: list[Path] = []
        self.kinds: list[str] = []
        self.parts: list[str] = []
        self.classes = sorted(folder.name for folder in (root / "test").iterdir() if folder.is_dir())
        for part in ("train", "test"):
            for kind in self.classes:
                files = sorted((root / part / kind).iterdir())[:limit]
                self.paths += files
                self.kinds += [kind] * len(files)
                self.parts += [part] * len(files)

    def rows(self, part: str, kind: str | None = None, *, other_than: str | None = None) -> list[int]:
        """Positions of the images of one part: of a class, or of all but one class."""
        return [
            i
            for i, (p, k) in enumerate(zip(self.parts, self.kinds, strict=True))
            if p == part and (kind is None or k == kind) and k != other_than
        ]

    def labels(self, rows: list[int], normal: str) -> Any:
        """(N,) 1 where an image is not of the normal class."""
        import numpy as np

        return np.asarray([int(self.kinds[i] != normal) for i in rows])


class Table:
    """Opens the table of features when a unit asks for it."""

    def __init__(self, bench: Bench, images: Images) -> None:
        self.bench, self.images = bench, images
        self._opened: FeatureTable | None = None

    def __call__(self) -> FeatureTable:
        """The table; extracts what is missing."""
        if self._opened is None:
            import torch
            from frozen import FeatureTable

            torch.set_num_threads(self.bench.args.threads)
            size, stages = shape()
            precision = self.bench.args.precision
            folder = self.bench.folder.parent / "features" / f"cifar10-{size}-{'-'.join(map(str, stages))}-{precision}"
            self._opened = FeatureTable(folder, self.images.paths, stages, size, precision=precision)
        return self._opened


def shape() -> tuple[int, tuple[int | str, ...]]:
    """Side of the input and stages of the preset for objects."""
    import anomem

    resolved = anomem.AnoMem(preset="object").resolve()
    return resolved["size"], tuple(dict.fromkeys(resolved["stages"]))


def one_class_fit(table: FeatureTable, rows: list[int], seed: int) -> Any:
    """A detector with the preset for objects, fitted to normals of the table."""
    from frozen import TableBackbone, TableSource, features_from

    import anomem

    detector = anomem.AnoMem(preset="object", seed=seed)
    with features_from(table), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        detector.fit(TableSource(table, rows), fit_precision="float32")
    if not isinstance(detector.scorer_.backbone, TableBackbone):
        raise TypeError("the detector was fitted to colours: it did not take its features from the table")
    return detector


def measure(
    table: FeatureTable, images: Images, kind: str, draws: int, seed: int, source: str | None = None
) -> dict[str, Any]:
    """One class as normal: AUROC one-class, and at each gamma and draw of anomalies from the others, or from one."""
    import numpy as np
    import torch
    from frozen import TableSource

    from anomem.data.imageset import ImageSet
    from anomem.metrics import auroc
    from anomem.nn.inference import score_images

    normals = images.rows("train", kind)
    others = images.rows("train", source) if source else images.rows("train", other_than=kind)
    detector = one_class_fit(table, normals, seed)
    before, test = detector._fitted, images.rows("test")
    labels = images.labels(test, kind)
    looked_at = ImageSet(TableSource(table, test), before.preprocessing)
    seen = list(score_images(detector.scorer_, looked_at, precision="float32", batch_size=64, evidence=True))
    one_class, evidence = torch.tensor([r.one_class for r in seen]), torch.stack([r.evidence for r in seen])
    found: dict[str, Any] = {"0.0": percent(auroc(one_class.numpy(), labels)), "weights": {}}
    for gamma in GAMMAS:
        count = round(len(normals) * gamma / (1 - gamma))
        found[str(gamma)] = []
        for number in range(draws):
            rng = np.random.default_rng([images.classes.index(kind), number])
            chosen = [others[i] for i in rng.permutation(len(others))[:count]]
            detector._fitted = before
            detector.label(TableSource(table, chosen), types=[images.kinds[i] for i in chosen])
            scorer = detector.scorer_
            with torch.inference_mode():
                parts = zip(one_class.split(1000), evidence.split(1000), strict=True)
                scores = torch.cat([scorer.conclude(o, e) for o, e in parts]).numpy()
            found[str(gamma)].append(percent(auroc(scores, labels)))
            found["weights"][f"{gamma} {number}"] = round(scorer.second_stage.weight, 3)
    return found


def neighbours(table: FeatureTable, images: Images, kind: str, metric: str, seed: int) -> dict[str, Any]:
    """k-NN on the pooled embeddings of the same table."""
    from frozen import TableSource, features_from

    from anomem.detectors import get
    from anomem.metrics import auroc

    with features_from(table), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        detector = get("knn")(preset="object", metric=metric, seed=seed)
        detector.fit(TableSource(table, images.rows("train", kind)), fit_precision="float32")
    test = images.rows("test")
    scores = detector.anomaly_score(TableSource(table, test), batch_size=256)
    return {"0.0": percent(auroc(scores, images.labels(test, kind)))}


def check(bench: Bench, images: Images) -> dict[str, Any]:
    """Compare a fit to a float32 table with a fit to the files: a few images of one class and some of others."""
    import numpy as np
    import torch
    from frozen import FeatureTable, TableSource

    import anomem

    torch.set_num_threads(bench.args.threads)
    normals = images.rows("train", images.classes[1])[:80]
    test = images.rows("test", images.classes[1])[:20] + images.rows("test", other_than=images.classes[1])[:20]
    paths = [images.paths[i] for i in normals + test]
    detector = anomem.AnoMem(preset="object")
    size, stages = shape()
    table = FeatureTable(bench.folder / "check", paths, stages, size, precision="float32", dtype="float32")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain = detector.fit(paths[: len(normals)], fit_precision="float32").anomaly_score(paths[len(normals) :])
    rows = list(range(len(paths)))
    through = one_class_fit(table, rows[: len(normals)], 0)
    scores = through.anomaly_score(TableSource(table, rows[len(normals) :]))
    difference = float(np.abs(scores - plain).max() / np.ptp(plain))
    if difference > 1e-3:
        raise RuntimeError(f"a fit to the table differs from one to the files by {difference:.1e} of the scores' range")
    return {"largest_difference": difference, "images": len(test)}


def bar_rows(ours: dict[str, Any], knn: dict[str, dict[str, Any]]) -> list[Row]:
    """Means of the classes against the paper's, and against k-NN."""
    rows = []
    mean = statistics.fmean(unit["0.0"] for unit in ours.values())
    rows.append(_against("gamma 0", {"AUROC %": round(mean, 2)}, mean, PAPER[0.0], "the paper's"))
    for metric, units in knn.items():
        rival = statistics.fmean(unit["0.0"] for unit in units.values())
        rows.append(_against("gamma 0", {"AUROC %": round(mean, 2)}, mean, rival, f"k-NN, {metric}, same features"))
    for gamma in GAMMAS:
        draws = list(zip(*(unit[str(gamma)] for unit in ours.values()), strict=True))
        means = [statistics.fmean(draw) for draw in draws]
        level = statistics.fmean(means)
        rows.append(_against(f"gamma {gamma:g}", {"AUROC %": spread(means)}, level, PAPER[gamma], "the paper's"))
    return rows


def narrow_rows(narrow: dict[str, Any]) -> list[Row]:
    """Means of the classes where all labelled anomalies are of the next class by number."""
    rows = [Row(NARROW, "one-class", {"AUROC %": round(statistics.fmean(u["0.0"] for u in narrow.values()), 2)})]
    for gamma in GAMMAS:
        level = statistics.fmean(statistics.fmean(unit[str(gamma)]) for unit in narrow.values())
        rows.append(Row(NARROW, f"gamma {gamma:g}", {"AUROC %": round(level, 2)}))
    return rows


def _against(name: str, values: dict[str, Any], level: float, bar: float, words: str) -> Row:
    return Row(BARS, name, values, f">= {bar:.2f} ({words})", round(level, 2) >= round(bar, 2))


def class_rows(ours: dict[str, Any], knn: dict[str, dict[str, Any]]) -> list[Row]:
    """One row a class."""
    rows = []
    for kind, unit in ours.items():
        values = {"one-class %": unit["0.0"], **{f"k-NN {m} %": knn[m][kind]["0.0"] for m in knn}}
        values |= {f"gamma {g:g} %": spread(unit[str(g)]) for g in GAMMAS}
        rows.append(Row(CLASSES, kind, values))
    return rows


def main() -> None:
    """Measure all classes and write the result file."""
    parser = options(__doc__)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32", help="of the backbone")
    parser.add_argument("--draws", type=int, default=1, help="of the labelled anomalies")
    parser.add_argument("--classes", nargs="+", type=int, default=list(range(10)), help="by number")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--narrow", type=int, default=5, help="first classes that get labels of one class, too")
    bench = start("cifar", "CIFAR-10, one class against the rest", parser.parse_args())
    args, images = bench.args, Images(SETS["cifar10"].path, bench.args.limit)
    table = Table(bench, images)
    agreement = bench.unit({"what": "check"}, lambda: check(bench, images))
    ours: dict[str, Any] = {}
    narrow: dict[str, Any] = {}
    knn: dict[str, dict[str, Any]] = {metric: {} for metric in METRICS}
    for number in args.classes:
        kind = images.classes[number]
        key = {"class": kind, "precision": args.precision, "seed": args.seed}
        ours[kind] = bench.unit(
            {**key, "draws": args.draws}, lambda k=kind: measure(table(), images, k, args.draws, args.seed)
        )
        source = images.classes[(number + 1) % len(images.classes)]
        if number < args.narrow:
            narrow[kind] = bench.unit(
                {**key, "draws": args.draws, "from": source},
                lambda k=kind, s=source: measure(table(), images, k, args.draws, args.seed, s),
            )
        for metric in METRICS:
            knn[metric][kind] = bench.unit(
                {**key, "knn": metric}, lambda k=kind, m=metric: neighbours(table(), images, k, m, args.seed)
            )
    rows = [*bar_rows(ours, knn), *narrow_rows(narrow), *class_rows(ours, knn)]
    difference = agreement["largest_difference"]
    notes = [
        f"Frozen backbone in {args.precision}, its features kept as float16; {len(args.classes)} of 10 classes.",
        f"A fit to a float32 table and a fit to the files differ by {difference:.1e} of the scores' range.",
        "Labelled anomalies: drawn uniformly from the training images of all nine other classes, types named.",
        "One-class training images: all of the class, of which the detector learns from 65 %.",
    ]
    bench.write(rows, sets=["cifar10"], notes=notes)


if __name__ == "__main__":
    main()
