"""AnoMem's claim that the memory helps, at a size that a CPU trains: encoders with and without memory.

    python -m benchmarks.encoders.demonstration --time             # seconds of a step and of the whole plan
    python -m benchmarks.encoders.demonstration --out FILE         # trains what FILE lacks; resumable to the checkpoint

Each unit, an arm and a seed, trains a quarter-width ResNet-18 at 32 px on all CIFAR-10 training images without classes:
without memory, or with one of one or two scales, from the first step or late. Arms are paired by their
seed. Measured on the test images, once per unit: a linear probe and 20 nearest neighbours (Table 4a); detection of
CIFAR-100 by the memory, by the nearest k-means centre of the same encoder (Table 4b) and by k-NN; loss curve, cosine of
retrievals and effective rank. Paired differences follow as measurement lines.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from anomem.benchmark.environment import made_by
from anomem.benchmark.run_file import RunFile, read_runs
from anomem.benchmark.unit import FORMAT, canonical
from anomem.checkpoints import checkpointing, remove_checkpoint
from anomem.detectors.anomem import AnoMem
from anomem.detectors.anomem.scorer import MultiScaleScorer
from anomem.metrics import auroc
from anomem.nn.inference import outputs
from anomem.runtime.progress import run_to_end
from benchmarks.encoders.training import (
    Images,
    Trained,
    curve,
    effective_rank,
    facts_of,
    neighbour_accuracy,
    pooled,
    prepared,
    running,
    settled,
    trained,
)

_ONE_SCALE: dict[str, Any] = {
    "stages": (4,),
    "memory_size": (256,),
    "scale_weights": (1.0,),
    "stage_one.contrast.ratios": (1.0,),
}


def arms(steps: int) -> dict[str, dict[str, Any]]:
    """Return the parameters of each arm for a number of steps.

    A late memory is seeded by k-means from the features of an encoder that has learnt without it for three quarters of
    the steps; the share and the seeding were chosen on training images (`readings`, at 400 steps).
    """
    late = {"seeding": "kmeans", "stage_one.warmup": steps * 3 // 4}
    return {
        "no memory": {"memory": "identity"},
        "memory, one scale": _ONE_SCALE,
        "memory, two scales": {},
        "late memory, one scale": {**_ONE_SCALE, **late},
        "late memory, two scales": late,
    }


ARMS = tuple(arms(1))
PROTOCOL, CONTROL = "encoders", "no memory"
FIGURES = {
    "linear_probe": "linear probe, points",
    "neighbours": "20-NN, points",
    "ood_own": "CIFAR-100 against CIFAR-10, AUROC, points",
}


def main() -> None:
    """Train and measure the units that the file lacks, or time some steps."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--out", type=Path, help="file of lines, appended to")
    parser.add_argument("--time", action="store_true", help="time 20 steps of each arm, and print the plan's hours")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--images", type=int, default=50_000, help="training images without classes")
    parser.add_argument("--test-images", type=int, default=10_000)
    parser.add_argument("--seeds", type=int, nargs="*", default=list(range(5)))
    parser.add_argument("--arms", nargs="*", default=ARMS, choices=ARMS, metavar="ARM")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=NUMBER", help="changes of all arms, for trials")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.time:
        timed(args)
    elif args.out is None:
        parser.error("--out is missing")
    else:
        run_units(args)


def run_units(args: argparse.Namespace) -> None:
    """Train and measure what the file lacks, then write the differences."""
    with RunFile(args.out) as run_file:
        for arm, seed in ((arm, seed) for seed in args.seeds for arm in args.arms):
            key = canonical([PROTOCOL, arm, seed, args.steps, args.images, args.test_images, sorted(args.set)])
            if key in run_file.keys:
                continue
            task = {"arm": arm, "seed": seed, "steps": args.steps, "images": args.images}
            line = {"format": FORMAT, "key": key, "protocol": PROTOCOL, "task": task}
            run_file.append({**line, "figures": measured(arm, seed, args), "made_by": made_by(args.device, 1)})
            print(arm, seed, "done", flush=True)
    with RunFile(args.out) as run_file:
        for line in differences(read_runs(args.out)):
            if line["key"] not in run_file.keys:
                run_file.append({**line, "made_by": made_by(args.device, 1)})


def timed(args: argparse.Namespace) -> None:
    """Print the seconds of a step of each arm, and the hours of all units."""
    total = 0.0
    for arm in args.arms:
        detector = detector_of(arm, 0, args, steps=20)
        run = running(detector, args.device)
        learn = prepared("cifar10", detector, "train", most=2_000)
        seconds = trained(detector, learn.images, run).seconds / 20
        total += seconds * args.steps * len(args.seeds)
        print(f"{arm}: {seconds:.2f} s per step", flush=True)
    print(f"{len(args.arms) * len(args.seeds)} units of {args.steps} steps: {total / 3600:.1f} hours")


def detector_of(arm: str, seed: int, args: argparse.Namespace, **changes: Any) -> AnoMem:
    """Return the detector of a unit."""
    given = {name: float(value) for name, value in (text.split("=") for text in args.set)}
    whole = {name: int(value) if value.is_integer() else value for name, value in given.items()}
    steps = changes.get("steps", args.steps)
    return settled({**arms(steps)[arm], **whole}, steps, seed)


def measured(arm: str, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """Train one unit, from its checkpoint where there is one, and return its figures."""
    detector = detector_of(arm, seed, args)
    run = running(detector, args.device)
    learn = prepared("cifar10", detector, "train", most=args.images)
    checkpoint = args.out.with_suffix(f".{arm.replace(', ', '-').replace(' ', '-')}-{seed}.checkpoint")
    with checkpointing(checkpoint, 10.0, resume=True) as checkpoints:
        if checkpoints is not None:
            checkpoints.begin({"arm": arm, "seed": seed, "steps": args.steps, "images": args.images})
        found = trained(detector, learn.images, run)
    facts = facts_of(found, learn.images.subset(range(min(len(learn.classes), 1_000))), run)
    figures = judged(found, detector, learn, args)
    remove_checkpoint(checkpoint)
    rounded = {name: round(value, 4) for name, value in {**facts, **figures}.items()}
    return {**rounded, "seconds": round(found.seconds, 1), "curve": list(curve(found.history, 100))}


def judged(found: Trained, detector: AnoMem, learn: Images, args: argparse.Namespace) -> dict[str, float]:
    """Return the figures on test images of CIFAR-10, and of CIFAR-100 as anomalies."""
    test = prepared("cifar10", detector, "test", most=args.test_images)
    other = prepared("cifar100", detector, "test", most=args.test_images)
    found.scorer.eval()
    known, asked, strange = (pooled(found.scorer, images.images) for images in (learn, test, other))
    centres = centred(found, detector, learn, args.device)
    own = centres if detector["memory"] == "identity" else found.scorer
    return {
        "linear_probe": probe(known, learn.classes, asked, test.classes),
        "neighbours": neighbour_accuracy(known, learn.classes, asked, test.classes),
        "effective_rank": effective_rank(asked),
        "ood_own": separated(scores(own, test), scores(own, other)),
        "ood_centres": separated(scores(centres, test), scores(centres, other)),
        "ood_knn": separated(nearest(known, asked), nearest(known, strange)),
    }


def probe(known: Tensor, classes: Sequence[str], asked: Tensor, truth: Sequence[str]) -> float:
    """Return the accuracy of a logistic regression on standardised features."""
    from sklearn.linear_model import LogisticRegression

    mean, deviation = known.mean(dim=0), known.std(dim=0).clamp_min(1e-6)
    first, second = (((part - mean) / deviation).numpy() for part in (known, asked))
    classifier = LogisticRegression(max_iter=300).fit(first, np.asarray(classes))
    return float(np.mean(classifier.predict(second) == np.asarray(truth)))


def centred(found: Trained, detector: AnoMem, learn: Images, device: str) -> MultiScaleScorer:
    """Return a scorer with the same encoder, whose items are k-means centres of its features."""
    control = AnoMem(**{**detector.get_params(), "memory": "identity"})
    run = running(control, device)
    scorer = control._empty(run, learn.images.preprocessing.hw, found.scorer.backbone)
    sample = learn.images.subset(range(min(len(learn.classes), 5_000)))
    run_to_end(control._seed(scorer, sample, run, "kmeans"))
    return scorer.eval()


@torch.inference_mode()
def scores(scorer: MultiScaleScorer, images: Images) -> Tensor:
    """Return the one-class score of each image (Eq. 9 and 13)."""
    device = next(scorer.parameters()).device
    found = outputs(scorer, images.images, device=device, precision="float32", batch_size=256)
    return torch.cat([output.score.float().cpu() for output in found])


def nearest(known: Tensor, asked: Tensor) -> Tensor:
    """Return one minus the mean cosine with the two nearest training images."""
    similarity = F.normalize(asked, dim=1) @ F.normalize(known, dim=1).T
    return 1 - similarity.topk(2, dim=1).values.mean(dim=1)


def separated(normal: Tensor, anomalous: Tensor) -> float:
    """Return the AUROC of anomalous against normal scores."""
    labels = np.repeat([0, 1], [len(normal), len(anomalous)])
    return float(auroc(torch.cat([normal, anomalous]).numpy(), labels))


def differences(lines: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield a measurement line per arm with a memory: figures less the control's of the same seed and plan."""
    units = {}
    for line in lines:
        if line["protocol"] == PROTOCOL and "arm" in line["task"]:
            task = line["task"]
            units[task["arm"], task["seed"], task["steps"], task["images"]] = line["figures"]
    for plan in sorted({key[2:] for key in units}):
        for arm in ARMS:
            seeds = [s for a, s, *rest in units if a == arm and tuple(rest) == plan and (CONTROL, s, *plan) in units]
            if arm == CONTROL or len(seeds) < 2:
                continue
            pairs = [(units[(arm, s, *plan)], units[(CONTROL, s, *plan)]) for s in seeds]
            figures = {
                title: _spread([100 * (own[name] - control[name]) for own, control in pairs])
                for name, title in FIGURES.items()
            }
            own = [units[(arm, s, *plan)] for s in seeds]
            figures["Hopfield above k-means centres, same encoder, AUROC, points"] = _spread(
                [100 * (f["ood_own"] - f["ood_centres"]) for f in own]
            )
            task = {"table": f"Above no memory, {plan[0]} steps, {plan[1]} images", "case": arm}
            yield {
                "format": FORMAT,
                "key": canonical([PROTOCOL, "differences", arm, plan, sorted(seeds)]),
                "protocol": PROTOCOL,
                "title": "Encoders with and without memory",
                "task": task,
                "figures": figures,
            }


def _spread(values: Sequence[float]) -> dict[str, float]:
    deviation = statistics.stdev(values) if len(values) > 1 else math.nan
    return {"mean": round(statistics.fmean(values), 2), "sd": round(deviation, 2), "n": len(values)}


if __name__ == "__main__":
    main()
