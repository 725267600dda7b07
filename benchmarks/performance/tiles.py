"""Whole commands on large photographs cut into tiles, in turns: a fit with either calibration, and an evaluation.

    python -m benchmarks.performance.tiles [--earlier CHECKOUT]

80 training and 54 test images of 1500 x 1000 px, twelve tiles of 512 px each. ``--earlier`` is a checkout of another
revision, whose commands take their turns, too; its fit has the calibration that it has.
"""

from __future__ import annotations

import os
import shutil
import statistics
import sys
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.common import Bench, Row, opened, options, spread, start
from benchmarks.peers.sides import timed

TABLE = "Whole commands on 80 training or 54 test images of 1500 x 1000 px at tile=512, seconds"
ENTRY = "import sys; from anomem.cli.main import main; sys.exit(main())"
ROOT = Path(__file__).resolve().parents[2]
FITS = {"fit, split": ["--calibration", "split"], "fit, cross": ["--calibration", "cross"]}
EARLIER = "earlier revision: "
PATIENCE = 600


def seconds_of(checkout: Path, arguments: list[str], bench: Bench) -> dict[str, Any]:
    """Run one command of a checkout; return the seconds of its whole process."""
    source = os.pathsep.join(str(checkout / part) for part in ("src", "runtime/src"))
    command = [sys.executable, "-c", ENTRY, *arguments]
    return {"seconds": round(timed(command, bench.args.threads, PATIENCE, {"PYTHONPATH": source})[0], 2)}


def run(bench: Bench) -> None:
    """Take turns, and write one row per command."""
    args = bench.args
    images = str(opened("capsules-native").train.paths[0].parents[2])
    sides = {name: (ROOT, ["fit", *more]) for name, more in FITS.items()} | {"evaluate": (ROOT, ["evaluate"])}
    if args.earlier:
        sides = {f"{EARLIER}{name}": (args.earlier, [name]) for name in ("fit", "evaluate")} | sides
    found: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(args.rounds):
        for name, (checkout, (verb, *more)) in sides.items():
            model = bench.folder / ("model-earlier" if name.startswith(EARLIER) else "model")
            if verb == "fit":
                shutil.rmtree(model, ignore_errors=True)
                arguments = [verb, images, "--out", str(model), "--set", "tile=512", *more]
            else:
                arguments = [verb, str(model), images]
            key = {"command": name, "round": turn, "threads": args.threads}
            found[name].append(bench.unit(key, partial(seconds_of, checkout, arguments, bench))["seconds"])
    bench.write([Row(TABLE, name, figures(name, found)) for name in found])


def figures(name: str, found: dict[str, list[float]]) -> dict[str, Any]:
    """Return the seconds of a command, and their share of those of the earlier revision's."""
    values: dict[str, Any] = {"seconds": spread(found[name], 1)}
    before = found.get(f"{EARLIER}{name.partition(',')[0]}")
    if before:
        values["of the earlier revision's"] = round(statistics.fmean(found[name]) / statistics.fmean(before), 2)
    return values


def main() -> None:
    """Run the script from the command line."""
    parser = options(__doc__)
    parser.add_argument("--earlier", type=Path, help="checkout of an earlier revision")
    parser.add_argument("--rounds", type=int, default=3, help="rounds in turns")
    run(start("tiles", "Large photographs in tiles", parser.parse_args()))


if __name__ == "__main__":
    main()
