"""PMB's orderings on industrial objects: delta_H (Table VI) and the number of levels with a memory (Fig. 9).

    python -m benchmarks.pmb_orders

delta_H takes part in scoring alone, so that one fit per seed and number of levels is scored at all its values.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch

from anomem.data.imageset import ImageSet
from anomem.detectors import get
from anomem.detectors.reconstruction.scorer import ReconstructionScorer
from benchmarks.common import HERE, SETS, Bench, Row, isolated, opened, options, spread, start
from benchmarks.maps import judged

SHARES = (0.0, 0.25, 0.5, 0.75, 0.9)
"""Values of delta_H."""

P = (4, 5)
BATCH = 16

Figures = dict[str, dict[str, float]]
"""Figures per value of delta_H, as text."""

ORDERS = {
    "delta_H 50 % against 0, p = 4": ((4, 0.5), (4, 0.0)),
    "delta_H 50 % against 0, p = 5": ((5, 0.5), (5, 0.0)),
    "p = 4 against 5": ((4, 0.5), (5, 0.5)),
    "p = 5 against 4": ((5, 0.5), (4, 0.5)),
}


def measure(name: str, seed: int, p: int, steps: int, threads: int, limit: int | None) -> Figures:
    """Fit once, and judge at each delta_H; for a separate process."""
    torch.set_num_threads(threads)
    warnings.simplefilter("ignore")
    data = opened(name, limit)
    detector: Any = get("pmb")(preset="object", memory_levels=p, train_steps=steps, seed=seed)
    detector.fit(data.train.source)
    scorer: ReconstructionScorer = detector.scorer_
    found = {}
    for share in SHARES:
        scorer.config["error_share"] = share
        prepared = ImageSet(data.test.source, detector.preprocessing_, workers=1)
        with torch.inference_mode():
            outputs = [scorer(batch.images) for batch in prepared.batches(BATCH)]
        scores, maps = torch.cat([each.score for each in outputs]), torch.cat([each.map for each in outputs])
        found[str(share)] = judged(scores, maps, data.test)
    return found


def rows_of(name: str, found: Mapping[int, list[Figures]]) -> list[Row]:
    """Return rows of one set: figures per p and delta_H, and differences of the same seeds."""
    table, rows = f"PMB on {name}, preset object, %", []
    for p, units in found.items():
        for share in SHARES:
            figures = [unit[str(share)] for unit in units]
            values = {figure: spread([100 * each[figure] for each in figures], 1) for figure in figures[0]}
            rows.append(Row(table, f"p = {p}, delta_H {share:.0%}", values))
    for order, ((p, share), (other_p, other_share)) in ORDERS.items():
        pairs = list(zip(found[p], found[other_p], strict=True))
        one, other = str(share), str(other_share)
        values = {
            figure: spread([100 * (mine[one][figure] - rival[other][figure]) for mine, rival in pairs], 1)
            for figure in pairs[0][0][one]
        }
        rows.append(Row(f"PMB's orderings on {name}, points", order, values))
    return rows


def run(bench: Bench) -> None:
    """Measure all sets, and write their rows."""
    rows, args = [], bench.args
    for name in args.sets:
        found: dict[int, list[Figures]] = {p: [] for p in P}
        for seed in args.seeds:
            for p in P:
                key = {"set": name, "seed": seed, "p": p, "steps": args.steps, "threads": args.threads}
                work = partial(isolated, measure, name, seed, p, args.steps, args.threads, args.limit)
                found[p].append(bench.unit(key, work))
        rows += rows_of(name, found)
    rows.sort(key=lambda row: row.table)
    bench.write(rows, notes=["mean ± standard deviation of seeds; differences are of the same seeds"])


def main() -> None:
    """Run the script from the command line."""
    parser = options(__doc__)
    parser.set_defaults(out=HERE / "results" / "variants" / "pmb-orders.jsonl")
    parser.add_argument("--sets", nargs="+", default=["toothbrush", "magnetic_tile"], choices=list(SETS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=600, help="optimiser steps per fit")
    run(start("pmb-orders", "PMB's orderings", parser.parse_args()))


if __name__ == "__main__":
    main()
