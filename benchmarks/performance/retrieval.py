"""Cost of the memory: retrieval against its matrix products alone, a stage-1 step against one without memory.

Both sides take turns in one process; peak memory is measured in separate processes.
"""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.common import Bench, Row, isolated, options, spread, start

CASES = {"14x14x112, N=512": (14, 112, 512), "7x7x2048, N=256": (7, 2048, 256)}
IMAGES, BETA = 32, 16.0
RETRIEVAL, STEP, MEMORY = (
    "Retrieval against the same matrix products alone",
    "A step of stage 1 against the same contrastive step without memory",
    "Peak memory of that step",
)
SIDES = ("with memory", "without memory")
SHOWN = {"all": "the whole backbone trained", "last": "the last stages trained"}


def measure_retrieval(case: str, repeats: int, threads: int) -> dict[str, Any]:
    """Measure milliseconds of the products alone, of soft and hard retrieval, in turns; for a separate process."""
    import torch

    from anomem.nn.hopfield import HopfieldMemory

    torch.set_num_threads(threads)
    side, channels, n_items = CASES[case]
    rng = torch.Generator().manual_seed(0)
    # Whitened features have a mean squared norm of 1.
    queries = torch.randn(IMAGES, side, side, channels, generator=rng) / channels**0.5
    items = torch.randn(n_items, channels, generator=rng) / channels**0.5
    soft, hard = (HopfieldMemory(n_items, channels, beta=BETA, hard=h) for h in (False, True))
    for memory in (soft, hard):
        memory.items.data.copy_(items)
    flat, weights = queries.reshape(-1, channels), torch.rand(queries.numel() // channels, n_items)
    work: dict[str, Callable[[], Any]] = {
        "one product": lambda: flat @ items.T,
        "both products": lambda: (flat @ items.T, weights @ items),
        "retrieval": lambda: soft(queries),
        "distance to the nearest item": lambda: hard.distances(queries),
    }
    taken: dict[str, list[float]] = {name: [] for name in work}
    with torch.inference_mode():
        for turn in range(-2, repeats):
            for name, call in work.items():
                started = time.perf_counter()
                call()
                if turn >= 0:
                    taken[name].append(1e3 * (time.perf_counter() - started))
    return {"milliseconds": {name: [round(t, 4) for t in times] for name, times in taken.items()}}


def steps(preset: str, trained: str, batch: int, count: int, *, memory: bool) -> Iterator[float]:
    """Run `count` optimiser steps of stage 1 on textures, and yield their seconds.

    Without memory: the same views, backbone, scales and sampled positions, contrasted directly; nothing is retrieved,
    and the loss has no variance term of retrievals.
    """
    import numpy as np
    import torch

    import anomem
    from anomem.data.augment import Augmentation
    from anomem.data.synthetic import TEXTURES, crops
    from anomem.detectors.anomem.loss import multi_scale_contrasted_memory_loss
    from anomem.detectors.anomem.scorer import MultiScaleScorer
    from anomem.detectors.anomem.stage_one import Contrast, ContrastedMemory
    from anomem.nn.views import ViewsOf, unfreeze
    from anomem.training import Recipe, train

    size = anomem.AnoMem(preset=preset).resolve()["size"]
    images = crops(TEXTURES[0], max(batch, 40), size=size, half="train", rng=np.random.default_rng(0))
    scorer = anomem.AnoMem(preset=preset).fit(images).scorer_.requires_grad_(False)
    assert isinstance(scorer, MultiScaleScorer)
    unfreeze(scorer.backbone, trained)
    for scale in scorer.memories():
        if memory and scale.memory is not None:
            scale.memory.requires_grad_(True)
    rng = torch.Generator().manual_seed(0)
    model = ContrastedMemory(scorer, Contrast(), projection_dim=None, rng=rng)
    views_of = ViewsOf(model, torch.device("cpu"), Augmentation(), True, "float32")
    pictures = torch.from_numpy(images[:batch].transpose(0, 3, 1, 2).copy())
    normal = torch.ones(batch, dtype=torch.bool)
    n_scales = len(scorer.memories())

    def loss(batch_of: tuple[Any, Any]) -> tuple[Any, Any]:
        first, second = views_of(batch_of[0])
        if memory:
            return model.loss(first, second, batch_of[1])
        same: list[Any] = [lambda z: z] * n_scales
        ratios = [0.3] * (n_scales - 1) + [1.0]
        options_: dict[str, Any] = {"ratios": ratios, "generator": rng, "variance_weight": 0.0}
        return multi_scale_contrasted_memory_loss(first, second, same, normal, **options_), {}

    batches = ((pictures, normal) for _ in range(count))
    started = time.perf_counter()
    for _ in train(model, loss, batches, Recipe(count, 1e-3), device=torch.device("cpu"), every=1):
        yield time.perf_counter() - started
        started = time.perf_counter()


def take_turns(preset: str, trained: str, batch: int, count: int, threads: int) -> dict[str, Any]:
    """Measure seconds of steps with and without memory, in turns; for a separate process."""
    import torch

    warnings.simplefilter("ignore")
    torch.set_num_threads(threads)
    both = {name: steps(preset, trained, batch, count + 1, memory=name == SIDES[0]) for name in SIDES}
    taken: dict[str, list[float]] = {name: [] for name in SIDES}
    for _ in range(count + 1):
        for name in SIDES:
            taken[name].append(round(next(both[name]), 4))
    return {"seconds": {name: values[1:] for name, values in taken.items()}}


def peak(preset: str, trained: str, batch: int, side: str, threads: int) -> dict[str, Any]:
    """Measure megabytes of three steps; for a separate process."""
    import torch

    from anomem.benchmark.environment import metered

    warnings.simplefilter("ignore")
    torch.set_num_threads(threads)
    with metered() as meter:
        for _ in steps(preset, trained, batch, 3, memory=side == SIDES[0]):
            pass
    return {"peak_mb": round(meter.peak_mb, 1)}


def retrieval_rows(bench: Bench) -> list[Row]:
    """Return ratios of medians, per round."""
    args, rows = bench.args, []
    for case in CASES:
        rounds = [
            bench.unit(
                {"retrieval": case, "round": turn, "repeats": args.repeats, "threads": args.threads},
                lambda c=case: isolated(measure_retrieval, c, args.repeats, args.threads),
            )["milliseconds"]
            for turn in range(args.rounds)
        ]
        for ours, theirs, title in (
            ("retrieval", "both products", f"{case}: retrieval"),
            ("distance to the nearest item", "one product", f"{case}: distance to the nearest item"),
        ):
            middles = [{name: statistics.median(r[name]) for name in (ours, theirs)} for r in rounds]
            ratios = [m[ours] / m[theirs] for m in middles]
            found = round(statistics.median(ratios), 2)
            values = {
                "median ratio": found,
                "ratio": spread(ratios),
                "ms": spread([m[ours] for m in middles]),
                "products, ms": spread([m[theirs] for m in middles]),
            }
            rows.append(Row(RETRIEVAL, title, values))
    return rows


def step_rows(bench: Bench) -> list[Row]:
    """Return seconds and peak memory of a step, with and without memory."""
    args, rows = bench.args, []
    for preset in args.presets:
        key = {"preset": preset, "trained": args.trained, "batch": args.batch, "threads": args.threads}
        arguments = (preset, args.trained, args.batch)
        taken = bench.unit(
            {"step": "seconds", "count": args.steps, **key},
            lambda a=arguments: isolated(take_turns, *a, args.steps, args.threads),
        )["seconds"]
        with_, without = (taken[side] for side in SIDES)
        ratios = [a / b for a, b in zip(with_, without, strict=True)]
        found = round(statistics.median(ratios), 2)
        values = {"median ratio": found, "ratio": spread(ratios), "s": spread(with_), "without, s": spread(without)}
        rows.append(Row(STEP, f"{preset}, {SHOWN[args.trained]}", values))
        peaks = [
            bench.unit({"step": side, **key}, lambda a=arguments, s=side: isolated(peak, *a, s, args.threads))[
                "peak_mb"
            ]
            for side in SIDES
        ]
        more = round(peaks[0] / peaks[1], 2)
        values = {"ratio": more, "MB": peaks[0], "without, MB": peaks[1]}
        rows.append(Row(MEMORY, f"{preset}, {SHOWN[args.trained]}", values))
    return sorted(rows, key=lambda row: row.table)


def main() -> None:
    """Measure and write the result file."""
    parser = options(__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="retrieval processes")
    parser.add_argument("--repeats", type=int, default=30, help="turns of retrieval per process")
    parser.add_argument("--presets", nargs="*", choices=("surface", "object"), default=["surface", "object"])
    parser.add_argument("--trained", choices=list(SHOWN), default="all", help="trained part of the backbone")
    parser.add_argument("--batch", type=int, default=32, help="images per stage-1 step")
    parser.add_argument("--steps", type=int, default=8, help="steps per side, after an uncounted one")
    bench = start("retrieval", "Cost of the memory", parser.parse_args())
    args = bench.args
    if args.limit:
        args.rounds, args.repeats, args.steps, args.batch = 2, min(args.limit, 8), 2, min(args.limit, 8)
    rows = [*retrieval_rows(bench), *step_rows(bench)]
    notes = [
        f"Retrieval: {IMAGES} images, beta {BETA:g}, vectors of mean squared norm 1, one update, without gradients.",
        "Both products: queries by items, associations by items. The nearest distance needs only the first.",
        f"Steps: {args.batch} images, two views each, float32, through anomem.training; met: by median ratio.",
        "Without memory: the same views, backbone, scales and positions; nothing retrieved, no variance term.",
    ]
    bench.write(rows, notes=notes)


if __name__ == "__main__":
    main()
