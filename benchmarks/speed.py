"""Seconds, images a second and memory against anomalib's PaDiM, in one run, taking turns; and the start of the command.

PaDiM runs in an environment of its own: ``--peer-python`` names its interpreter, ``--peer-weights`` the backbone's
weights (see peers/README.md). Every measurement is a process of its own, on a machine that should do nothing else.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from common import HERE, SETS, Bench, Row, isolated, options, peak_mb, spread, start

NAME = "magnetic_tile"
SETTINGS: dict[str, dict[str, str]] = {
    "default": {"precision": "float32", "fit_precision": "auto"},
    "bfloat16": {"precision": "bfloat16", "fit_precision": "auto"},
    "float32": {"precision": "float32", "fit_precision": "float32"},
}
PEER_SETTINGS = ("float32", "bfloat16")
BARS, EACH = "Against PaDiM in the same run", "Each setting"
STARTUP = """
import runpy, sys
sys.argv = ["anomem", "--help"]
try:
    runpy.run_module("anomem", run_name="__main__")
except SystemExit:
    pass
print("torch" in sys.modules, file=sys.stderr)
"""


def measure(folder: str, setting: dict[str, str], threads: int, steps: int) -> dict[str, Any]:
    """Fit and score a folder in MVTec layout from files; meant for a process of its own."""
    import torch
    from scoring import fit_timed

    import anomem
    from anomem.data.sources import read_dataset

    torch.set_num_threads(threads)
    dataset = read_dataset(folder)
    detector = anomem.AnoMem(precision=setting["precision"], train_steps=steps)
    fit_seconds = fit_timed(detector, list(dataset.train), fit_precision=setting["fit_precision"])
    fit_peak, test = peak_mb(), list(dataset.test)
    started = time.perf_counter()
    count = sum(1 for _ in detector.score(test, maps=True))
    seconds = time.perf_counter() - started
    return {
        "fit_seconds": round(fit_seconds, 2),
        "images_per_second": round(count / seconds, 2),
        "peak_rss_fit_mb": fit_peak,
        "peak_rss_mb": peak_mb(),
        "load_average": os.getloadavg()[0],
    }


def measure_peer(bench: Bench, folder: Path, precision: str) -> dict[str, Any]:
    """Run PaDiM once in its own environment."""
    args, out = bench.args, bench.folder / "peer"
    command = [args.peer_python, HERE / "peers" / "anomalib_peer.py", folder, "--model", "padim", "--out", out]
    command += ["--weights", args.peer_weights, "--precision", precision, "--threads", args.threads, "--name", "run"]
    own = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    subprocess.run([str(part) for part in command], check=True, env=own, stdout=subprocess.DEVNULL)
    facts: dict[str, Any] = json.loads((out / "run.json").read_text(encoding="utf-8"))
    kept = ("fit_seconds", "images_per_second", "peak_rss_fit_mb", "peak_rss_mb", "load_average")
    return {key: facts[key] for key in kept}


def startup(repeats: int) -> dict[str, Any]:
    """Wall time of ``anomem --help``, and whether it imports torch."""
    command, seconds = [sys.executable, "-m", "anomem", "--help"], []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds.append(time.perf_counter() - started)
    told = subprocess.run([sys.executable, "-c", STARTUP], check=True, capture_output=True, text=True)
    return {"seconds": [round(s, 3) for s in seconds[1:]], "torch": told.stderr.strip().endswith("True")}


def linked(bench: Bench) -> Path:
    """The set's folder; with a limit, a folder of links to a few of its images."""
    whole, limit = SETS[NAME].path, bench.args.limit
    if not limit:
        return whole
    part = bench.folder / NAME
    for folder in sorted([*(whole / "train").iterdir(), *(whole / "test").iterdir()]):
        for file in sorted(folder.iterdir())[:limit]:
            link = part / file.relative_to(whole)
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.exists():
                link.symlink_to(file)
    return part


def take_turns(bench: Bench, folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Every setting of both, repeat after repeat."""
    args = bench.args
    found: dict[str, list[dict[str, Any]]] = {}
    for repeat in range(args.repeats):
        for name, setting in ((name, SETTINGS[name]) for name in args.settings):
            key = {"anomem": name, "repeat": repeat, "threads": args.threads}
            unit = bench.unit(key, lambda s=setting: isolated(measure, str(folder), s, args.threads, 0))
            found.setdefault(f"AnoMem, {name}", []).append(unit)
        for precision in args.peer_precisions if args.peer_python and args.peer_weights else ():
            key = {"padim": precision, "repeat": repeat, "threads": args.threads}
            unit = bench.unit(key, lambda p=precision: measure_peer(bench, folder, p))
            found.setdefault(f"PaDiM, scoring in {precision}", []).append(unit)
    if args.stage_one_steps:
        steps = args.stage_one_steps
        key = {"anomem": "stage 1", "steps": steps, "threads": args.threads}
        unit = bench.unit(key, lambda: isolated(measure, str(folder), SETTINGS["default"], args.threads, steps))
        found[f"AnoMem, default with {steps} steps of stage 1"] = [unit]
    return found


def ratio_rows(found: dict[str, list[dict[str, Any]]]) -> list[Row]:
    """Ratios of each repeat, and their bars."""
    peer = found.get("PaDiM, scoring in float32")
    if peer is None:
        return []
    rows = []
    for title, ours, key, bar in (
        ("fit, seconds, without stage 1", "default", "fit_seconds", 0.5),
        ("fit, peak memory", "default", "peak_rss_fit_mb", 0.6),
        ("scoring from files in float32, images/s", "default", "images_per_second", 1.2),
        ("scoring from files in bfloat16 (PaDiM in float32), images/s", "bfloat16", "images_per_second", 2.0),
    ):
        ratios = [a[key] / b[key] for a, b in zip(found[f"AnoMem, {ours}"], peer, strict=True)]
        mean, higher = round(statistics.fmean(ratios), 2), key == "images_per_second"
        words = f"{'>=' if higher else '<='} {bar:g}x"
        rows.append(Row(BARS, title, {"ratio": spread(ratios)}, words, mean >= bar if higher else mean <= bar))
    return rows


def setting_row(name: str, units: list[dict[str, Any]]) -> Row:
    """Seconds, images a second and memory of one setting."""
    values = {
        "fit s": spread([u["fit_seconds"] for u in units], 1),
        "images/s": spread([u["images_per_second"] for u in units], 1),
        "peak MB (fit)": spread([u["peak_rss_fit_mb"] for u in units], 0),
        "peak MB": spread([u["peak_rss_mb"] for u in units], 0),
        "load": spread([u["load_average"] for u in units], 1),
    }
    return Row(EACH, name, values)


def main() -> None:
    """Measure and write the result file."""
    parser = options(__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--settings", nargs="+", choices=list(SETTINGS), default=list(SETTINGS), help="of AnoMem")
    parser.add_argument("--peer-precisions", nargs="+", choices=PEER_SETTINGS, default=list(PEER_SETTINGS))
    parser.add_argument("--peer-python", type=Path, help="interpreter of the peers' environment")
    parser.add_argument("--peer-weights", type=Path, help="the backbone's weights in timm's names")
    parser.add_argument("--stage-one-steps", type=int, default=100, help="of the one fit with stage 1; 0: leave it out")
    bench = start("speed", "Speed and memory", parser.parse_args())
    found = take_turns(bench, linked(bench))
    begun = bench.unit({"startup": 5}, lambda: startup(5))
    typical = statistics.median(begun["seconds"])
    met = typical < 0.5 and not begun["torch"]
    told = {"ratio": f"{typical:.2f} s, torch {'imported' if begun['torch'] else 'not imported'}"}
    rows = [*ratio_rows(found), Row(BARS, "anomem --help, median of 5", told, "< 0.5 s, torch not imported", met)]
    rows += [setting_row(name, units) for name, units in found.items()]
    notes = [
        "AnoMem default: fitted in bfloat16 where the processor multiplies it natively, scored in float32.",
        "AnoMem's time of scoring includes maps in each image's own frame; PaDiM's are 224 x 224.",
        f"{NAME}: 762 images to fit, 582 to score." if not bench.args.limit else "A limited run.",
    ]
    bench.write(rows, sets=[NAME], notes=notes)


if __name__ == "__main__":
    main()
