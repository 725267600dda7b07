"""Latency of single images: milliseconds from a file when warm, and seconds of cold-started processes.

The image is a 256-px JPEG file, the model the default one as OpenVINO IR and as ONNX. Cold starts are whole processes,
in turns; their files are in the page cache.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.common import Bench, Row, isolated, options, spread, start
from benchmarks.performance.exported import FORMS, prepare, runtimes, test_files

WARM, COLD = "One image from a file, warm, batch 1, milliseconds", "Cold start, whole processes, seconds"
FIRST = 20
"""Number of images scored before timing."""


def measure(images: str, models: str, form: str, count: int, threads: int) -> dict[str, Any]:
    """Measure milliseconds of `count` single images on the session's path; for a separate process."""
    from anomem.runtime.session import Session

    warnings.simplefilter("ignore")
    files = test_files(Path(images))
    session = Session.open(Path(models) / FORMS[form][0], threads=threads)
    taken = []
    for i in range(FIRST + count):
        started = time.perf_counter()
        session.anomaly_score(files[i % len(files)], batch_size=1, workers=0)
        taken.append(1e3 * (time.perf_counter() - started))
    return {"milliseconds": [round(t, 3) for t in taken[FIRST:]], "load_average": os.getloadavg()[0]}


def commands(images: Path, models: Path) -> dict[str, list[str]]:
    """Return the commands for cold starts."""
    one, cli = str(test_files(images)[0]), [sys.executable, "-m", "anomem"]
    return {
        "python -c pass": [sys.executable, "-c", "pass"],
        "import anomem": [sys.executable, "-c", "import anomem"],
        "anomem --help": [*cli, "--help"],
        "anomem score model.onnx one.jpg": [*cli, "score", str(models / "model.onnx"), one],
        "anomem score float32.xml one.jpg": [*cli, "score", str(models / "float32.xml"), one],
    }


def cold(command: Sequence[str]) -> dict[str, Any]:
    """Measure wall-clock seconds of one process."""
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return {"seconds": round(time.perf_counter() - started, 4), "load_average": os.getloadavg()[0]}


def percentile(values: Sequence[float], share: float) -> float:
    """Return the percentile of a share of the values, nearest rank."""
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 2)


def warm_rows(bench: Bench, images: Path, models: Path) -> list[Row]:
    """Return p50 and p99 of every form, over all rounds."""
    args = bench.args
    found: dict[str, list[list[float]]] = {form: [] for form in args.forms}
    for turn in range(args.rounds):
        for form in args.forms:
            unit = bench.unit(
                {"warm": form, "round": turn, "count": args.count, "threads": args.threads},
                lambda f=form: isolated(measure, str(images), str(models), f, args.count, args.threads),
            )
            found[form].append(unit["milliseconds"])
    rows = []
    for form, rounds in found.items():
        every = [value for part in rounds for value in part]
        low, high = percentile(every, 0.5), percentile(every, 0.99)
        values = {"p50": low, "p99": high, "p50 of the rounds": spread([percentile(part, 0.5) for part in rounds])}
        rows.append(Row(WARM, form, values))
    return rows


def cold_rows(bench: Bench, images: Path, models: Path) -> list[Row]:
    """Return medians of cold starts in turns."""
    every = commands(images, models)
    found: dict[str, list[float]] = {name: [] for name in every}
    for turn in range(-1, bench.args.starts):
        for name, command in every.items():
            if turn < 0:
                cold(command)  # loads its files into the page cache
                continue
            found[name].append(bench.unit({"cold": name, "turn": turn}, lambda c=command: cold(c))["seconds"])
    rows = []
    for name, seconds in found.items():
        rows.append(Row(COLD, name, {"median": round(statistics.median(seconds), 3), "mean": spread(seconds, 3)}))
    return rows


def main() -> None:
    """Measure and write the result file."""
    parser = options(__doc__)
    parser.add_argument("--count", type=int, default=300, help="images per round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--starts", type=int, default=11, help="starts per command")
    parser.add_argument("--fit-images", type=int, default=400)
    parser.add_argument("--forms", nargs="*", choices=list(FORMS), default=list(FORMS))
    bench = start("latency", "One image at a time, and cold starts", parser.parse_args())
    args = bench.args
    if args.limit:
        args.count, args.fit_images, args.starts = args.limit, max(80, args.limit), min(args.starts, 3)
    images, models = prepare(bench, args.fit_images, args.limit or 256)
    rows = [*warm_rows(bench, images, models), *cold_rows(bench, images, models)]
    notes = [
        f"{runtimes()}.",
        f"Warm: {args.rounds} rounds of {args.count} images after {FIRST} uncounted ones, one process per round.",
        "Counted: reading, decoding, resizing, network, p-value. p50 and p99: over all rounds.",
        f"Cold: {args.starts} starts of each command after an uncounted one, in turns.",
    ]
    bench.write(rows, notes=notes)


if __name__ == "__main__":
    main()
