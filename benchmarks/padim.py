"""PaDiM here against anomalib's: the same weights, layers, channels and images, in one run; accuracy and speed.

anomalib runs in an environment of its own: ``--peer-python`` names its interpreter, ``--peer-weights`` the backbone's
weights (see peers/README.md). Both sides normalise their input as the weights were trained, x / 127.5 - 1. Every
measurement is a process of its own; for the speed the machine should do nothing else.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from common import HERE, SETS, Bench, Row, isolated, options, peak_mb, spread, start

ALL_SETS = ("toothbrush", "bottle", "magnetic_tile")
PRECISIONS = ("float32", "bfloat16")
SAME, WHOLE = "images that anomem learnt from", "all training images"
AGREEMENT, PIXELS, BARS, EACH = "Image AUROC", "Pixel level", "Against anomalib in the same run", "Each setting"

NOTES = (
    "Both: EfficientNet-Lite0 on the same weights, blocks.1, 2 and 4, the 100 of 176 channels that anomem's seed drew.",
    "Both: input x / 127.5 - 1, 224 px without crop, batches of 16, ridge 0.01, sigma 4 px of the input.",
    "anomem keeps normals back to calibrate on, anomalib none. anomem fits as it scores, anomalib always in float32.",
    "anomalib resizes in torchvision and smooths at 224 px; anomem resizes in Pillow and smooths at 112 px.",
    "Speed: from files; anomem's fit includes its calibration, its scoring maps in each image's frame.",
    "Better by: anomalib's seconds or megabytes over anomem's, anomem's images a second over anomalib's.",
)


def measure(name: str, seed: int, limit: int | None, threads: int, file: str) -> dict[str, Any]:
    """Fit and score one set with one seed, and tell from which images and channels; for a process of its own."""
    import numpy as np
    import torch
    from scoring import fit_timed, image_level, labels_of, pixel_level, read_set

    from anomem.data.sources import open_source
    from anomem.detectors.baselines.padim import PaDiM, PaDiMScorer

    torch.set_num_threads(threads)
    train, test = read_set(name, limit)
    detector = PaDiM(seed=seed)
    seconds = fit_timed(detector, train)
    state, source = detector._state(), open_source(train)
    learnt = state.digests["learn"] | state.digests["tune"]
    scorer = detector.scorer_
    assert isinstance(scorer, PaDiMScorer)
    stages = [info.channels for info in scorer.backbone.describe(state.resolved["size"])]
    parts = scorer.channels.split(scorer.config["counts"])
    channels = [int(c) + sum(stages[:s]) for s, part in enumerate(parts) for c in part]
    detector.save(file)
    results = list(detector.score(test, maps=True))
    scores = np.asarray([r.score for r in results], dtype=np.float32)
    return {
        **image_level(scores, labels_of(test)),
        **pixel_level(test, [r.map for r in results if r.map is not None]),
        "scores": dict(zip(_names(name, [s.path for s in test]), scores.tolist(), strict=True)),
        "learnt": _names(name, [s.path for i, s in enumerate(train) if source.digest(i) in learnt]),
        "channels": channels,
        "fit_seconds": round(seconds, 1),
        "file_mb": round(Path(file).stat().st_size / 2**20, 1),
    }


def judge(name: str, limit: int | None, raw_file: str) -> dict[str, Any]:
    """Measure what anomalib wrote as ours is measured."""
    import numpy as np
    from scoring import image_level, labels_of, pixel_level, read_set

    from anomem.runtime.images import decode, resize_map

    test = read_set(name, limit)[1]
    with np.load(raw_file) as raw:
        row = {str(path): i for i, path in enumerate(raw["paths"])}
        order = [row.pop(path) for path in _names(name, [s.path for s in test])]
        scores, maps = raw["scores"][order], raw["maps"][order].astype(np.float32)
    if row:
        raise ValueError(f"{raw_file}: {len(row)} images more than were to be scored")
    own_frame = (resize_map(m, decode(s.path).shape[:2]) for s, m in zip(test, maps, strict=True))
    return {
        **image_level(scores, labels_of(test)),
        **pixel_level(test, own_frame),
        "scores": dict(zip(_names(name, [s.path for s in test]), scores.tolist(), strict=True)),
    }


def _names(name: str, paths: Iterable[Path]) -> list[str]:
    return [path.relative_to(SETS[name].path).as_posix() for path in paths]


def linked(folder: Path, root: Path, names: Iterable[str]) -> Path:
    """A folder of links to some files of `root`."""
    for name in names:
        link = folder / name
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.exists():
            link.symlink_to((root / name).resolve())
    return folder


def run_peer(bench: Bench, folder: Path, precision: str, channels: list[int] | None = None) -> dict[str, Any]:
    """Fit and score a folder with anomalib's PaDiM in its own environment; returns its facts."""
    args, out = bench.args, bench.folder / "peer"
    command = [args.peer_python, HERE / "peers" / "anomalib_peer.py", folder, "--model", "padim", "--out", out]
    command += ["--weights", args.peer_weights, "--precision", precision, "--threads", args.threads, "--name", "run"]
    command += [] if channels is None else ["--channels", *channels]
    own = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    subprocess.run([str(part) for part in command], check=True, env=own, stdout=subprocess.DEVNULL)
    facts: dict[str, Any] = json.loads((out / "run.json").read_text(encoding="utf-8"))
    return facts


def compared(bench: Bench, name: str, seed: int) -> dict[str, dict[str, Any]]:
    """Ours, and anomalib's on the channels that ours drew: on the images that ours learnt from, and on all."""
    args = bench.args
    key = {"set": name, "seed": seed}
    file = str(bench.folder / f"{name}-{seed}.safetensors")
    ours = bench.unit({**key, "who": "anomem"}, lambda: isolated(measure, name, seed, args.limit, args.threads, file))

    def peer(which: str) -> dict[str, Any]:
        from scoring import read_set

        train = ours["learnt"] if which == SAME else _names(name, [s.path for s in read_set(name, args.limit)[0]])
        kind = "same" if which == SAME else "whole"
        folder = linked(bench.folder / f"{name}-{seed}-{kind}", SETS[name].path, [*train, *ours["scores"]])
        facts = run_peer(bench, folder, "float32", ours["channels"])
        if facts["n_train"] != len(train):
            raise ValueError(f"{name}: anomalib learnt from {facts['n_train']} images, not from {len(train)}")
        return {**isolated(judge, name, args.limit, str(bench.folder / "peer" / "run.npz")), "n_train": len(train)}

    return {
        "anomem": ours,
        **{which: bench.unit({**key, "who": which}, lambda w=which: peer(w)) for which in (SAME, WHOLE)},
    }


def agreement_rows(name: str, seeds: list[dict[str, dict[str, Any]]]) -> list[Row]:
    """Image AUROC of both sides, and the difference that the bar holds."""
    from scipy.stats import spearmanr

    rows = []
    for which in (SAME, WHOLE):
        gaps = [s["anomem"]["image_auroc"] - s[which]["image_auroc"] for s in seeds]
        ranks = [
            float(
                spearmanr([s["anomem"]["scores"][k] for k in s[which]["scores"]], list(s[which]["scores"].values()))[0]
            )
            for s in seeds
        ]
        values = {
            "anomem %": spread([s["anomem"]["image_auroc"] for s in seeds]),
            "anomalib %": spread([s[which]["image_auroc"] for s in seeds]),
            "difference": spread(gaps),
            "rank correlation": spread(ranks, 3),
        }
        gap = round(statistics.fmean(gaps), 2)
        title = f"{name}, anomalib on {which} ({seeds[0][which]['n_train']})"
        rows.append(Row(AGREEMENT, title, values, "within 1 point", abs(gap) <= 1.0))
    return rows


def pixel_rows(name: str, seeds: list[dict[str, dict[str, Any]]]) -> list[Row]:
    """Pixel AUROC and AUPRO of both sides, where the set has masks."""
    if seeds[0]["anomem"]["aupro"] is None:
        return []
    return [
        Row(
            PIXELS,
            f"{name}, {'anomem' if who == 'anomem' else 'anomalib on ' + who}",
            {
                "pixel AUROC %": spread([s[who]["pixel_auroc"] for s in seeds]),
                "AUPRO %": spread([s[who]["aupro"] for s in seeds]),
            },
        )
        for who in ("anomem", SAME, WHOLE)
    ]


def measure_speed(folder: str, precision: str, threads: int) -> dict[str, Any]:
    """Fit and score a folder from files; meant for a process of its own."""
    import torch
    from scoring import fit_timed

    from anomem.data.sources import read_dataset
    from anomem.detectors.baselines.padim import PaDiM

    torch.set_num_threads(threads)
    dataset = read_dataset(folder)
    detector = PaDiM(precision=precision)
    fit_seconds = fit_timed(detector, list(dataset.train))
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


def take_turns(bench: Bench) -> dict[str, list[dict[str, Any]]]:
    """Every setting of both sides, repeat after repeat."""
    from scoring import read_set

    args = bench.args
    train, test = read_set(args.speed_set, args.limit)
    names = _names(args.speed_set, [s.path for s in (*train, *test)])
    folder = linked(bench.folder / f"speed-{args.speed_set}", SETS[args.speed_set].path, names)
    kept = ("fit_seconds", "images_per_second", "peak_rss_fit_mb", "peak_rss_mb", "load_average")
    found: dict[str, list[dict[str, Any]]] = {}
    how = {"threads": args.threads, "set": args.speed_set}
    for repeat in range(args.repeats):
        for precision in PRECISIONS:
            key = {"speed": "anomem", "setting": precision, "repeat": repeat, **how}
            unit = bench.unit(key, lambda p=precision: isolated(measure_speed, str(folder), p, args.threads))
            found.setdefault(f"anomem in {precision}", []).append(unit)
            key = {"speed": "anomalib", "setting": precision, "repeat": repeat, **how}
            unit = bench.unit(key, lambda p=precision: {k: run_peer(bench, folder, p)[k] for k in kept})
            found.setdefault(f"anomalib, scoring in {precision}", []).append(unit)
    return found


def speed_rows(found: dict[str, list[dict[str, Any]]]) -> list[Row]:
    """How many times as fast, repeat by repeat, like precision with like; and what each setting took."""
    rows = []
    for title, precision, key in (
        ("fit, in float32", "float32", "fit_seconds"),
        ("scoring from files, in float32", "float32", "images_per_second"),
        ("scoring from files, in bfloat16", "bfloat16", "images_per_second"),
        ("fit, in float32, peak memory", "float32", "peak_rss_fit_mb"),
    ):
        pairs = list(zip(found[f"anomem in {precision}"], found[f"anomalib, scoring in {precision}"], strict=True))
        ratios = [a[key] / b[key] if key == "images_per_second" else b[key] / a[key] for a, b in pairs]
        barred = key != "peak_rss_fit_mb"
        met = round(statistics.fmean(ratios), 2) >= 1.5 if barred else None
        rows.append(Row(BARS, title, {"anomem better by": spread(ratios)}, ">= 1.5x" if barred else "", met))
    for name, units in found.items():
        values = {
            "fit s": spread([u["fit_seconds"] for u in units], 1),
            "images/s": spread([u["images_per_second"] for u in units], 1),
            "peak MB (fit)": spread([u["peak_rss_fit_mb"] for u in units], 0),
            "peak MB": spread([u["peak_rss_mb"] for u in units], 0),
            "load": spread([u["load_average"] for u in units], 1),
        }
        rows.append(Row(EACH, name, values))
    return rows


def main() -> None:
    """Measure and write the result file."""
    parser = options(__doc__)
    parser.add_argument("--sets", nargs="*", default=list(ALL_SETS), choices=ALL_SETS, help="of the comparison")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--repeats", type=int, default=3, help="of the speed; 0: leave it out")
    parser.add_argument("--speed-set", default="magnetic_tile", choices=ALL_SETS)
    parser.add_argument("--peer-python", type=Path, required=True, help="interpreter of the peers' environment")
    parser.add_argument("--peer-weights", type=Path, required=True, help="the backbone's weights in timm's names")
    bench = start("padim", "PaDiM here and in anomalib", parser.parse_args())
    agreement, pixels, size = [], [], 0.0
    for name in bench.args.sets:
        seeds = [compared(bench, name, seed) for seed in bench.args.seeds]
        agreement += agreement_rows(name, seeds)
        pixels += pixel_rows(name, seeds)
        size = seeds[0]["anomem"]["file_mb"]
    speed = speed_rows(take_turns(bench)) if bench.args.repeats else []
    notes = [*NOTES, f"Speed on {bench.args.speed_set}.", f"A fitted model is a file of {size} MB."]
    used = dict.fromkeys([*bench.args.sets, *([bench.args.speed_set] if bench.args.repeats else [])])
    bench.write([*agreement, *speed[:4], *pixels, *speed[4:]], sets=used, notes=notes)


if __name__ == "__main__":
    main()
