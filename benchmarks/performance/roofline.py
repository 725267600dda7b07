"""Roofline: peak speed of this processor, the share that scoring reaches, and a profile of the rest.

Peaks: matrix products in torch and openvino, the backbone's own convolutions in both, bytes per second of a copy.
Reached: the default model, exported. Profile: torch.profiler, and openvino's counters, by class of operator.
"""

from __future__ import annotations

import os
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.common import Row, isolated, options, spread, start
from benchmarks.performance.exported import FORMS, bare_file, prepare, prepared, runtimes, test_files

PEAKS, WORK, REACHED, PROFILE = (
    "Measured peaks",
    "Work of one image, default model at 224 px",
    "Reached, tiles in memory, one after the other",
    "Where the time goes, share of it in percent",
)
PRECISIONS = ("float32", "bfloat16")
OPENVINO = ("openvino float32", "openvino bfloat16", "openvino int8")
PRODUCT, COPY_MB = 2048, 256
CLASSES = {
    "1x1 convolutions": ("1x1",),
    "depthwise convolutions": ("GroupConvolution", "_dw_", "depthwise"),
    "other convolutions": ("Convolution", "conv"),
    "matrix products": ("FullyConnected", "MatMul", "addmm", "aten::mm", "bmm", "matmul", "einsum"),
    "activations": ("clamp", "hardtanh", "relu", "Relu"),
    "largest of a row": ("ReduceMax", "amax", "TopK", "topk"),
    "layout and type": ("Reorder", "Convert", "Transpose", "copy", "contiguous", "clone", "_to_copy"),
}
"""Class of operators -> parts of their names; the first match counts."""


def best(call: Callable[[], Any], seconds: float = 0.6) -> float:
    """Return the seconds of the fastest of some calls, the least disturbed one."""
    call()
    taken, ends = [], time.perf_counter() + seconds
    while not taken or time.perf_counter() < ends:
        started = time.perf_counter()
        call()
        taken.append(time.perf_counter() - started)
    return min(taken)


def torch_peaks(threads: int) -> dict[str, Any]:
    """Measure GFLOP/s of products and GB/s of a copy; for a separate process."""
    import torch

    torch.set_num_threads(threads)
    found: dict[str, Any] = {}
    with torch.inference_mode():
        for precision in PRECISIONS:
            a, b = (torch.randn(PRODUCT, PRODUCT).to(getattr(torch, precision)) for _ in range(2))
            found[f"torch, product {precision}"] = 2 * PRODUCT**3 / best(lambda x=a, y=b: x @ y) / 1e9
        source = torch.zeros(COPY_MB * 2**18)
        target = torch.empty_like(source)
        found["copy, GB/s"] = 2 * source.nbytes / best(lambda: target.copy_(source)) / 1e9
    return found


def layers(models: str) -> list[dict[str, Any]]:
    """List the backbone's convolutions: channels, kernel, stride, groups, output side, FLOPs per image."""
    import torch

    import anomem

    detector = anomem.load(Path(models) / "model.safetensors")
    backbone, hw = detector.scorer_.backbone, detector.preprocessing_.hw
    found: list[dict[str, Any]] = []

    def note(layer: Any, given: Any, output: Any) -> None:
        kernel = layer.kernel_size[0]
        each = layer.in_channels // layer.groups * kernel * kernel
        found.append(
            {
                "in": layer.in_channels,
                "out": layer.out_channels,
                "kernel": kernel,
                "stride": layer.stride[0],
                "groups": layer.groups,
                "given": given[0].shape[-1],
                "side": output.shape[-1],
                "flops": 2 * each * layer.out_channels * output.shape[-2] * output.shape[-1],
            }
        )

    hooks = [m.register_forward_hook(note) for m in backbone.modules() if isinstance(m, torch.nn.Conv2d)]
    with torch.inference_mode():
        backbone(torch.zeros(1, 3, *hw))
    for hook in hooks:
        hook.remove()
    return found


def work_of(models: str) -> dict[str, Any]:
    """Count FLOPs per image: convolutions by kind, whitening, products with the items; for a separate process."""
    import anomem

    detector = anomem.load(Path(models) / "model.safetensors")
    found = {"1x1 convolutions": 0, "depthwise convolutions": 0, "other convolutions": 0}
    for layer in (every := layers(models)):
        found[_kind(layer)] += layer["flops"]
    whitening = items = 0
    for scale in detector.scorer_.memories():
        positions, channels = scale.hw[0] * scale.hw[1], scale.normaliser.dim
        whitening += 2 * positions * channels * channels
        items += 2 * positions * channels * (0 if scale.memory is None else scale.memory.n_items)
    return {"flops": {**found, "whitening": whitening, "products with the items": items}, "layers": every}


def _kind(layer: dict[str, Any]) -> str:
    if layer["groups"] > 1:
        return "depthwise convolutions"
    return "1x1 convolutions" if layer["kernel"] == 1 else "other convolutions"


def convolution_peaks(every: list[dict[str, Any]], threads: int) -> dict[str, Any]:
    """Measure GFLOP/s of the backbone's layers, each alone and repeated: sum of FLOPs over sum of best times."""
    import torch

    torch.set_num_threads(threads)
    found: dict[str, Any] = {}
    shapes = {tuple(sorted(layer.items())): layer for layer in every}
    for precision in PRECISIONS:
        seconds: dict[str, dict[str, float]] = {"torch": {}, "openvino": {}}
        flops: dict[str, float] = {}
        for key, layer in shapes.items():
            times, kind = sum(tuple(sorted(other.items())) == key for other in every), _kind(layer)
            flops[kind] = flops.get(kind, 0) + times * layer["flops"]
            for runtime, measure in (("torch", _torch_layer), ("openvino", _openvino_layer)):
                taken = times * measure(layer, precision, threads)
                seconds[runtime][kind] = seconds[runtime].get(kind, 0.0) + taken
        for runtime, of_kinds in seconds.items():
            for kind, taken in of_kinds.items():
                found[f"{runtime}, {kind} {precision}"] = flops[kind] / taken / 1e9
            found[f"{runtime}, all convolutions {precision}"] = sum(flops.values()) / sum(of_kinds.values()) / 1e9
    return found


def _torch_layer(layer: dict[str, Any], precision: str, threads: int) -> float:
    import torch

    torch.set_num_threads(threads)
    kind = getattr(torch, precision)
    padding = layer["kernel"] // 2
    conv = torch.nn.Conv2d(
        *(layer["in"], layer["out"], layer["kernel"], layer["stride"], padding), groups=layer["groups"], bias=False
    )
    conv = conv.to(kind, memory_format=torch.channels_last)
    image = torch.randn(1, layer["in"], layer["given"], layer["given"]).to(kind, memory_format=torch.channels_last)
    with torch.inference_mode():
        return best(lambda: conv(image), 0.05)


def _openvino_layer(layer: dict[str, Any], precision: str, threads: int) -> float:
    import numpy as np

    from anomem.runtime.dependencies import import_openvino

    openvino = import_openvino()
    ops = openvino.opset13
    c, o, k, g = layer["in"], layer["out"], layer["kernel"], layer["groups"]
    around = [k // 2] * 2
    given = ops.parameter([1, c, layer["given"], layer["given"]], np.float32)
    shape = (o, c, k, k) if g == 1 else (g, o // g, c // g, k, k)
    weights = ops.constant(np.random.default_rng(0).standard_normal(shape).astype(np.float32))
    convolve = ops.convolution if g == 1 else ops.group_convolution
    # Relus on both sides: inside a network, tensors stay in the layout and type of its convolutions.
    computed = convolve(ops.relu(given), weights, [layer["stride"]] * 2, around, around, [1, 1])
    model = openvino.Model([ops.result(ops.relu(computed))], [given])
    hint = {"float32": "f32", "bfloat16": "bf16"}[precision]
    settings = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": threads, "PERF_COUNT": True}
    request = openvino.Core().compile_model(model, "CPU", settings).create_infer_request()
    image = np.random.default_rng(0).standard_normal((1, c, layer["given"], layer["given"])).astype(np.float32)
    taken = []
    for _ in range(8):
        request.infer([image])
        counted = [i.real_time.total_seconds() for i in request.profiling_info if "Convolution" in i.node_type]
        taken.append(sum(counted))
    return max(min(taken), 1e-6)


def openvino_peaks(threads: int) -> dict[str, Any]:
    """Measure GFLOP/s of one large product with openvino's counters; for a separate process."""
    import numpy as np

    from anomem.runtime.dependencies import import_openvino

    openvino = import_openvino()
    ops, found = openvino.opset13, {}
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((PRODUCT, PRODUCT)).astype(np.float32) for _ in range(2))
    for precision, hint in (("float32", "f32"), ("bfloat16", "bf16")):
        given = ops.parameter([PRODUCT, PRODUCT], np.float32)
        model = openvino.Model([ops.result(ops.matmul(given, ops.constant(b), False, True))], [given])
        settings = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": threads, "PERF_COUNT": True}
        request = openvino.Core().compile_model(model, "CPU", settings).create_infer_request()
        taken = []
        for _ in range(8):
            request.infer([a])
            parts = [i.real_time.total_seconds() for i in request.profiling_info]
            taken.append(max(parts))
        found[f"openvino, product {precision}"] = 2 * PRODUCT**3 / min(taken) / 1e9
    return found


def classed(parts: Sequence[tuple[str, float]]) -> dict[str, float]:
    """Return percent of the time per class of operators."""
    shares = dict.fromkeys([*CLASSES, "the rest"], 0.0)
    for name, seconds in parts:
        kind = next((k for k, marks in CLASSES.items() if any(mark in name for mark in marks)), "the rest")
        shares[kind] += seconds
    total = sum(shares.values())
    return {kind: round(100 * value / total, 1) for kind, value in shares.items()}


def profile_openvino(images: str, models: str, form: str, threads: int, count: int) -> dict[str, Any]:
    """Measure milliseconds per tile of model and bare backbone, and the shares; for a separate process."""
    import numpy as np

    import anomem
    from anomem.runtime.dependencies import import_openvino
    from anomem.runtime.engines import open_engine

    folder = Path(models)
    tiles = prepared(anomem.load(folder / FORMS[form][0]), test_files(Path(images))[:16])
    hint = open_engine(folder / FORMS[form][0], precision=FORMS[form][2], threads=threads).arithmetic
    settings = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    batches = [np.ascontiguousarray(tile.transpose(2, 0, 1)[None]) for tile in tiles]
    core, found = import_openvino().Core(), {}
    for name, file in (("model", folder / FORMS[form][0]), ("bare", bare_file(folder, form))):
        request = core.compile_model(str(file), "CPU", settings).create_infer_request()
        found[name] = _typical(lambda b, r=request: r.infer([b]), batches, count)
    request = core.compile_model(
        str(folder / FORMS[form][0]), "CPU", {**settings, "PERF_COUNT": True}
    ).create_infer_request()
    sums: dict[str, float] = {}
    for batch in batches:
        request.infer([batch])  # the first pass packs weights
    for batch in batches:
        request.infer([batch])
        for node in request.profiling_info:
            name = f"{node.node_type} {node.exec_type}"
            sums[name] = sums.get(name, 0.0) + node.real_time.total_seconds()
    return {"ms": found, "shares": classed(list(sums.items())), "load_average": os.getloadavg()[0]}


def profile_torch(images: str, models: str, precision: str, threads: int, count: int) -> dict[str, Any]:
    """Measure the same for torch, in batches of 16; the profile covers one thread, on one core."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    import anomem
    from anomem.data.imageset import to_tensor
    from anomem.nn.chunked import side_by_side
    from anomem.nn.precision import autocast

    warnings.simplefilter("ignore")
    torch.set_num_threads(threads)
    detector = anomem.load(Path(models) / "model.safetensors")
    scorer = detector.scorer_
    tiles = to_tensor(prepared(detector, test_files(Path(images))[:16]))
    work = {"model": partial(side_by_side, scorer), "bare": scorer.backbone}
    with torch.inference_mode(), autocast(torch.device("cpu"), precision):
        found = {name: _typical(call, [tiles], max(1, count // 16)) / len(tiles) for name, call in work.items()}
        torch.set_num_threads(1)
        with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as seen:
            scorer(tiles)
    events = seen.key_averages(group_by_input_shape=True)
    parts = [(_torch_name(event), float(event.self_cpu_time_total)) for event in events]
    return {"ms": found, "shares": classed(parts), "load_average": os.getloadavg()[0]}


def _torch_name(event: Any) -> str:
    """Return an operator's name; for a convolution with its kind, by the shape of its weights."""
    shapes = [s for s in event.input_shapes if len(s) == 4]
    if "conv" not in event.key or len(shapes) < 2:
        return str(event.key)
    weights = shapes[1]
    if weights[1] == 1 and shapes[0][1] > 1:
        return "depthwise"
    return "1x1" if weights[2] == 1 else "conv"


def _typical(call: Callable[[Any], Any], batches: Sequence[Any], count: int) -> float:
    """Return the median milliseconds of a call, over `count` calls after one round."""
    for batch in batches:
        call(batch)
    taken = []
    for i in range(count):
        started = time.perf_counter()
        call(batches[i % len(batches)])
        taken.append(1e3 * (time.perf_counter() - started))
    return round(statistics.median(taken), 3)


def peak_rows(rounds: Sequence[dict[str, float]]) -> list[Row]:
    """Return maximum and spread of every peak, over the rounds."""
    rows = []
    for name in rounds[0]:
        values = [r[name] for r in rounds]
        unit = "GB/s" if "GB/s" in name else "GFLOP/s"
        rows.append(
            Row(
                PEAKS,
                name.removesuffix(", GB/s"),
                {"highest": round(max(values), 1), "all": spread(values, 1), "": unit},
            )
        )
    return rows


def reached_rows(units: dict[str, list[dict[str, Any]]], flops: dict[str, float], peaks: dict[str, float]) -> list[Row]:
    """Return milliseconds, GFLOP/s, and shares of the product's and the convolutions' peak."""
    rows = []
    total, backbone = sum(flops.values()), sum(v for k, v in flops.items() if "convolutions" in k)
    for form, found in units.items():
        runtime, precision = form.split(" ")
        like = "bfloat16" if precision == "int8" else precision
        for part, work in (("model", total), ("bare", backbone)):
            ms = [u["ms"][part] for u in found]
            speed = work / statistics.median(ms) / 1e6
            values: dict[str, Any] = {"ms": spread(ms), "GFLOP/s": round(speed, 1)}
            if precision != "int8":
                values |= {
                    "of the product's peak %": round(100 * speed / peaks[f"{runtime}, product {like}"], 1),
                    "of the layers' peak %": round(100 * speed / peaks[f"{runtime}, all convolutions {like}"], 1),
                }
            rows.append(Row(REACHED, f"{form}, {'whole model' if part == 'model' else 'bare backbone'}", values))
    return rows


def main() -> None:
    """Measure and write the result file."""
    parser = options(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--count", type=int, default=64, help="images per round and form")
    parser.add_argument("--fit-images", type=int, default=400)
    bench = start("roofline", "Peak speed of this processor, and the share that scoring reaches", parser.parse_args())
    args = bench.args
    if args.limit:
        args.count, args.fit_images, args.rounds = args.limit, max(80, args.limit), 1
    images, models = prepare(bench, args.fit_images, args.limit or 256)
    work = bench.unit({"work": args.fit_images}, lambda: isolated(work_of, str(models)))
    flops, rounds = work["flops"], []
    units: dict[str, list[dict[str, Any]]] = {}
    for turn in range(args.rounds):
        key = {"round": turn, "threads": args.threads}
        rounds.append(
            {
                **bench.unit({"peaks": "torch", **key}, lambda: isolated(torch_peaks, args.threads)),
                **bench.unit({"peaks": "openvino", **key}, lambda: isolated(openvino_peaks, args.threads)),
                **bench.unit(
                    {"peaks": "layers", **key}, lambda: isolated(convolution_peaks, work["layers"], args.threads)
                ),
            }
        )
        for form in (*(f"torch {p}" for p in PRECISIONS), *OPENVINO):
            name = form.removeprefix("torch ")
            measure = profile_torch if form.startswith("torch") else profile_openvino
            arguments = (str(images), str(models), name, args.threads, args.count)
            unit = bench.unit(
                {"profile": form, "count": args.count, **key}, lambda m=measure, a=arguments: isolated(m, *a)
            )
            units.setdefault(form, []).append(unit)
    peaks = {name: max(r[name] for r in rounds) for name in rounds[0]}
    rows = peak_rows(rounds)
    rows += [Row(WORK, name, {"MFLOP": round(value / 1e6, 1)}) for name, value in flops.items()]
    rows += reached_rows(units, flops, peaks)
    for form, found in units.items():
        shares = {k: spread([u["shares"][k] for u in found], 1) for k in found[0]["shares"]}
        rows.append(Row(PROFILE, form, shares))
    notes = [
        f"{runtimes()}.",
        f"Peaks: the fastest call; products of {PRODUCT} x {PRODUCT}, copies of {COPY_MB} MB, read and written.",
        "Layers: every convolution of the backbone alone, one image; openvino's times come from its counters.",
        "A multiplication and an addition are two operations. int8 has no peak: it counts other operations.",
        "torch in batches of 16, openvino one tile per request; no decoding. Shares: of the time of all operators.",
    ]
    bench.write(rows, notes=notes)


if __name__ == "__main__":
    main()
