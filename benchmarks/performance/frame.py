"""Processor time per image at rectangular inputs against square ones of about as many pixels, and per tile.

The images are cut from a shipped photograph at each aspect. Sides take turns in every round.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

from benchmarks.common import Bench, Row, isolated, options, spread, start

SHAPES = {"1:1": (360, 360), "2:3": (300, 450), "1:3": (200, 600), "3:1": (600, 200)}
"""Height and width of the images, pixels."""

TABLE = "Milliseconds of processor time per image, torch float32"
BATCH = 16


def measure(shape: str, count: int, threads: int, turn: int) -> dict[str, Any]:
    """Measure one fit per aspect on images of a shape; for a separate process."""
    import numpy as np
    import torch

    from anomem.data.synthetic import crops
    from anomem.detectors import get
    from anomem.runtime.images import write_png

    warnings.simplefilter("ignore")
    torch.set_num_threads(threads)
    height, width = SHAPES[shape]
    whole = crops("gravel", 24 + count, size=max(height, width), half="train", rng=np.random.default_rng(0))
    images = np.ascontiguousarray(whole[:, :height, :width])
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{i}.png" for i in range(count)]
        for file, image in zip(files, images[24:], strict=True):
            write_png(file, image)
        sides = {"square": {"aspect": "square"}, "auto": {}, "tiles": {"tile": max(height, width) // 2}}
        fitted = {name: get("anomem")(**params).fit(images[:24], device="cpu") for name, params in sides.items()}
        names = list(fitted)[turn % 3 :] + list(fitted)[: turn % 3]
        for name in names:
            detector = fitted[name]
            detector.anomaly_score(files[:BATCH], device="cpu")
            worked = time.process_time()
            detector.anomaly_score(files, batch_size=BATCH, device="cpu")
            pixels = float(np.prod(detector.preprocessing_.hw))
            views = count * len(detector.preprocessing_.boxes((height, width)))
            found[name] = {"ms": 1e3 * (time.process_time() - worked) / views, "pixels": pixels}
    return {"sides": found, "load_average": os.getloadavg()[0]}


def run(bench: Bench) -> None:
    """Measure all shapes, and write one row each."""
    rows = []
    for shape in SHAPES:
        units = [
            bench.unit(
                {"shape": shape, "round": turn, "count": bench.args.count, "threads": bench.args.threads},
                lambda s=shape, t=turn: isolated(measure, s, bench.args.count, bench.args.threads, t),
            )
            for turn in range(bench.args.rounds)
        ]
        ms = {name: [unit["sides"][name]["ms"] for unit in units] for name in ("square", "auto", "tiles")}
        pixels = units[0]["sides"]["auto"]["pixels"] / units[0]["sides"]["square"]["pixels"]
        pairs = [pixels * square / auto for square, auto in zip(ms["square"], ms["auto"], strict=True)]
        values = {
            "square": spread(ms["square"]),
            "auto": spread(ms["auto"]),
            "pixels of auto, share": round(pixels, 3),
            "speed at equal pixels, paired": round(statistics.median(pairs), 2),
            "one tile": spread(ms["tiles"]),
        }
        rows.append(Row(TABLE, shape, values))
    bench.write(rows, notes=["processor time of the whole process, decoding threads included"])


def main() -> None:
    """Run the script from the command line."""
    parser = options(__doc__)
    parser.add_argument("--count", type=int, default=48, help="images per side and round")
    parser.add_argument("--rounds", type=int, default=3, help="rounds in turns")
    run(start("frame", "Rectangular inputs", parser.parse_args()))


if __name__ == "__main__":
    main()
