"""Checks of training on a GPU, each a few minutes: throughput, memory, compilation, parity with the CPU, and encoders.

    python -m benchmarks.gpu_check --out benchmarks/results/variants/gpu.jsonl   # at most 8 minutes on one H200
    python -m benchmarks.gpu_check --tiny --device cpu --out FILE                # the same script, in a minute

Every check appends one line as soon as it is done, and is skipped where the file has it. Encoders are trained on
CIFAR-10 from ``$ANOMEM_DATA``; all else uses the shipped photographs. Weights are random: nothing is downloaded.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from anomem.benchmark.environment import made_by
from anomem.benchmark.run_file import RunFile
from anomem.benchmark.unit import FORMAT, canonical, plain
from anomem.data.synthetic import crops
from anomem.detectors import get
from anomem.nn.backbones import load_backbone
from anomem.types import UInt8Image
from benchmarks.encoders import demonstration

TOLERANCE = 1e-3
"""Largest difference of a score between GPU and CPU, as a share of the range of scores: both in float32."""

FULL: dict[str, Any] = {"batch": 512, "width": 1.0, "epochs": 18, "images": 50_000, "steps": 300, "normals": 200}
TINY: dict[str, Any] = {"batch": 16, "width": 0.125, "epochs": 1, "images": 64, "steps": 12, "normals": 40}
SMALL_NETWORKS: dict[str, dict[str, Any]] = {
    "fyd": {"size": 64, "train_batch": 4, "n_channels": 20},
    "pmb": {"size": 64, "widths": (4, 8, 16, 16, 16), "train_batch": 4},
}
"""Sizes of the papers' networks in a tiny check."""


def main() -> None:
    """Run the checks that the file lacks."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--out", type=Path, required=True, help="file of lines, appended to")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="smallest sizes, for a processor")
    parser.add_argument("--only", nargs="*", default=list(CHECKS), choices=list(CHECKS))
    args = parser.parse_args()
    plan = TINY if args.tiny else FULL
    with RunFile(args.out) as run_file:
        for name in args.only:
            key = canonical(["gpu-check", name, args.device, plan])
            if key in run_file.keys:
                continue
            started = time.perf_counter()
            figures = plain(CHECKS[name](plan, args))
            figures["seconds"] = round(time.perf_counter() - started, 1)
            task = {"table": "Checks on a GPU", "case": name}
            line = {"format": FORMAT, "key": key, "protocol": "gpu-check", "title": "Checks on a GPU", "task": task}
            run_file.append({**line, "figures": figures, "made_by": made_by(args.device, torch.get_num_threads())})
            print(name, figures, flush=True)


def throughput(plan: dict[str, Any], args: argparse.Namespace) -> dict[str, Any]:
    """Measure a training step of the bare encoder, eager and compiled, in both precisions."""
    device = torch.device(args.device)
    backbone = (
        load_backbone("resnet18", stages=(3, 4), weights=None, width=plan["width"], small_stem=True).to(device).train()
    )
    images = torch.randint(256, (2 * plan["batch"], 3, 32, 32), dtype=torch.uint8, device=device)
    figures: dict[str, Any] = {}
    for name, network in (("eager", backbone), ("compiled", torch.compile(backbone))):
        for precision in ("float32", "bfloat16"):
            if name == "compiled" and args.tiny:
                continue  # A compiler is not everywhere, and takes a minute.
            rate = _images_per_second(network, images, device, precision)
            figures[f"{name}, {precision}, images/s"] = round(rate, 1)
    figures |= _peak(device)
    return figures


def _images_per_second(network: Any, images: torch.Tensor, device: torch.device, precision: str) -> float:
    """Return the rate of forward and backward passes, after uncounted ones."""

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            sum(m.float().square().mean() for m in network(images)).backward()

    count = 3 if device.type == "cpu" else 20
    for _ in range(count):
        step()
    _wait(device)
    started = time.perf_counter()
    for _ in range(count):
        step()
    _wait(device)
    return count * len(images) / (time.perf_counter() - started)


def encoders(plan: dict[str, Any], args: argparse.Namespace) -> dict[str, Any]:
    """Train encoders without and with memory, two seeds each, and measure them as the demonstration does."""
    changes = [f"width={plan['width']}", f"stage_one.batch={plan['batch']}"]
    steps = max(4, round(plan["epochs"] * plan["images"] / plan["batch"]))
    given = argparse.Namespace(
        steps=steps,
        images=plan["images"],
        test_images=min(10_000, plan["images"]),
        set=changes,
        device=args.device,
        out=args.out,
    )
    figures: dict[str, Any] = {"steps": steps}
    for arm in ("no memory", "memory, two scales"):
        for seed in (0, 1):
            found = demonstration.measured(arm, seed, given)
            for name in ("linear_probe", "neighbours", "effective_rank", "ood_own", "ood_centres", "ood_knn"):
                figures[f"{arm}, seed {seed}, {name}"] = found[name]
            figures[f"{arm}, seed {seed}, images/s"] = round(2 * plan["batch"] * steps / found["seconds"], 1)
    return {**figures, **_peak(torch.device(args.device))}


def recipe(method: str) -> Callable[[dict[str, Any], argparse.Namespace], dict[str, Any]]:
    """Return the check of a paper's recipe at its size: losses, time and memory of some hundred steps."""

    def check(plan: dict[str, Any], args: argparse.Namespace) -> dict[str, Any]:
        budget = {"fyd": "training.steps", "pmb": "train_steps"}[method]
        small = SMALL_NETWORKS[method] if args.tiny else {}
        random = {"weights": None} if method == "fyd" else {}
        detector = get(method)(preset="paper", **{**random, **small, budget: plan["steps"]})
        started = time.perf_counter()
        detector.fit(_normals(plan), device=args.device, calibration="split")
        losses = [record.facts["loss"] for record in detector.history_ if "loss" in record.facts]
        figures = {"steps": plan["steps"], "fit, s": round(time.perf_counter() - started, 1)}
        figures |= {"first loss": losses[0], "last loss": losses[-1], "falls": min(losses[1:]) < losses[0]}
        return {**figures, **_peak(torch.device(args.device))}

    return check


def parity(plan: dict[str, Any], args: argparse.Namespace) -> dict[str, Any]:
    """Compare scores of one model on both devices, in float32."""
    figures: dict[str, Any] = {"tolerance": TOLERANCE}
    fresh = crops("brick", 24, size=64, half="test", rng=np.random.default_rng(1))
    for method in ("anomem", "padim", "knn"):
        detector = get(method)(size=64, precision="float32").fit(_normals(plan), device="cpu", fit_precision="float32")
        here, there = (detector.anomaly_score(fresh, device=device) for device in ("cpu", args.device))
        apart = float(np.abs(here - there).max() / np.ptp(here))
        figures[f"{method}, largest difference / range"] = apart
        figures[f"{method}, within"] = apart <= TOLERANCE
    return figures


def _normals(plan: dict[str, Any]) -> UInt8Image:
    return crops("brick", plan["normals"], size=64, half="train", rng=np.random.default_rng(0))


def _peak(device: torch.device) -> dict[str, float]:
    """Return the peak of the GPU's memory since the last call."""
    if device.type != "cuda":
        return {}
    peak = torch.cuda.max_memory_allocated(device) / 1e6
    torch.cuda.reset_peak_memory_stats(device)
    return {"peak GPU memory, MB": round(peak, 1)}


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


CHECKS: dict[str, Callable[[dict[str, Any], argparse.Namespace], dict[str, Any]]] = {
    "parity": parity,
    "throughput": throughput,
    "fyd, as printed": recipe("fyd"),
    "pmb, as printed": recipe("pmb"),
    "encoders": encoders,
}


if __name__ == "__main__":
    main()
