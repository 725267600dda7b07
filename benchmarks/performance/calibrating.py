"""Processor time of a fit with cross-fitted calibration against one with a split, in turns.

Each fit is a separate process: reading, features, memories, calibration.
"""

from __future__ import annotations

import statistics
import time
import warnings
from functools import partial
from typing import Any

from benchmarks.common import SETS, Bench, Row, isolated, opened, options, spread, start

TABLE = "Fit with cross-fitted calibration against a split, seconds of processor time"
KINDS = ("split", "cross")


def measure(name: str, kind: str, limit: int | None, threads: int) -> dict[str, Any]:
    """Fit the default to the training images of a set; for a separate process."""
    import torch

    from anomem.detectors import get

    torch.set_num_threads(threads)
    warnings.simplefilter("ignore")
    train = opened(name, limit).train
    worked = time.process_time()
    get("anomem")().fit(train.source, groups=train.groups or None, calibration=kind, device="cpu")
    return {"seconds": round(time.process_time() - worked, 2), "images": len(train)}


def run(bench: Bench) -> None:
    """Measure all sets, and write one row each."""
    args, rows = bench.args, []
    for name in args.sets:
        found: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
        for turn in range(args.rounds):
            for kind in KINDS if turn % 2 else KINDS[::-1]:
                key = {"set": name, "calibration": kind, "round": turn, "threads": args.threads}
                work = partial(isolated, measure, name, kind, args.limit, args.threads)
                found[kind].append(bench.unit(key, work))
        seconds = {kind: [unit["seconds"] for unit in units] for kind, units in found.items()}
        ratios = [cross / split for split, cross in zip(seconds["split"], seconds["cross"], strict=True)]
        values: dict[str, Any] = {"images": found["split"][0]["images"]}
        values |= {kind: spread(each, 1) for kind, each in seconds.items()}
        rows.append(Row(TABLE, name, {**values, "ratio, median": round(statistics.median(ratios), 2)}))
    bench.write(rows, notes=["processor time of the whole process from reading the first image on"])


def main() -> None:
    """Run the script from the command line."""
    parser = options(__doc__)
    parser.add_argument("--sets", nargs="+", default=["toothbrush", "aitex", "magnetic_tile"], choices=list(SETS))
    parser.add_argument("--rounds", type=int, default=3, help="rounds in turns")
    run(start("calibrating", "Cost of cross-fitted calibration", parser.parse_args()))


if __name__ == "__main__":
    main()
