"""Seconds, images per second and memory against anomalib's PaDiM, in turns; start-up time of the command.

AnoMem and our own PaDiM are measured. anomalib's PaDiM runs in a separate environment: ``--peer-python`` has its
interpreter, ``--peer-weights`` the backbone's weights (see benchmarks/peers/README.md). Every measurement is a separate
process, on a machine that should be idle otherwise.
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

from benchmarks.common import SETS, Bench, Row, isolated, linked, options, spread, start
from benchmarks.performance.peer import run_peer

SETTINGS: dict[str, tuple[str, str, str]] = {
    "AnoMem, default": ("anomem", "float32", "auto"),
    "AnoMem, bfloat16": ("anomem", "bfloat16", "auto"),
    "AnoMem, float32": ("anomem", "float32", "float32"),
    "anomem in float32": ("padim", "float32", "float32"),
    "anomem in bfloat16": ("padim", "bfloat16", "bfloat16"),
}
"""Setting -> method, precision of scoring, precision of fitting."""

PEER = {precision: f"PaDiM, scoring in {precision}" for precision in ("float32", "bfloat16")}
AGAINST, OWN, EACH = "Against PaDiM in the same run", "Our PaDiM against anomalib's in the same run", "Each setting"
RATIOS = (
    (AGAINST, "fit, seconds, without stage 1", "AnoMem, default", "float32", "fit_seconds"),
    (AGAINST, "fit in float32, seconds, without stage 1", "AnoMem, float32", "float32", "fit_seconds"),
    (AGAINST, "fit, peak memory", "AnoMem, default", "float32", "peak_rss_fit_mb"),
    (AGAINST, "scoring from files in float32, images/s", "AnoMem, default", "float32", "images_per_second"),
    (
        *(AGAINST, "scoring from files in bfloat16 (PaDiM in float32), images/s"),
        *("AnoMem, bfloat16", "float32", "images_per_second"),
    ),
    (OWN, "fit, in float32", "anomem in float32", "float32", "fit_seconds"),
    (OWN, "scoring from files, in float32", "anomem in float32", "float32", "images_per_second"),
    (OWN, "scoring from files, in bfloat16", "anomem in bfloat16", "bfloat16", "images_per_second"),
    (OWN, "fit, in float32, peak memory", "anomem in float32", "float32", "peak_rss_fit_mb"),
)
"""Table, case, our setting, precision of the peer, and figure."""
COLUMNS = {
    "fit_seconds": ("fit s", 1),
    "images_per_second": ("images/s", 1),
    "peak_rss_fit_mb": ("peak MB (fit)", 0),
    "peak_rss_mb": ("peak MB", 0),
    "load_average": ("load", 1),
}
STARTUP = """
import runpy, sys
sys.argv = ["anomem", "--help"]
try:
    runpy.run_module("anomem", run_name="__main__")
except SystemExit:
    pass
print("torch" in sys.modules, file=sys.stderr)
"""
NOTES = (
    "AnoMem default: fitted in bfloat16 where the processor supports it natively, scored in float32.",
    "PaDiM's fit is float32; the float32 case compares fits in float32.",
    "Scoring here includes maps in each image's own frame; anomalib's maps are 224 x 224.",
    "anomalib's loader decodes in the fitting process (no workers); anomem decodes in threads.",
    "Our PaDiM better by: anomalib's seconds or megabytes over ours, our images per second over anomalib's.",
    "Megabytes of 2**20 bytes.",
)


def measure(folder: str, method: str, precision: str, fit_precision: str, threads: int, steps: int) -> dict[str, Any]:
    """Fit to and score a folder in MVTec layout from files; for a separate process."""
    import torch

    from anomem.benchmark.environment import metered
    from anomem.data.sources import read_dataset
    from anomem.detectors import get

    torch.set_num_threads(threads)
    dataset = read_dataset(folder)
    detector = get(method)(precision=precision, **({"stage_one.steps": steps} if steps else {}))
    with warnings.catch_warnings(), metered() as fitting:
        warnings.simplefilter("ignore")
        detector.fit(list(dataset.train), fit_precision=fit_precision)
    with metered() as scoring:
        count = sum(1 for _ in detector.score(list(dataset.test), maps=True))
    mebibytes = [meter.peak_mb * 1e6 / 2**20 for meter in (fitting, scoring)]
    return {
        "fit_seconds": round(fitting.seconds, 2),
        "images_per_second": round(count / scoring.seconds, 2),
        "peak_rss_fit_mb": round(mebibytes[0], 1),
        "peak_rss_mb": round(max(mebibytes), 1),
        "load_average": os.getloadavg()[0],
    }


def startup(repeats: int) -> dict[str, Any]:
    """Measure wall-clock seconds of ``anomem --help``, and record imports of torch."""
    command, seconds = [sys.executable, "-m", "anomem", "--help"], []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds.append(time.perf_counter() - started)
    told = subprocess.run([sys.executable, "-c", STARTUP], check=True, capture_output=True, text=True)
    return {"seconds": [round(s, 3) for s in seconds[1:]], "torch": told.stderr.strip().endswith("True")}


def take_turns(bench: Bench, folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Measure every setting of both sides, in repeated turns."""
    args, found = bench.args, dict[str, list[dict[str, Any]]]()
    for repeat in range(args.repeats):
        key = {"set": args.set, "repeat": repeat, "threads": args.threads}
        for name in args.settings:
            work = (str(folder), *SETTINGS[name], args.threads, 0)
            unit = bench.unit({"setting": name, **key}, lambda w=work: isolated(measure, *w))
            found.setdefault(name, []).append(unit)
        for precision, name in PEER.items() if args.peer_python and args.peer_weights else ():
            unit = bench.unit({"setting": name, **key}, lambda p=precision: _peer(bench, folder, p))
            found.setdefault(name, []).append(unit)
    if args.stage_one_steps:
        name = f"AnoMem, default with {args.stage_one_steps} steps of stage 1"
        work = (str(folder), *SETTINGS["AnoMem, default"], args.threads, args.stage_one_steps)
        found[name] = [bench.unit({"setting": name, "threads": args.threads}, lambda: isolated(measure, *work))]
    return found


def _peer(bench: Bench, folder: Path, precision: str) -> dict[str, Any]:
    facts = run_peer(bench, folder, "--precision", precision)
    return {key: facts[key] for key in COLUMNS}


def rows_of(found: dict[str, list[dict[str, Any]]]) -> list[Row]:
    """Return ratios of each repeat, then the figures of each setting."""
    rows = []
    for table, case, ours, precision, key in RATIOS:
        pairs = list(zip(found.get(ours, ()), found.get(PEER[precision], ()), strict=False))
        ratios = [a[key] / b[key] for a, b in pairs]
        if table == OWN and key != "images_per_second":
            ratios = [1 / ratio for ratio in ratios]
        if ratios:
            rows.append(Row(table, case, {"anomem better by" if table == OWN else "ratio": spread(ratios)}))
    for name, units in found.items():
        shown: dict[str, Any] = {title: spread([u[k] for u in units], n) for k, (title, n) in COLUMNS.items()}
        rows.append(Row(EACH, name, shown))
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write the lines."""
    parser = options(__doc__)
    parser.add_argument("--set", choices=list(SETS), default="magnetic_tile")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--settings", nargs="+", choices=list(SETTINGS), default=list(SETTINGS))
    parser.add_argument("--peer-python", type=Path, help="interpreter of the peers' environment")
    parser.add_argument("--peer-weights", type=Path, help="the backbone's weights in timm's names")
    parser.add_argument(
        "--stage-one-steps", type=int, default=100, help="steps of the fit with stage 1; 0: leave it out"
    )
    bench = start("speed", "Speed and memory", parser.parse_args(arguments))
    folder = linked(bench.folder / bench.args.set, bench.args.set, bench.args.limit)
    rows = rows_of(take_turns(bench, folder))
    begun = bench.unit({"startup": 5}, lambda: startup(5))
    values = {"seconds": statistics.median(begun["seconds"]), "torch imported": int(begun["torch"])}
    rows.append(Row(AGAINST, "anomem --help, median of 5", values))
    bench.write(rows, notes=[*NOTES, f"Images of {bench.args.set}."])


if __name__ == "__main__":
    main()
