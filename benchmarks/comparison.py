"""Every method on every set where it applies, with its defaults: one page, one command.

Industrial sets are fitted with the default preset. Of CIFAR-10 and MNIST one class is normal, and a method takes the
first of its presets that is made for such images. Methods that learn from labels alone get ten defects, drawn by seed;
these are left out of the test of every method, so that all are scored on the same images.
"""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from typing import Any

from common import CONFOUNDED, SETS, Bench, Row, isolated, options, peak_mb, spread, start

INDUSTRIAL = ("toothbrush", "bottle", "magnetic_tile", "capsules", "screw")
CLASSES = {"cifar10": "automobile", "mnist_small": "3"}
PRESETS = {"cifar10": ("object",), "mnist_small": ("digits", "object")}
LABELLED = 10
COLUMNS = {
    "image_auroc": "Image AUROC %",
    "pixel_auroc": "Pixel AUROC %",
    "aupro": "AUPRO %",
    "fit_seconds": "Fit, seconds",
    "images_per_second": "Images a second",
    "peak_mb": "Peak memory, MB",
    "file_mb": "Model file, MB",
}


def read(name: str, limit: int | None, thin: int) -> tuple[list[Any], list[Any]]:
    """Training and test samples; of sets of classes `thin` normals to learn from, and as many test images."""
    from scoring import read_set, thinned

    from anomem.data.sources import read_dataset

    if name in INDUSTRIAL:
        return read_set(name, limit)
    dataset = read_dataset(SETS[name].path, normal=CLASSES[name])
    test = thinned(dataset.test, limit or max(1, thin // 10))
    return list(dataset.train)[: limit or thin], test


def configured(method: str, name: str, seed: int) -> Any:
    """The method's detector with its defaults, or with the preset that is made for such images."""
    from anomem.detectors import get

    kind = get(method)
    fitting = [preset for preset in PRESETS.get(name, ()) if preset in getattr(kind, "presets", {})]
    return kind(seed=seed, **({"preset": fitting[0]} if fitting else {}))


def measure(
    method: str, name: str, seed: int, limit: int | None, threads: int, thin: int, model_file: str
) -> dict[str, Any]:
    """Fit and score; meant for a process of its own."""
    import numpy as np
    import torch
    from scoring import image_level, labels_of, pixel_level

    from anomem.types import NORMAL

    torch.set_num_threads(threads)
    train, test = read(name, limit, thin)
    defects = np.random.default_rng(seed).permutation(np.flatnonzero(labels_of(test)))[:LABELLED]
    labelled = [test[i] for i in defects]
    test = [sample for i, sample in enumerate(test) if i not in set(defects.tolist())]
    detector = configured(method, name, seed)
    given = [s for s in train if s.label == NORMAL] + (labelled if detector.supervision == "required" else [])
    started = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        detector.fit(given)
    fit_seconds = time.perf_counter() - started
    detector.save(model_file)
    size = Path(model_file).stat().st_size
    Path(model_file).unlink()
    started = time.perf_counter()
    results = list(detector.score(test, maps=detector.localizes))
    seconds = time.perf_counter() - started
    scores = np.asarray([r.score for r in results], dtype=np.float32)
    masked = detector.localizes and any(sample.mask is not None for sample in test)
    pixels = pixel_level(test, [r.map for r in results if r.map is not None]) if masked else {}
    return {
        "image_auroc": image_level(scores, labels_of(test))["image_auroc"],
        "pixel_auroc": pixels.get("pixel_auroc"),
        "aupro": pixels.get("aupro"),
        "fit_seconds": round(fit_seconds, 1),
        "images_per_second": round(len(test) / seconds, 1),
        "peak_mb": round(peak_mb()),
        "file_mb": round(size / 2**20, 2),
        "preset": detector.get_params().get("preset", ""),
    }


def rows_of(found: dict[str, dict[str, list[dict[str, Any]]]], sets: list[str]) -> list[Row]:
    """One table a figure: a row a method, a column a set."""
    rows = []
    for key, title in COLUMNS.items():
        for method, units in found.items():
            values = {name: _joined([u[key] for u in units[name]], 1 if key != "file_mb" else 2) for name in sets}
            if key == "image_auroc" and "screw" in sets:
                values["screw"] = None
            if any(value is not None for value in values.values()):
                rows.append(Row(title, method, values))
    return rows


def _joined(values: list[Any], digits: int) -> Any:
    return None if any(value is None for value in values) else spread(values, digits)


def main() -> None:
    """Measure all methods on all sets and write the result file."""
    from anomem.detectors import DETECTORS

    parser = options(__doc__)
    parser.add_argument("--methods", nargs="+", choices=list(DETECTORS), default=list(DETECTORS))
    parser.add_argument("--sets", nargs="+", choices=[*INDUSTRIAL, *CLASSES], default=[*INDUSTRIAL, *CLASSES])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--thin", type=int, default=1000, help="normals, and test images, of sets of classes at most")
    bench: Bench = start("comparison", "All methods, all sets", parser.parse_args())
    args = bench.args
    found: dict[str, dict[str, list[dict[str, Any]]]] = {method: {} for method in args.methods}
    for name in args.sets:
        for method in args.methods:
            model = str(bench.folder / f"{method}-{name}.safetensors")
            found[method][name] = [
                bench.unit(
                    {"method": method, "set": name, "seed": seed, "thin": args.thin if name in CLASSES else None},
                    lambda m=method, n=name, s=seed, f=model: isolated(
                        measure, m, n, s, args.limit, args.threads, args.thin, f
                    ),
                )
                for seed in args.seeds
            ]
    chosen = ", ".join(f"{name}: class {kind}" for name, kind in CLASSES.items())
    notes = [
        f"Defaults of every method; seeds {', '.join(map(str, args.seeds))}.",
        f"{chosen}; {args.thin} normals to learn from, {args.thin // 10} test images of each class.",
        f"screw: {CONFOUNDED}. A dash: the method draws no maps, or the set has no masks.",
        f"{LABELLED} defects, drawn by seed, are left out of every test; methods that need labels learn from them.",
        "Seconds, images a second and memory are those of one process with the threads stated, on a busy machine.",
        "simclr on cifar10: its learning rate was settled with test images of one CIFAR-10 class in view: optimistic.",
        "pmb on mnist_small: its widths were changed after a first run on the test images: optimistic.",
    ]
    bench.write(rows_of(found, args.sets), sets=args.sets, notes=notes)


if __name__ == "__main__":
    main()
