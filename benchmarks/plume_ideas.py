"""PLUME's classifier beside k-NN by cosine: does it find what k-NN misses? Chosen on CIFAR-100, reported on CIFAR-10.

    python -m benchmarks.plume_ideas

One class is normal, all others are anomalous. Both methods score the same test images; scores are standardised by those
of the normals that each keeps back to calibrate on, and joined.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch

from anomem.benchmark.image_sets import BenchmarkSet, open_bench_set
from anomem.detectors import get
from anomem.metrics import auroc
from anomem.types import FloatArray
from benchmarks.common import HERE, Bench, Row, isolated, options, spread, start

WEIGHTS = (0.25, 0.5, 1.0, 2.0)
OF = {"development": ("cifar100:coarse", 10), "report": ("cifar10", 3)}
"""Per role the set, and how many of its classes are normal in turn."""

Joined = Callable[[FloatArray, FloatArray], FloatArray]


def weighted(weight: float) -> Joined:
    """Return the sum of both scores with a weight on PLUME's."""
    return lambda near, plume: near + weight * plume


IDEAS: Mapping[str, Joined] = {
    "k-NN by cosine": lambda near, _: near,
    "PLUME": lambda _, plume: plume,
    "the larger of both": np.maximum,
    **{f"k-NN + {weight:g} PLUME": weighted(weight) for weight in WEIGHTS},
}


def classes_of(data: BenchmarkSet, count: int) -> tuple[str, ...]:
    """Return some classes, evenly spaced in their order."""
    return tuple(data.classes[i] for i in np.linspace(0, len(data.classes) - 1, count).round().astype(int))


def measure(name: str, normal: str, seed: int, most: int, threads: int) -> dict[str, float]:
    """Return the image AUROC of each idea with one normal class; for a separate process."""
    torch.set_num_threads(threads)
    warnings.simplefilter("ignore")
    data = open_bench_set(name).choose((normal,))
    chosen = np.sort(np.random.default_rng(0).permutation(len(data.test))[:most])
    test = data.test.subset(chosen, f"{data.test.name} {most}")
    settings: dict[str, Any] = {"preset": "object", "aspect": "square", "seed": seed}
    near = standardised(get("knn")(metric="cosine", **settings), data, test)  # type: ignore[call-arg]
    plume = standardised(get("plume")(**settings), data, test)
    return {idea: auroc(joined(near, plume), test.labels) for idea, joined in IDEAS.items()}


def standardised(detector: Any, data: BenchmarkSet, test: Any) -> FloatArray:
    """Fit, and return scores of the test images in deviations of the calibration's."""
    detector.fit(data.train.source, calibration="split")
    known = detector.calibration_.scores
    found: FloatArray = (detector.anomaly_score(test.source) - known.mean()) / known.std()
    return found


def run(bench: Bench) -> None:
    """Measure all classes, and write a row per set and idea."""
    rows, args = [], bench.args
    for role, (name, count) in OF.items():
        found: dict[str, list[float]] = {idea: [] for idea in IDEAS}
        for normal in classes_of(open_bench_set(name), count):
            key = {"set": name, "normal": normal, "seed": args.seed, "images": args.images, "threads": args.threads}
            work = partial(isolated, measure, name, normal, args.seed, args.images, args.threads)
            for idea, value in bench.unit(key, work).items():
                found[idea].append(100 * value)
        for idea, values in found.items():
            above = [value - other for value, other in zip(values, found["k-NN by cosine"], strict=True)]
            figures = {"image AUROC": spread(values, 1), "above k-NN": spread(above, 2)}
            rows.append(Row(f"Image AUROC, %: {role}, {name}, {count} classes", idea, figures))
    bench.write(rows, notes=[f"mean and deviation over classes, at most {args.images} test images, preset object"])


def main() -> None:
    """Run the script from the command line."""
    parser = options(__doc__)
    parser.set_defaults(out=HERE / "results" / "variants" / "plume-ideas.jsonl")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--images", type=int, default=3000, help="maximum number of test images")
    run(start("plume-ideas", "PLUME beside k-NN", parser.parse_args()))


if __name__ == "__main__":
    main()
