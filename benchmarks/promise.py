"""The promised false-alarm rate, put to the test on fresh normals of magnetic tile.

Of each fit, a pool: its calibration normals and the test set's normals, so nothing that it learnt from or was tuned on.
The pool is split again and again into normals to calibrate on and fresh ones, as many to calibrate on as the fit had.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from common import Row, isolated, options, start

NAME = "magnetic_tile"
ALPHA = 0.05
BARS, FITS = "Over all splits", "Each fit"


def measure(seed: int, limit: int | None, threads: int, redraws: int) -> dict[str, Any]:
    """Fit once, then redraw who calibrates and who is fresh."""
    import numpy as np
    import torch
    from scipy.stats import betabinom
    from scoring import read_set

    import anomem
    from anomem.runtime.calibration import calibrate, rejected_ranks

    torch.set_num_threads(threads)
    train, test = read_set(NAME, limit)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        detector = anomem.AnoMem(seed=seed).fit(train)
    scores = pool_scores(detector, [*train, *(s for s in test if s.label == 0)])
    n, rng = detector.calibration_.n, np.random.default_rng(seed)
    splits = []
    for _ in range(redraws):
        order = rng.permutation(len(scores))
        calibration, fresh = calibrate(scores[order[:n]], ALPHA), scores[order[n:]]
        false = int(calibration.decide(fresh).sum())
        k = rejected_ranks(ALPHA, n)
        splits.append(
            {
                "rate": false / len(fresh),
                "within_limit": bool(false / len(fresh) <= calibration.rate_limit_95),
                "within_quantile": bool(false <= betabinom.ppf(0.95, len(fresh), k, n + 1 - k)),
            }
        )
    limits = {
        "rate_limit_95": calibration.rate_limit_95,
        "quantile": float(betabinom.ppf(0.95, len(fresh), k, n + 1 - k)),
    }
    return {"n": n, "fresh": len(fresh), "expected": k / (n + 1), **limits, "splits": splits}


def pool_scores(detector: Any, samples: list[Any]) -> Any:
    """Scores of normals, each content once, that neither taught nor tuned the detector."""
    import numpy as np

    from anomem.data.sources import PathSource

    digests = detector.digests_by_role_
    taken = set(digests["learn"] | digests["tune"])
    pool: list[Path] = []
    source = PathSource([sample.path for sample in samples])
    for i, sample in enumerate(samples):
        digest = source.digest(i)
        if digest not in taken:
            taken.add(digest)
            pool.append(sample.path)
    return np.asarray(detector.anomaly_score(pool))


def clustered_error(rates: list[list[float]], draws: int = 10_000) -> float:
    """Bootstrap error of the mean rate, fits drawn with all their splits: splits of one fit share its normals."""
    import numpy as np

    means = np.asarray([np.mean(fit) for fit in rates])
    rng = np.random.default_rng(0)
    return float(means[rng.integers(len(means), size=(draws, len(means)))].mean(axis=1).std())


def main() -> None:
    """Measure and write the result file."""
    import numpy as np

    parser = options(__doc__)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4], help="of the fits")
    parser.add_argument("--redraws", type=int, default=10, help="splits of each fit's pool")
    bench = start("promise", "The promised false-alarm rate", parser.parse_args())
    args = bench.args
    units = [
        bench.unit(
            {"set": NAME, "seed": seed, "redraws": args.redraws},
            lambda s=seed: isolated(measure, s, args.limit, args.threads, args.redraws),
        )
        for seed in args.seeds
    ]
    rates = [[split["rate"] for split in unit["splits"]] for unit in units]
    mean, error, count = float(np.mean(rates)), clustered_error(rates), sum(map(len, rates))
    rows = [
        Row(
            BARS,
            f"false-alarm rate on fresh normals, alpha 5 %, {count} splits",
            {
                "%": round(100 * mean, 2),
                "error": round(100 * error, 2),
                "expected %": round(100 * units[0]["expected"], 2),
            },
            f"<= 5 % + 2 errors = {100 * (ALPHA + 2 * error):.2f} %",
            mean <= ALPHA + 2 * error,
        )
    ]
    for key, title, column in (
        ("within_quantile", "splits within the beta-binomial 95 % quantile", "quantile"),
        ("within_limit", "splits within the printed 95 % limit of the rate", "rate_limit_95"),
    ):
        held = [[float(split[key]) for split in unit["splits"]] for unit in units]
        share, slack = float(np.mean(held)), 2 * clustered_error(held)
        limit = units[0][column] / (units[0]["fresh"] if column == "quantile" else 1)
        values = {"%": round(100 * share, 1), "error": round(50 * slack, 2), "limit %": round(100 * limit, 2)}
        rows.append(Row(BARS, title, values, ">= 95 % - 2 errors", share >= 0.95 - slack))
    for seed, unit in zip(args.seeds, units, strict=True):
        fit_rates = [100 * split["rate"] for split in unit["splits"]]
        values = {
            "mean rate %": round(float(np.mean(fit_rates)), 2),
            "lowest %": round(min(fit_rates), 2),
            "highest %": round(max(fit_rates), 2),
            "calibrate": unit["n"],
            "fresh": unit["fresh"],
        }
        rows.append(Row(FITS, f"seed {seed}", values))
    notes = [
        "Error: bootstrap over fits, each with all its splits, since the splits of a fit share its normals.",
        "Expected: k / (n + 1), k = floor(alpha (n + 1)): what the promise gives exactly with n calibration normals.",
        "The quantile counts for the finite number of fresh normals; the printed limit is that of the rate itself.",
    ]
    bench.write(rows, sets=[NAME], notes=notes)


if __name__ == "__main__":
    main()
