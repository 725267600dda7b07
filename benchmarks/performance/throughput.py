"""Images per second from JPEG files, per runtime and precision, against the bare backbone and anomalib's PaDiM.

Sides take turns in every round. anomalib runs in a separate environment: ``--peer-python`` has its
interpreter, ``--peer-weights`` the backbone's weights (see peers/README.md).
"""

from __future__ import annotations

import os
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.common import Bench, Row, isolated, opened, options, percent, spread, start
from benchmarks.performance.exported import FORMS, bare_file, prepare, prepared, runtimes, test_files
from benchmarks.performance.peer import run_peer

TORCH = ("torch float32", "torch bfloat16")
BATCH, WARM = 16, 16
PEER_TORCH, PEER_OV, PEER_FREE = "anomalib PaDiM, torch", "anomalib PaDiM, openvino float32", "anomalib PaDiM, openvino"
PEER_QUEUE = {
    "float32": "anomalib PaDiM, openvino float32, requests in a queue",
    "bfloat16": "anomalib PaDiM, openvino, requests in a queue",
}
BARE, PEERS, EACH, COST = (
    "End to end, against the bare backbone in the same runtime and precision",
    "Against anomalib and against torch",
    "Images per second",
    "What int8 costs, image AUROC %",
)


def sides(
    images: str, models: str, threads: int, forms: Sequence[str], peer: str | None
) -> dict[str, Callable[[], int]]:
    """Return per name a function that scores all files once, or passes all tiles through the bare backbone."""
    import torch

    import anomem
    from anomem.data.imageset import ImageSet, to_tensor
    from anomem.data.sources import open_source
    from anomem.nn.inference import score_images
    from anomem.nn.precision import autocast
    from anomem.runtime.engines import open_engine
    from anomem.runtime.session import Session

    torch.set_num_threads(threads)
    files, folder = test_files(Path(images)), Path(models)
    detector = anomem.load(folder / "model.safetensors")
    scorer, preprocessing = detector.scorer_, detector.preprocessing_
    tiles = prepared(detector, files)
    found: dict[str, Callable[[], int]] = {}

    def native(precision: str) -> int:
        pictures = ImageSet(open_source(files), preprocessing)
        return sum(1 for _ in score_images(scorer, pictures, precision=precision, batch_size=BATCH))

    @torch.inference_mode()
    def bare_native(precision: str) -> int:
        for i in range(0, len(tiles), BATCH):
            with autocast(torch.device("cpu"), precision):
                scorer.backbone(to_tensor(tiles[i : i + BATCH]))
        return len(tiles)

    for form in forms:
        if form in TORCH:
            precision = form.removeprefix("torch ")
            found[form] = lambda p=precision: native(p)
            found[f"bare {form}"] = lambda p=precision: bare_native(p)
            continue
        name, _, arithmetic = FORMS[form]
        session = Session.open(folder / name, threads=threads)
        engine = open_engine(bare_file(folder, form), precision=arithmetic, threads=threads)
        found[form] = lambda s=session: sum(1 for _ in s.score(files, batch_size=BATCH))
        found[f"bare {form}"] = lambda e=engine: _through(e, tiles)
    if peer is not None:
        found[PEER_OV] = peer_openvino(peer, files, threads, float32=True)
        found[PEER_FREE] = peer_openvino(peer, files, threads, float32=False)
        found |= {
            name: peer_openvino(peer, files, threads, float32=precision == "float32", queued=True)
            for precision, name in PEER_QUEUE.items()
        }
    return found


def _through(engine: Any, tiles: Any) -> int:
    for i in range(0, len(tiles), BATCH):
        engine(tiles[i : i + BATCH], maps=False)
    return len(tiles)


def peer_openvino(
    model: str, files: Sequence[Path], threads: int, *, float32: bool, queued: bool = False
) -> Callable[[], int]:
    """Return a function that runs anomalib's exported PaDiM per image; our threads decode.

    One request at a time, like its inferencer, or requests in a queue, as many as OpenVINO's hint for throughput asks.
    """
    import numpy as np

    from anomem.runtime.batches import load_batches
    from anomem.runtime.dependencies import import_openvino
    from anomem.runtime.images import decode, resize

    wanted: dict[str, Any] = {"INFERENCE_NUM_THREADS": threads}
    wanted |= {"INFERENCE_PRECISION_HINT": "f32"} if float32 else {}
    wanted |= {"PERFORMANCE_HINT": "THROUGHPUT"} if queued else {}
    openvino = import_openvino()
    compiled = openvino.Core().compile_model(model, "CPU", wanted)

    def load(i: int) -> Any:
        pixels = resize(decode(files[i]), (224, 224))
        return np.ascontiguousarray(pixels.astype(np.float32).transpose(2, 0, 1)[None] / 255)

    def run() -> int:
        queue = openvino.AsyncInferQueue(compiled) if queued else None
        for (image,) in load_batches(len(files), load, batch_size=1, workers=threads):
            if queue is None:
                compiled([image])
            else:
                queue.start_async([image])
        if queue is not None:
            queue.wait_all()
        return len(files)

    return run


def measure_round(
    images: str, models: str, threads: int, forms: Sequence[str], peer: str | None, turn: int
) -> dict[str, Any]:
    """Measure images per second of every side, in an order that rotates per round; for a separate process."""
    warnings.simplefilter("ignore")
    every = sides(images, models, threads, forms, peer)
    names = list(every)
    found: dict[str, Any] = {}
    for name in names:
        every[name]()  # warm-up: compiled, read, in the page cache
    for name in names[turn % len(names) :] + names[: turn % len(names)]:
        started, worked = time.perf_counter(), time.process_time()
        count = every[name]()
        seconds = time.perf_counter() - started
        found[name] = {
            "images_per_second": round(count / seconds, 2),
            "cpu_ms": round(1e3 * (time.process_time() - worked) / count, 3),
        }
    return {"sides": found, "load_average": os.getloadavg()[0]}


def peer_model(bench: Bench, folder: Path) -> str:
    """Return anomalib's PaDiM as OpenVINO IR: traced in its environment, converted in ours."""
    xml = bench.folder / "peer" / "padim.xml"
    if not xml.exists():
        traced = bench.folder / "peer" / "padim.pt2"
        run_peer(bench, folder, "--export", traced)
        isolated(convert, str(traced), str(xml))
    return str(xml)


def convert(traced: str, xml: str) -> dict[str, Any]:
    """Convert as anomalib's to_openvino does: torch.onnx.export, openvino.convert_model, save_model."""
    import torch

    from anomem.runtime.dependencies import import_openvino

    warnings.simplefilter("ignore")
    openvino = import_openvino()
    onnx = Path(xml).with_suffix(".onnx")
    program = torch.export.load(traced)
    torch.onnx.export(program, (), str(onnx), dynamo=True, input_names=["input"], verbose=False)
    openvino.save_model(openvino.convert_model(str(onnx)), xml, compress_to_fp16=False)
    return {}


def cost(name: str, seed: int, limit: int | None, threads: int, folder: str) -> dict[str, Any]:
    """Measure image AUROC of a set in torch float32 and in exported precisions; for a separate process."""
    import torch

    import anomem
    from anomem.metrics import auroc

    warnings.simplefilter("ignore")
    torch.set_num_threads(threads)
    data = opened(name, limit)
    normals, files, labels = list(data.train.paths), list(data.test.paths), data.test.labels
    detector = anomem.AnoMem(seed=seed).fit(normals)
    found = {"torch float32": percent(auroc(detector.anomaly_score(files), labels))}
    for form in ("openvino bfloat16", "openvino int8"):
        file = Path(folder) / f"{name}-{seed}-{FORMS[form][0]}"
        detector.export(file, precision=FORMS[form][1], normals=normals, max_drop=1.0)
        found[form] = percent(auroc(anomem.load(file).anomaly_score(files), labels))
    return {"auroc": found, "n": len(files)}


def measured(bench: Bench, images: Path, models: Path) -> list[dict[str, Any]]:
    """Measure all rounds; the peer's torch runs in separate processes, between ours."""
    args = bench.args
    peer = peer_model(bench, images) if args.peer_python and args.peer_weights else None
    rounds = []
    for turn in range(args.rounds):
        key = {"round": turn, "images": args.images, "threads": args.threads, "forms": args.forms}
        unit = bench.unit(
            {**key, "peer": peer is not None},
            lambda t=turn: isolated(measure_round, str(images), str(models), args.threads, args.forms, peer, t),
        )
        sides_ = dict(unit["sides"])
        if peer is not None:
            theirs = bench.unit({**key, "forms": PEER_TORCH}, lambda: run_peer(bench, images, "--precision", "float32"))
            sides_[PEER_TORCH] = {"images_per_second": theirs["images_per_second"]}
        rounds.append({"sides": sides_, "load_average": unit["load_average"]})
    return rounds


def ratio(rounds: Sequence[dict[str, Any]], ours: str, theirs: str) -> list[float]:
    """Return the ratio of images per second, per round."""
    each = [r["sides"] for r in rounds]
    return [s[ours]["images_per_second"] / s[theirs]["images_per_second"] for s in each if {ours, theirs} <= set(s)]


def ratio_row(table: str, name: str, ratios: list[float]) -> Row:
    """Return median, mean and spread of a ratio."""
    return Row(table, name, {"median": round(statistics.median(ratios), 2), "ratio": spread(ratios)})


def speed_rows(rounds: Sequence[dict[str, Any]], forms: Sequence[str]) -> list[Row]:
    """Return ratios, then images per second of every side."""
    rows = [ratio_row(BARE, form, ratio(rounds, form, f"bare {form}")) for form in forms]
    for ours, theirs in (
        ("openvino bfloat16", PEER_TORCH),
        ("openvino float32", PEER_OV),
        ("openvino bfloat16", PEER_FREE),
        ("openvino float32", PEER_QUEUE["float32"]),
        ("openvino bfloat16", PEER_QUEUE["bfloat16"]),
        ("openvino int8", "torch float32"),
    ):
        found = ratio(rounds, ours, theirs)
        rows += [ratio_row(PEERS, f"{ours} against {theirs}", found)] if found else []
    for name in dict.fromkeys(name for r in rounds for name in r["sides"]):
        units = [r["sides"][name] for r in rounds]
        speeds = [u["images_per_second"] for u in units]
        values: dict[str, Any] = {"median": round(statistics.median(speeds), 1), "images/s": spread(speeds, 1)}
        if all("cpu_ms" in u for u in units):
            values["processor ms per image"] = spread([u["cpu_ms"] for u in units], 2)
        rows.append(Row(EACH, name, values))
    return rows


def cost_rows(bench: Bench) -> list[Row]:
    """Return the drop in AUROC per set."""
    args, rows = bench.args, []
    for name in args.sets:
        units = [
            bench.unit(
                {"cost": name, "seed": seed},
                lambda n=name, s=seed: isolated(cost, n, s, args.limit, args.threads, str(bench.folder)),
            )
            for seed in args.seeds
        ]
        values: dict[str, Any] = {form: spread([u["auroc"][form] for u in units]) for form in units[0]["auroc"]}
        drop = round(statistics.fmean(u["auroc"]["torch float32"] - u["auroc"]["openvino int8"] for u in units), 2)
        rows.append(Row(COST, name, {**values, "drop": drop}))
    return rows


def main() -> None:
    """Measure and write the result file."""
    parser = options(__doc__)
    every = [*TORCH, *FORMS]
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=256, help="files to score per round")
    parser.add_argument("--fit-images", type=int, default=400)
    parser.add_argument("--forms", nargs="*", choices=every, default=every)
    parser.add_argument("--sets", nargs="*", choices=("magnetic_tile", "bottle"), default=["magnetic_tile", "bottle"])
    parser.add_argument(
        "--seeds", nargs="+", type=int, default=[0], help="seeds of the fits that int8 is compared with"
    )
    parser.add_argument("--peer-python", type=Path, help="interpreter of the peers' environment")
    parser.add_argument("--peer-weights", type=Path, help="the backbone's weights in timm's names")
    bench = start("throughput", "Images per second", parser.parse_args())
    args = bench.args
    if args.limit:
        args.images, args.fit_images = args.limit, max(80, args.limit)
    rows = cost_rows(bench)
    if args.rounds and args.forms:
        images, models = prepare(bench, args.fit_images, args.images)
        rows = [*speed_rows(measured(bench, images, models), args.forms), *rows]
    notes = [
        f"{runtimes()}.",
        f"{args.images} JPEG files of 256 px, batches of {BATCH}, {args.rounds} rounds, all sides in turns.",
        "Ratios: medians over rounds. Without maps.",
        "Bare: the backbone up to its last feature map, exported by the same code, on decoded tiles in memory.",
        "anomalib's exported PaDiM: traced in its environment, which lacks openvino; converted and run in ours.",
        "It runs image by image, like its inferencer, or in an AsyncInferQueue with the hint THROUGHPUT.",
        "Our threads decode and resize for it.",
        "AnoMem's sessions run asynchronous requests in several streams.",
        "Without a hint openvino chooses its precision: bfloat16 where the processor has it.",
        "int8 is fitted to normals of the training part; AUROC on the whole test part.",
    ]
    bench.write(rows, notes=notes)


if __name__ == "__main__":
    main()
