"""Forward passes of PLUME's scorer against its backbone alone; PMB's training step against one with skips."""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.common import Row, isolated, options, spread, start

PLUME, PMB = "Scorer against its backbone alone", "A training step at 128 px, batch 20"
WARM, STEPS = 3, 5
NOTES = (
    "A step of PMB: the difference of two fits, one with five steps more, over five; memories and skips in turns.",
    "Ratios: the median of pairs.",
)


def in_turns(calls: dict[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """Return the seconds of each call, in turns, after uncounted ones."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(-WARM, repeats):
        for name in calls if turn % 2 else reversed(calls):
            started = time.perf_counter()
            calls[name]()
            if turn >= 0:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def measure_scorer(repeats: int, batch: int, threads: int) -> dict[str, Any]:
    """Measure PLUME's scorer and its backbone at 224 px; for a separate process."""
    import numpy as np
    import torch

    from anomem.data.synthetic import crops
    from anomem.detectors import get

    torch.set_num_threads(threads)
    warnings.simplefilter("ignore")
    rng = np.random.default_rng(0)
    scorer: Any = get("plume")(**{"training.steps": 1}).fit(crops("brick", 40, size=224, half="train", rng=rng)).scorer_
    images = torch.from_numpy(crops("brick", batch, size=224, half="test", rng=rng)).permute(0, 3, 1, 2)
    with torch.inference_mode():
        seconds = in_turns({"scorer": lambda: scorer(images), "backbone": lambda: scorer.backbone(images)}, repeats)
    ratios = [b / s for s, b in zip(seconds["scorer"], seconds["backbone"], strict=True)]
    rates = {name: batch / statistics.median(values) for name, values in seconds.items()}
    return {"ratio": statistics.median(ratios), "rates": rates}


def measure_steps(precision: str, pairs: int, threads: int) -> dict[str, Any]:
    """Measure training steps of PMB with memories and with skips instead; for a separate process.

    The time of a step is the difference of two fits to the same images, one with `STEPS` more steps.
    """
    import numpy as np
    import torch

    from anomem.data.synthetic import crops
    from anomem.detectors import get

    torch.set_num_threads(threads)
    warnings.simplefilter("ignore")
    images = crops("brick", 60, size=128, half="train", rng=np.random.default_rng(0))

    def fit(memory: str, steps: int) -> float:
        started = time.perf_counter()
        get("pmb")(preset="surface", memory=memory, train_steps=steps).fit(images, fit_precision=precision)
        return time.perf_counter() - started

    fit("partition", 1)  # warms up
    sides = ("partition", "skip")
    turns = [{memory: (fit(memory, STEPS + 1) - fit(memory, 1)) / STEPS for memory in sides} for _ in range(pairs)]
    ratios = [turn["partition"] / turn["skip"] for turn in turns]
    return {"ratios": ratios, **{memory: statistics.median(turn[memory] for turn in turns) for memory in sides}}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write the lines."""
    parser = options(__doc__)
    parser.add_argument("--passes", type=int, default=40, help="pairs of forward passes")
    parser.add_argument("--pairs", type=int, default=4, help="pairs of fits with memories and with skips")
    bench = start("steps", "Forward passes and training steps of PLUME and PMB", parser.parse_args(arguments))
    args = bench.args
    passes, pairs = (min(count, args.limit or count) for count in (args.passes, args.pairs))
    key = {"threads": args.threads}
    unit = bench.unit({"plume": passes, **key}, lambda: isolated(measure_scorer, passes, 16, args.threads))
    values: dict[str, Any] = {"ratio, median of pairs": round(unit["ratio"], 3)}
    values |= {f"{name}, images/s": round(rate, 1) for name, rate in unit["rates"].items()}
    rows = [Row(PLUME, "PLUME at 224 px", values)]
    for precision in ("bfloat16", "float32"):
        work = (precision, pairs, args.threads)
        unit = bench.unit({"pmb": precision, "pairs": pairs, **key}, lambda w=work: isolated(measure_steps, *w))
        values = {"PMB, s": round(unit["partition"], 3), "AE + skip, s": round(unit["skip"], 3)}
        ratios = unit["ratios"]
        values |= {"ratio, median": round(statistics.median(ratios), 3), "ratio": spread(ratios)}
        rows.append(Row(PMB, precision, values))
    bench.write(rows, notes=NOTES)


if __name__ == "__main__":
    main()
