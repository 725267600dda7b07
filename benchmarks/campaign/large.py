"""Memory of an evaluation with masks on photographs of 12 megapixels.

``python -m benchmarks.campaign.large``: 100 and 1,000 JPEG files of 4000 x 3000 pixels, a quarter of them with a defect
and a mask, are evaluated by the command in a process of its own each. The files are 20 pictures; each file has other
bytes, since equal files are judged once. ``--size 1200 900 --images 250 1000`` shows the growth per file in less time.
Figures of other runs stay in the file.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from anomem.detectors import get
from benchmarks.campaign.result import FOLDER, write_result

PICTURES = 20


def picture(rng: np.random.Generator, size: tuple[int, int], *, defect: bool) -> tuple[Image.Image, Image.Image]:
    """Return a photograph and its mask."""
    width, height = size
    coarse = Image.fromarray(rng.integers(90, 160, (60, 80, 3), np.uint8))
    image, mask = coarse.resize(size, Image.Resampling.BICUBIC), Image.new("L", size)
    if defect:
        left, top = int(rng.integers(0, width * 6 // 7)), int(rng.integers(0, height * 6 // 7))
        image.paste((250, 20, 20), (left, top, left + width // 7, top + height // 7))
        mask.paste(255, (left, top, left + width // 7, top + height // 7))
    return image, mask


def write_set(folder: Path, n: int, size: tuple[int, int]) -> Path:
    """Write n photographs and a table with their labels and masks; return the table."""
    rng = np.random.default_rng(0)
    contents = []
    for i in range(PICTURES):
        image, mask = picture(rng, size, defect=i % 4 == 0)
        image.save(folder / "part.jpg", quality=85)
        mask.save(folder / f"mask{i}.png")
        contents.append((folder / "part.jpg").read_bytes())
    with (folder / "test.csv").open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        table.writerow(("path", "label", "mask", "split"))
        for i in range(n):
            kind = i % PICTURES
            comment = b"\xff\xfe\x00\x0a" + f"{i:08d}".encode()  # after the start of the image
            (folder / f"{i:04d}.jpg").write_bytes(contents[kind][:2] + comment + contents[kind][2:])
            table.writerow((f"{i:04d}.jpg", int(kind % 4 == 0), f"mask{kind}.png" if kind % 4 == 0 else "", "test"))
    return folder / "test.csv"


def evaluated(model: Path, table: Path) -> dict[str, Any]:
    """Evaluate in a process of its own; return its peak memory in MB, seconds and figures."""
    command = [sys.executable, "-m", "anomem", "evaluate", str(model), str(table), "--json"]
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    out = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"evaluate ended with status {status}")
    found = json.loads(out)
    return {
        "peak_mb": round(usage.ru_maxrss / 1024),
        "seconds": round(time.perf_counter() - started, 1),
        "processor_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        **{name: found[name] for name in ("n_normal", "n_anomalous")},
        "pixel_auroc": found["pixel"]["auroc"],
    }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--images", type=int, nargs="*", default=[100, 1000])
    parser.add_argument("--size", type=int, nargs=2, default=[4000, 3000], help="width and height, pixels")
    parser.add_argument("--method", default="padim")
    args = parser.parse_args()
    path, size = FOLDER / "large.json", (args.size[0], args.size[1])
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for n in args.images:
        with tempfile.TemporaryDirectory(prefix="anomem-large-") as place:
            folder = Path(place)
            rng = np.random.default_rng(1)
            normals = [np.asarray(picture(rng, size, defect=False)[0].resize((400, 300))) for _ in range(30)]
            get(args.method)().fit(normals, alpha=0.1, device="cpu").save(folder / "model")
            found = evaluated(folder / "model", write_set(folder, n, size))
        result.setdefault("evaluate", {})[f"{args.method}, {n} of {size[0]} x {size[1]}"] = found
        print(n, found, flush=True)
        write_result("large", result)


if __name__ == "__main__":
    main()
