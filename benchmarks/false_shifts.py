"""Batches of normals that are called shifted although nothing has changed, by simulation.

    python -m benchmarks.false_shifts

Per case, fits on simulated normals: for `split` calibration scores are drawn like those of new images; for `cross` they
are distances to the nearest normal of other folds, as in fits, and new images are held against all normals.
"""

from __future__ import annotations

from functools import partial
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from anomem.data.splits import fold_normals
from anomem.runtime.calibration import calibrate
from anomem.runtime.shift import LEVEL, Shift, find_shift
from benchmarks.common import HERE, Bench, Row, isolated, options, start

SIZES, BATCHES, DIMENSIONS = (20, 50, 200), (20, 100), (2, 32)
ALPHA = 0.05
Scores: TypeAlias = npt.NDArray[np.float64]
TABLE = "Batches called shifted without a shift, %"


def split_scores(rng: np.random.Generator, n: int, batch: int) -> tuple[Scores, Scores]:
    """Draw calibration and new scores alike."""
    return rng.standard_normal(n), rng.standard_normal(batch)


def cross_scores(rng: np.random.Generator, n: int, batch: int, dimensions: int) -> tuple[Scores, Scores, int]:
    """Score normals by the nearest of other folds, and new ones by the nearest of all; return the number of folds."""
    normals, new = rng.standard_normal((n, dimensions)), rng.standard_normal((batch, dimensions))
    folds = np.asarray(fold_normals(range(n), range(n), seed=int(rng.integers(1 << 30))))
    scores = np.empty(n)
    for fold in np.unique(folds):
        scores[folds == fold] = cKDTree(normals[folds != fold]).query(normals[folds == fold])[0]
    return scores, cKDTree(normals).query(new)[0], len(np.unique(folds))


def measure(n: int, batch: int, dimensions: int, fits: int) -> dict[str, Any]:
    """Count batches that differ, and those of which the accepted scores are higher; 0 dimensions: `split`."""
    rng = np.random.default_rng([n, batch, dimensions])
    found: list[Shift] = []
    for _ in range(fits):
        if dimensions:
            known, new, folds = cross_scores(rng, n, batch, dimensions)
            calibration = calibrate(known, ALPHA, kind="cross", folds=folds)
        else:
            known, new = split_scores(rng, n, batch)
            calibration = calibrate(known, ALPHA)
        shift = find_shift(calibration, new)
        if shift is not None:
            found.append(shift)
    differing = [shift for shift in found if shift.p_value <= LEVEL]
    return {"fits": fits, "differing": len(differing), "shifted": sum(shift.shifted for shift in found)}


def run(bench: Bench) -> None:
    """Simulate all cases, and write one row each."""
    rows, fits = [], bench.args.fits
    for n in SIZES:
        for batch in BATCHES:
            values: dict[str, Any] = {"fits": fits}
            for dimensions in (0, *DIMENSIONS):
                key = {"n": n, "batch": batch, "dimensions": dimensions, "fits": fits}
                unit = bench.unit(key, partial(isolated, measure, *key.values()))
                name = f"cross, {dimensions} dimensions" if dimensions else "split"
                values[f"{name}, called shifted"] = round(100 * unit["shifted"] / fits, 2)
                if dimensions:
                    values[f"{name}, differing either way"] = round(100 * unit["differing"] / fits, 2)
            rows.append(Row(TABLE, f"{n} normals, batch of {batch}", values))
    bench.write(rows, notes=[f"alpha {ALPHA:g}; k nearest neighbours with k = 1 on standard normal vectors"])


def main() -> None:
    """Run the script from the command line."""
    parser = options(__doc__)
    parser.set_defaults(out=HERE / "results" / "variants" / "false-shifts.jsonl")
    parser.add_argument("--fits", type=int, default=1000, help="simulated fits per case")
    run(start("false-shifts", "Shift test without a shift", parser.parse_args()))


if __name__ == "__main__":
    main()
