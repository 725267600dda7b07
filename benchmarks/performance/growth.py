"""Memory, file size and time of a fit against the number of images: 250 to 16,000, and 12,000 against 24,000.

Distinct synthetic images of 64 pixels. Beyond the caps, memory must not grow, and time must not exceed a constant plus
a linear part.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.common import Bench, Row, isolated, options, start

SIDE = 64
BARS, FITS, CURVE = "Twice the images", "Each fit", "From 250 to 16,000 images"
COUNTS = (250, 1000, 4000, 16000)
FULL = 10_240
"""Number of images above which every cap of a fit is full: a fifth of them calibrates, at most 2,048."""


def write_images(folder: Path, count: int) -> None:
    """Write distinct texture crops with separate noise; existing files are kept."""
    import numpy as np

    from anomem.data.synthetic import TEXTURES, crops
    from anomem.runtime.images import write_png

    for i in range(count):
        part = folder / f"{i // 1000:03d}"
        path = part / f"{i:06d}.png"
        if path.exists():
            continue
        part.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng([0, i])
        (image,) = crops(TEXTURES[i % len(TEXTURES)], 1, size=SIDE, half="train", rng=rng)
        noisy = image + rng.normal(0, 4, image.shape)
        write_png(path, np.clip(np.rint(noisy), 0, 255).astype(np.uint8))


def measure(folder: str, count: int, size: int, threads: int, model: str) -> dict[str, Any]:
    """Fit to the first `count` images; for a separate process."""
    import torch

    import anomem
    from anomem.benchmark.environment import metered
    from anomem.runtime.listing import find_images

    torch.set_num_threads(threads)
    paths = find_images(Path(folder))[:count]
    detector = anomem.AnoMem(size=size)
    with metered() as before:
        pass
    with metered() as fitting:
        detector.fit(paths)
    detector.save(model)
    capped = {f"items_{i + 1}": scale["n_items"] for i, scale in enumerate(detector.scorer_.config["scales"])}
    return {
        "images": len(paths),
        "fit_seconds": round(fitting.seconds, 1),
        "before_mb": round(before.peak_mb, 1),
        "peak_mb": round(fitting.peak_mb, 1),
        "file_bytes": Path(model).stat().st_size,
        **detector.counts_,
        **capped,
    }


def fit_of(bench: Bench, count: int) -> dict[str, Any]:
    """Return the unit of one size."""
    args, images = bench.args, bench.folder.parent / "growth-images"

    def work() -> dict[str, Any]:
        write_images(images, count)
        model = bench.folder / f"{count}.safetensors"
        return isolated(measure, str(images), count, args.size, args.threads, str(model))

    return bench.unit({"images": count, "size": args.size}, work)


def curve_rows(curve: list[dict[str, Any]], every: list[dict[str, Any]]) -> list[Row]:
    """Return rows of time against a constant plus a linear part, and of memory for fits with full caps."""
    import numpy as np

    n = np.asarray([u["images"] for u in curve], float)
    seconds = np.asarray([u["fit_seconds"] for u in curve])
    slope, constant = _line(n, seconds)
    residual = float(np.abs(seconds / (constant + slope * n) - 1).max())
    before, start_ = _line(n[:-1], seconds[:-1])
    beyond = float(seconds[-1] / (start_ + before * n[-1]) - 1)
    values = {
        "largest residual %": round(100 * residual, 1),
        "largest fit against the line of the others %": round(100 * beyond, 1),
        "s": round(constant, 1),
        "s a thousand images": round(1000 * slope, 2),
    }
    rows = [Row(CURVE, "time, a constant and a linear part", values)]
    full = [u for u in every if u["images"] >= FULL]
    if len(full) > 1:
        more = full[-1]["peak_mb"] - full[0]["peak_mb"]
        title = f"peak memory, {full[0]['images']:,} to {full[-1]['images']:,} images"
        rows.append(Row(CURVE, title, {"MB more": round(more)}))
    return rows


def _line(n: Any, seconds: Any) -> tuple[float, float]:
    """Return slope and constant, both at least 0, with the least squared relative residuals."""
    import numpy as np
    from scipy.optimize import nnls

    found, _ = nnls(np.stack([n, np.ones_like(n)], 1) / seconds[:, None], np.ones_like(n))
    return float(found[0]), float(found[1])


def main() -> None:
    """Measure, and write the lines."""
    parser = options(__doc__)
    parser.add_argument(
        "--images", type=int, default=12_000, help="images of the smaller fit; the other has twice as many"
    )
    parser.add_argument(
        "--size", type=int, default=128, help="side of the model's input; at 64 the last scales do not fill their caps"
    )
    parser.add_argument("--counts", nargs="*", type=int, default=list(COUNTS), help="fits of the curve")
    bench = start("growth", "Growth with the number of images", parser.parse_args())
    args = bench.args
    counts = [max(40, args.limit * c // COUNTS[0]) for c in args.counts[:3]] if args.limit else args.counts
    curve = [fit_of(bench, count) for count in counts]
    base = args.limit or args.images
    small, large = fit_of(bench, base), fit_of(bench, 2 * base)
    more = large["images"] - small["images"]
    memory = large["peak_mb"] - small["peak_mb"]
    bytes_each = (large["file_bytes"] - small["file_bytes"]) / more
    rows = [
        Row(BARS, f"peak memory, {more:,} images more", {"MB": round(memory)}),
        Row(BARS, "model file, bytes for each image more", {"value": round(bytes_each, 3)}),
        Row(BARS, "seconds of fitting, ratio", {"value": round(large["fit_seconds"] / small["fit_seconds"], 2)}),
    ]
    every = sorted({u["images"]: u for u in (*curve, small, large)}.values(), key=lambda u: u["images"])
    rows += curve_rows(curve, every) if len(curve) > 2 else []
    for unit in every:
        values = {
            "peak MB": unit["peak_mb"],
            "of it before the fit": unit["before_mb"],
            "file MB": round(unit["file_bytes"] / 2**20, 2),
            "fit s": unit["fit_seconds"],
            "learn": unit["n_train"],
            "tune": unit["n_tune"],
            "calibrate": unit["n_calibration"],
        }
        rows.append(Row(FITS, f"{unit['images']:,} images", values))
    notes = [
        f"Images of {SIDE} px in PNG files, resized to {bench.args.size} px, where the smaller number fills every cap.",
        "The line: least squares of relative residuals, both parts at least 0.",
        "A fit stores each image's path and hash, and the allocator caches freed pages: flat within this slack.",
    ]
    bench.write(rows, notes=notes)


if __name__ == "__main__":
    main()
