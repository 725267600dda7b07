"""FYD's dense training alone at several rates: how far features move, and what it does to held-out normals and defects.

    python -m benchmarks.fyd_rates

A fifth of the training images is held out of the whole fit. Neither aligner takes part, so that the backbone alone
changes; "frozen" is the same without training.
"""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from anomem.data.imageset import ImageSet
from anomem.detectors import get
from anomem.detectors.fyd.training import _separation
from anomem.fitting import make_run
from anomem.metrics import auroc
from benchmarks.common import HERE, SETS, Bench, Row, isolated, opened, options, spread, start

FROZEN = "frozen"
ARMS: dict[str, dict[str, Any] | None] = {
    FROZEN: None,
    "AdamW, mean, 1e-5, 60 steps": {},
    "AdamW, mean, 1e-4, 60 steps": {"lr": 1e-4},
    "AdamW, mean, 1e-3, 60 steps": {"lr": 1e-3},
    "AdamW, mean, 1e-4, 300 steps": {"lr": 1e-4, "steps": 300},
    "SGD, sum, 1e-4, 60 steps": {"lr": 1e-4, "reduction": "sum"},
    "SGD, sum, 1e-3, 60 steps": {"lr": 1e-3, "reduction": "sum"},
}
"""Changes of the default training per arm; those of SGD have its rate for f and g, too."""
BATCH, HELD_OUT = 16, 5


def fitted(arm: str, seed: int, source: Any) -> Any:
    """Fit FYD without aligners."""
    changes = ARMS[arm]
    settings: dict[str, Any] = {"image_aligner": None, "feature_aligner": None, "precision": "float32", "seed": seed}
    if changes is None:
        settings["training"] = None
    else:
        settings |= {f"training.{name}": value for name, value in changes.items()}
        if arm.startswith("SGD"):
            settings |= {"optimiser": "sgd", "training.head_lr": changes["lr"]}
    return get("fyd")(**settings).fit(source)


def features(detector: Any, source: Any) -> Tensor:
    """Return the features of images that the Gaussians see, (N, C, h, w)."""
    scorer = detector.scorer_
    images = ImageSet(source, detector.preprocessing_, workers=1)
    return torch.cat([scorer.embed(scorer.backbone(batch.images)) for batch in images.batches(BATCH)])


def measure(name: str, seed: int, threads: int, limit: int | None) -> dict[str, dict[str, float]]:
    """Return the figures of all arms on one set; for a separate process."""
    torch.set_num_threads(threads)
    warnings.simplefilter("ignore")
    data = opened(name, limit)
    order = np.random.default_rng(seed).permutation(len(data.train))
    held, learnt = (data.train.source.subset(np.sort(part)) for part in np.split(order, [len(order) // HELD_OUT]))
    found, before = {}, torch.empty(0)
    for arm in ARMS:
        detector = fitted(arm, seed, learnt)
        with torch.inference_mode():
            z = features(detector, held)
            before = z if arm == FROZEN else before
            run = make_run(detector.resolve(), device="cpu", fit_precision="float32", batch_size=BATCH, workers=1)
            prepared = ImageSet(held, detector.preprocessing_, workers=1)
            scores = [detector.anomaly_score(source).mean() for source in (held, learnt)]
            found[arm] = {
                "features moved, %": 100 * float((z - before).norm() / before.norm()),
                "held-out over learnt normals": float(scores[0] / scores[1]),
                "planted defects, deviations": _separation(detector.scorer_, prepared, run),
                "image AUROC, %": 100 * auroc(detector.anomaly_score(data.test.source), data.test.labels),
            }
    return found


def run(bench: Bench) -> None:
    """Measure all sets, and write a row per set and arm."""
    rows, args = [], bench.args
    for name in args.sets:
        units = []
        for seed in args.seeds:
            key = {"set": name, "seed": seed, "threads": args.threads}
            units.append(bench.unit(key, partial(isolated, measure, name, seed, args.threads, args.limit)))
        for arm in ARMS:
            values = {figure: spread([unit[arm][figure] for unit in units], 2) for figure in units[0][arm]}
            rows.append(Row(f"Training alone on {name}", arm, values))
    bench.write(rows, notes=["a fifth of the training images held out, no aligners, float32, default settings else"])


def main() -> None:
    """Run the script from the command line."""
    parser = options(__doc__)
    parser.set_defaults(out=HERE / "results" / "variants" / "fyd-rates.jsonl")
    parser.add_argument("--sets", nargs="+", default=["toothbrush", "magnetic_tile"], choices=list(SETS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    run(start("fyd-rates", "FYD's rates", parser.parse_args()))


if __name__ == "__main__":
    main()
