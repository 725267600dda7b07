"""Processor time per image of AnoMem's default against its settings of version 0.1 and larger inputs, in turns.

All are fitted to the same textures; sides take turns in every round, in torch float32 and OpenVINO bfloat16.
"""

from __future__ import annotations

import os
import statistics
import time
import warnings
from functools import partial
from pathlib import Path
from typing import Any

from anomem.benchmark.ablations import MEMORY_ARMS
from benchmarks.common import Bench, Row, isolated, options, spread, start
from benchmarks.performance.exported import write_jpegs

TABLE = "Milliseconds of processor time per image"
EARLIER = next(arm.params for arm in MEMORY_ARMS if arm.label == "AnoMem, version 0.1")
SIDES: dict[str, dict[str, Any]] = {
    "default": {},
    "settings of version 0.1": dict(EARLIER),
    "default at 320 px": {"size": 320},
    "default at 448 px": {"size": 448},
}
FORMS = ("torch float32", "openvino bfloat16")
BATCH = 16


def make(images: str, models: str, n_fit: int, n_test: int, threads: int) -> dict[str, Any]:
    """Fit and export every side; for a separate process."""
    import torch

    from anomem.detectors import get

    warnings.simplefilter("ignore")
    torch.set_num_threads(threads)
    write_jpegs(Path(images), n_fit, n_test)
    normals = sorted((Path(images) / "train/good").iterdir())[:n_fit]
    for number, params in enumerate(SIDES.values()):
        fitted = get("anomem")(**params).fit(normals, calibration="split", device="cpu")
        fitted.save(Path(models) / f"{number}.safetensors")
        fitted.export(Path(models) / f"{number}.xml", precision="bf16", normals=normals)
    return {}


def measure(images: str, models: str, threads: int, turn: int) -> dict[str, Any]:
    """Score all files by every side, in an order that rotates per round; for a separate process."""
    import torch

    import anomem
    from anomem.runtime.session import Session

    warnings.simplefilter("ignore")
    torch.set_num_threads(threads)
    files = sorted((Path(images) / "test/good").iterdir())
    scorers: dict[str, Any] = {}
    for number, name in enumerate(SIDES):
        detector = anomem.load(Path(models) / f"{number}.safetensors")
        session = Session.open(Path(models) / f"{number}.xml", threads=threads)
        scorers[f"{name}, torch float32"] = partial(detector.anomaly_score, batch_size=BATCH, device="cpu")
        scorers[f"{name}, openvino bfloat16"] = lambda part, s=session: list(s.score(part, batch_size=BATCH))
    names = list(scorers)[turn % len(scorers) :] + list(scorers)[: turn % len(scorers)]
    found: dict[str, float] = {}
    for name in names:
        scorers[name](files[:BATCH])
        worked = time.process_time()
        scorers[name](files)
        found[name] = 1e3 * (time.process_time() - worked) / len(files)
    return {"ms": found, "load_average": os.getloadavg()[0]}


def run(bench: Bench) -> None:
    """Measure all rounds, and write one row per side and runtime."""
    args = bench.args
    images, models = bench.folder / "images", bench.folder / "models"
    models.mkdir(exist_ok=True)
    bench.unit({"made": args.images}, partial(isolated, make, str(images), str(models), 64, args.images, args.threads))
    work = [partial(isolated, measure, str(images), str(models), args.threads, turn) for turn in range(args.rounds)]
    rounds = [
        bench.unit({"round": turn, "images": args.images, "threads": args.threads}, measured)["ms"]
        for turn, measured in enumerate(work)
    ]
    rows = []
    for form in FORMS:
        for name in SIDES:
            own = [found[f"{name}, {form}"] for found in rounds]
            speeds = [found[f"default, {form}"] / ms for found, ms in zip(rounds, own, strict=True)]
            values = {"ms": spread(own), "speed against the default, median": round(statistics.median(speeds), 3)}
            rows.append(Row(TABLE, f"{name}, {form}", values))
    bench.write(rows, notes=["decoding included; without maps"])


def main() -> None:
    """Run the script from the command line."""
    parser = options(__doc__)
    parser.add_argument("--images", type=int, default=96, help="files to score per round")
    parser.add_argument("--rounds", type=int, default=5, help="rounds in turns")
    run(start("settings", "Speed of AnoMem's settings", parser.parse_args()))


if __name__ == "__main__":
    main()
