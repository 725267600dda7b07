"""One-class detection with the default preset on five industrial sets, beside anomalib's PaDiM and PatchCore.

All metrics are ours, on every tool's raw scores and maps, the maps in each image's own frame. Peers come from files
that ``peers/anomalib_peer.py`` wrote into the folder given by ``--peers``.
"""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path
from typing import Any

from common import CONFOUNDED, SETS, Bench, Row, isolated, options, peak_mb, spread, start

INDUSTRIAL = ("magnetic_tile", "toothbrush", "bottle", "capsules", "screw")
IMAGE_LEVEL = INDUSTRIAL[:4]
PADIM_IMAGE = {"magnetic_tile": 93.2, "toothbrush": 99.4, "bottle": 99.8, "capsules": 67.2}
PADIM_PIXEL = {"magnetic_tile": 76.3, "toothbrush": 99.0, "screw": 96.5, "capsules": 92.3}
FIGURES = ("image_auroc", "pixel_auroc", "aupro")
OURS, BARS = "AnoMem, default preset", "Held against PaDiM and fixed bars"
PEERS = "anomalib on the same backbone weights"


def measure(name: str, seed: int, limit: int | None, threads: int, model_file: str) -> dict[str, Any]:
    """Fit and score one set with one seed; meant for a process of its own."""
    import torch
    from scoring import fit_timed, image_level, labels_of, pixel_level, read_set

    import anomem

    torch.set_num_threads(threads)
    train, test = read_set(name, limit)
    detector = anomem.AnoMem(seed=seed)
    fit_seconds = fit_timed(detector, train)
    fit_peak = peak_mb()
    detector.save(model_file)
    size = Path(model_file).stat().st_size
    started = time.perf_counter()
    results = list(detector.score(test, maps=True))
    seconds = time.perf_counter() - started
    scores, labels = detector_scores(results), labels_of(test)
    return {
        **image_level(scores, labels),
        **pixel_level(test, [r.map for r in results if r.map is not None]),
        "fit_seconds": round(fit_seconds, 1),
        "images_per_second": round(len(test) / seconds, 1),
        "peak_fit_mb": fit_peak,
        "peak_mb": peak_mb(),
        "file_mb": round(size / 2**20, 2),
        "n_train": len(train),
        "n_test": len(test),
    }


def detector_scores(results: Any) -> Any:
    """Scores of results as an array."""
    import numpy as np

    return np.asarray([r.score for r in results], dtype=np.float32)


def measure_peer(name: str, stem: str, folder: str) -> dict[str, Any]:
    """Measure the raw output of a peer as ours is measured."""
    import numpy as np
    from scoring import image_level, labels_of, pixel_level, read_set

    from anomem.runtime.images import decode, resize_map

    facts = json.loads((Path(folder) / f"{stem}.json").read_text(encoding="utf-8"))
    test = {sample.path.relative_to(SETS[name].path).as_posix(): sample for sample in read_set(name, None)[1]}
    with np.load(Path(folder) / f"{stem}.npz") as raw:
        samples = [test[str(path)] for path in raw["paths"]]
        scores, maps = raw["scores"], raw["maps"]
    if len(samples) != len(test):
        raise ValueError(f"{stem}: {len(samples)} images scored of {len(test)}")
    own_frame = (resize_map(m.astype(np.float32), decode(s.path).shape[:2]) for s, m in zip(samples, maps, strict=True))
    kept = ("model", "normalization", "seed", "precision", "coreset_ratio", "coreset_items", "fit_seconds")
    return {
        **image_level(scores, labels_of(samples)),
        **pixel_level(samples, own_frame),
        **{key: facts.get(key) for key in (*kept, "images_per_second", "peak_rss_fit_mb", "load_average")},
    }


def ours(bench: Bench, name: str) -> list[dict[str, Any]]:
    """Units of one set, one a seed."""
    args = bench.args
    return [
        bench.unit(
            {"set": name, "seed": seed},
            lambda seed=seed: isolated(
                measure, name, seed, args.limit, args.threads, str(bench.folder / f"{name}-{seed}.safetensors")
            ),
        )
        for seed in args.seeds
    ]


def peers(bench: Bench, name: str) -> dict[str, list[dict[str, Any]]]:
    """Results of each peer and each of its settings, a list of seeds each."""
    found: dict[str, list[dict[str, Any]]] = {}
    if bench.args.peers is None or bench.args.limit:
        return found
    for path in sorted(Path(bench.args.peers).glob(f"{name}-*.npz")):
        stamp = {"peer": path.stem, "bytes": path.stat().st_size, "written": int(path.stat().st_mtime)}
        unit = bench.unit(stamp, lambda path=path: isolated(measure_peer, name, path.stem, str(path.parent)))
        if unit["precision"] == "float32":
            setting = unit["normalization"] or "lite0"
            found.setdefault(f"{unit['model']} ({setting} normalisation)", []).append(unit)
    return found


def row_of(name: str, units: list[dict[str, Any]]) -> dict[str, Any]:
    """Columns of a table from the units of all seeds."""
    values: dict[str, Any] = {}
    if name != "screw":
        values["image AUROC %"] = spread([u["image_auroc"] for u in units])
        low, high = (statistics.fmean(u[f"image_{side}"] for u in units) for side in ("low", "high"))
        values["95 % interval"] = f"{low:.1f} to {high:.1f}"
    for key, column in (("pixel_auroc", "pixel AUROC %"), ("aupro", "AUPRO %")):
        known = [u[key] for u in units if u[key] is not None]
        if known:
            values[column] = spread(known)
    values["fit s"] = spread([u["fit_seconds"] for u in units], 1)
    values["images/s"] = spread([u["images_per_second"] for u in units], 1)
    return values


def mean_of(units: list[dict[str, Any]], key: str) -> float | None:
    """Mean over seeds; None where the set has no such figure."""
    known = [u[key] for u in units if u[key] is not None]
    return statistics.fmean(known) if known else None


def image_bars(found: dict[str, list[dict[str, Any]]], padim: dict[str, float]) -> list[Row]:
    """Rows that hold image-level figures against their bars."""
    values = {name: mean_of(found[name], "image_auroc") for name in IMAGE_LEVEL if name in found}
    rows = []
    for name, value in values.items():
        bar = max(PADIM_IMAGE[name] - 1, 75.0) if name == "capsules" else PADIM_IMAGE[name] - 1
        rows.append(_against(f"image AUROC, {name}", value, bar, "PaDiM as stated - 1"))
        if name in padim:
            rows.append(_against(f"image AUROC, {name}", value, padim[name] - 1, "PaDiM measured here - 1"))
    if len(values) == len(IMAGE_LEVEL):
        mean = statistics.fmean(v for v in values.values() if v is not None)
        rows.insert(0, _against("image AUROC, mean of four sets", mean, 92.0, "goal 95"))
        if len(padim) >= len(IMAGE_LEVEL):
            same = statistics.fmean(padim[name] for name in IMAGE_LEVEL)
            rows.insert(1, _against("image AUROC, mean of four sets", mean, same, "PaDiM measured here"))
    return rows


def pixel_bars(found: dict[str, list[dict[str, Any]]], padim: dict[str, float]) -> list[Row]:
    """Rows that hold pixel AUROC against PaDiM's: above it, or within 0.5 where it is above 98."""
    rows = []
    for name, stated in PADIM_PIXEL.items():
        value = mean_of(found[name], "pixel_auroc") if name in found else None
        for peer, origin in ((stated, "as stated"), (padim.get(name), "measured here")):
            if value is not None and peer is not None:
                slack = 0.5 if peer > 98 else 0.0
                words = f"PaDiM {origin}" + (" - 0.5" if slack else "")
                rows.append(_against(f"pixel AUROC, {name}", value, peer - slack, words))
    return rows


def _against(name: str, value: float | None, bar: float, words: str) -> Row:
    value = 0.0 if value is None else value
    # A mean of rounded percentages carries binary dust; two decimals are what is published.
    met = round(value, 2) >= round(bar, 2)
    return Row(BARS, name, {"%": round(value, 2)}, f">= {bar:.2f} ({words})", met)


def main() -> None:
    """Measure all sets and write the result file."""
    parser = options(__doc__)
    parser.add_argument("--sets", nargs="+", default=list(INDUSTRIAL), choices=INDUSTRIAL)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--peers", type=Path, help="folder of the peers' .npz and .json files")
    bench = start("one_class", "One-class detection, default preset", parser.parse_args())
    found, rows, extra = {}, [], []
    padim_image: dict[str, float] = {}
    padim_pixel: dict[str, float] = {}
    for name in bench.args.sets:
        found[name] = units = ours(bench, name)
        cost = {"peak MB (fit)": spread([u["peak_fit_mb"] for u in units], 0), "file MB": units[0]["file_mb"]}
        rows.append(Row(OURS, f"{name} ({SETS[name].role})", {**row_of(name, units), **cost}))
        for peer, peer_units in peers(bench, name).items():
            memory = {"peak MB (fit)": spread([u["peak_rss_fit_mb"] for u in peer_units], 0)}
            items = {"coreset": peer_units[0]["coreset_items"] or ""}
            extra.append(Row(PEERS, f"{name}, {peer}", {**row_of(name, peer_units), **memory, **items}))
            if peer == "padim (lite0 normalisation)":
                padim_image[name] = mean_of(peer_units, "image_auroc") or 0.0
                pixel = mean_of(peer_units, "pixel_auroc")
                padim_pixel |= {} if pixel is None else {name: pixel}
    bars = [*image_bars(found, padim_image), *pixel_bars(found, padim_pixel)]
    notes = [
        f"screw: {CONFOUNDED}.",
        "Intervals: 95 % bootstrap over images, averaged over seeds; spread: deviation over seeds.",
        "PaDiM as stated: figures of a preliminary run that the bars were set with.",
        "Peers' seconds stand as their runs took them; the comparison of speed is in the table of speed.",
    ]
    bench.write([*bars, *rows, *extra], sets=bench.args.sets, notes=notes)


if __name__ == "__main__":
    main()
