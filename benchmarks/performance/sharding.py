"""Sharded scoring: images per second with 1 and 2 workers, and memory over 100,000 images.

``python -m benchmarks.performance.sharding`` on a quiet machine, about 20 minutes. Speed: the command on 1,000, 4,000
and 16,000 JPEG files of 256 x 256 pixels by the default model, start of the processes included; efficiency is the rate
per worker relative to one worker on as many images. ``--parts memory``: a Parquet list of 100,000 names of 1,000 files
by a small model, one worker; resident memory of parent and worker, sampled at each finished shard, and the slope over
the second half with its standard error.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from anomem.data.synthetic import crops
from anomem.detectors import get
from benchmarks.campaign.result import FOLDER, write_result

FILES = 250


def write_files(folder: Path, n: int, side: int) -> list[Path]:
    """Write `n` JPEG files of 250 pictures."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    first = []
    for i, image in enumerate(crops("brick", min(n, FILES), size=side, half="train", rng=rng)):
        Image.fromarray(image).save(folder / f"{i:06d}.jpg", quality=90)
        first.append(folder / f"{i:06d}.jpg")
    for i in range(len(first), n):
        shutil.copyfile(first[i % len(first)], folder / f"{i:06d}.jpg")
    return sorted(folder.iterdir())


def fitted(method: str, side: int, place: Path, **settings: Any) -> Path:
    """Fit a model of brick crops and write it."""
    normals = list(crops("brick", 60, size=side, half="train", rng=np.random.default_rng(1)))
    get(method)(**settings).fit(normals, alpha=0.1, groups=None, device="cpu").save(place)
    return place


def command(model: Path, source: Path, out: Path, workers: int, *more: str) -> list[str]:
    """Return the command that scores in shards."""
    start = [sys.executable, "-m", "anomem", "score", str(model), str(source), "--out", str(out)]
    return [*start, "--engine", "processes", "--workers", str(workers), "--json", *more]


def speed(root: Path, counts: list[int], workers: list[int]) -> list[dict[str, Any]]:
    """Measure images per second."""
    model = fitted("anomem", 256, root / "model")
    rows: list[dict[str, Any]] = []
    for n in counts:
        write_files(root / f"in{n}", n, 256)
        for count in workers:
            started = time.perf_counter()
            ran = subprocess.run(
                command(model, root / f"in{n}", root / f"run{n}-{count}", count, "--shard-images", "250"),
                capture_output=True,
                text=True,
                check=True,
            )
            seconds = time.perf_counter() - started
            rate = json.loads(ran.stdout)["n"] / seconds
            alone = next((row["rate"] for row in rows if (row["images"], row["workers"]) == (n, 1)), rate)
            rows.append({"images": n, "workers": count, "seconds": round(seconds, 2), "rate": round(rate, 2)})
            rows[-1]["efficiency"] = round(rate / count / alone, 3)
            print(rows[-1], flush=True)
        shutil.rmtree(root / f"in{n}")
    return rows


def memory(root: Path, n: int) -> dict[str, Any]:
    """Score a list of `n` names by one worker and return the growth of memory."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    model = fitted("memae", 16, root / "small", **get("memae").test_params)
    files = write_files(root / "few", 1000, 16)
    pq.write_table(pa.table({"path": [str(files[i % len(files)]) for i in range(n)]}), root / "list.parquet")
    samples: list[tuple[int, float]] = []
    with subprocess.Popen(command(model, root / "list.parquet", root / "run", 1), stdout=subprocess.PIPE) as process:
        shards = root / "run" / "shards"
        while process.poll() is None:
            done = len(list(shards.glob("*.parquet"))) if shards.exists() else 0
            if done and (not samples or done > samples[-1][0]):
                samples.append((done, sum(_resident_mb(pid) for pid in (process.pid, *_children(process.pid)))))
            time.sleep(0.02)
        out = process.stdout.read() if process.stdout else b""
    if process.returncode:
        raise SystemExit(f"score ended with code {process.returncode}")
    late = np.asarray(samples[len(samples) // 2 : -1], dtype=float)
    images, held = 1000 * late[:, 0], late[:, 1]
    slope, error = _slope(images, held)
    return {
        "images": json.loads(out)["n"],
        "samples": len(samples),
        "mb_first": round(samples[0][1], 1),
        "mb_middle": round(float(held[0]), 1),
        "mb_last": round(float(held[-1]), 1),
        "mb_per_million_images": round(slope * 1e6, 2),
        "standard_error": round(error * 1e6, 2),
    }


def _slope(x: Any, y: Any) -> tuple[float, float]:
    """Return the slope of a straight line and its standard error, from means of blocks, since samples depend."""
    blocks = np.array_split(np.arange(len(x)), 10)
    xs, ys = (np.asarray([values[block].mean() for block in blocks]) for values in (x, y))
    (slope, _), covariance = np.polyfit(xs, ys, 1, cov=True)
    return float(slope), float(np.sqrt(covariance[0, 0]))


def _resident_mb(pid: int) -> float:
    try:
        text = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
        return int(text.partition("VmRSS:")[2].split(None, 1)[0]) / 1024
    except (OSError, IndexError):  # it has ended
        return 0.0


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]
    except OSError:
        return []


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--parts", nargs="*", default=["speed", "memory"])
    parser.add_argument("--images", type=int, nargs="*", default=[1000, 4000, 16000])
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--growth", type=int, default=100_000, help="images of the part memory")
    parser.add_argument("--out", type=Path, default=FOLDER / "sharding.json")
    args = parser.parse_args()
    out = args.out.absolute()
    found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory(prefix="anomem-sharding-") as place:
        if "speed" in args.parts:
            found["speed"] = speed(Path(place), args.images, args.workers)
            write_result("sharding", found, out)
        if "memory" in args.parts:
            found["memory"] = memory(Path(place), args.growth)
            print(found["memory"])
            write_result("sharding", found, out)


if __name__ == "__main__":
    main()
