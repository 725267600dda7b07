"""Memory, file size and time of a fit to 12,000 and to 24,000 distinct synthetic images of 64 pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from common import Bench, Row, isolated, options, peak_mb, start

SIDE = 64
BARS, FITS = "Twice the images", "Each fit"
MEMORY_SLACK_MB = 32.0
HASH_BYTES = 8


def write_images(folder: Path, count: int) -> None:
    """Write crops of the textures with noise of their own, so that no two are alike; what stands there stays."""
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
    """Fit to the first `count` images; meant for a process of its own."""
    import torch
    from scoring import fit_timed

    import anomem
    from anomem.runtime.images import find_images

    torch.set_num_threads(threads)
    paths = find_images(Path(folder))[:count]
    detector = anomem.AnoMem(size=size)
    before = peak_mb()
    seconds = fit_timed(detector, paths)
    peak = peak_mb()
    detector.save(model)
    capped = {f"items_{i + 1}": scale["n_items"] for i, scale in enumerate(detector.scorer_.config["scales"])}
    return {
        "images": len(paths),
        "fit_seconds": round(seconds, 1),
        "before_mb": before,
        "peak_mb": peak,
        "file_bytes": Path(model).stat().st_size,
        **detector.counts_,
        **capped,
    }


def fits(bench: Bench) -> list[dict[str, Any]]:
    """Units of both sizes."""
    args, images = bench.args, bench.folder.parent / "growth-images"
    counts = [args.limit, 2 * args.limit] if args.limit else [args.images, 2 * args.images]
    units = []
    for count in counts:

        def work(count: int = count) -> dict[str, Any]:
            write_images(images, count)
            model = bench.folder / f"{count}.safetensors"
            return isolated(measure, str(images), count, args.size, args.threads, str(model))

        units.append(bench.unit({"images": count, "size": args.size}, work))
    return units


def main() -> None:
    """Measure both and write the result file."""
    parser = options(__doc__)
    parser.add_argument("--images", type=int, default=12_000, help="of the smaller fit; the other has twice as many")
    parser.add_argument(
        "--size", type=int, default=128, help="side of the model's input: at 64 the last scales fill no cap"
    )
    bench = start("growth", "Growth with the number of images", parser.parse_args())
    small, large = fits(bench)
    more = large["images"] - small["images"]
    memory = large["peak_mb"] - small["peak_mb"]
    bytes_each = (large["file_bytes"] - small["file_bytes"]) / more
    rows = [
        Row(
            BARS,
            f"peak memory, {more:,} images more",
            {"": f"{memory:+.0f} MB"},
            f"flat: within {MEMORY_SLACK_MB:g} MB",
            memory <= MEMORY_SLACK_MB,
        ),
        Row(
            BARS,
            "model file, bytes for each image more",
            {"": round(bytes_each, 3)},
            f"<= {HASH_BYTES} (its content hash)",
            round(bytes_each, 2) <= HASH_BYTES,
        ),
        Row(BARS, "seconds of fitting, ratio", {"": round(large["fit_seconds"] / small["fit_seconds"], 2)}),
    ]
    for unit in (small, large):
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
        f"Images of {SIDE} px in PNG files, brought to {bench.args.size} px, where the smaller number fills every cap.",
        "A fit keeps each image's path and hash, and the allocator keeps freed pages: flat means within that slack.",
    ]
    bench.write(rows, sets=[], notes=notes)


if __name__ == "__main__":
    main()
