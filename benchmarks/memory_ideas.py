"""Ideas for AnoMem's memory that did not become settings, on cached features of the development sets.

    python -m benchmarks.memory_ideas

- Neighbours: an image is held against the positions of the k learnt images most similar to it as a whole alone.
- Distribution: the Mahalanobis distance of an image's mean features joins the score, with a weight.
- Cleaning: learnt images that random sub-memories without them score highest are left out, a share of them.
- Support: items whose nearest positions all come from one learnt image are left out.

The last two are meant for training images with defects, so that they are also measured with a share planted.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from anomem.benchmark.image_sets import open_bench_set
from anomem.data.imageset import ImageSet
from anomem.data.labelled_images import Images
from anomem.data.sources import PathSource
from anomem.data.splits import groups_of, split_normals
from anomem.detectors import get
from anomem.detectors.anomem.scorer import MultiScaleScorer
from anomem.fitting import Run, make_run, read_preprocessing
from anomem.metrics import PixelScores, auroc
from anomem.nn.feature_store import FeatureStore
from anomem.nn.hopfield import HopfieldMemory
from anomem.nn.kept_maps import KeptMaps, keep_maps
from anomem.runtime.progress import run_to_end
from anomem.types import ANOMALOUS, FloatArray, IntArray
from benchmarks.common import HERE, SETS, Bench, Row, isolated, options, spread, start

DEVELOPMENT = ("toothbrush", "pill", "aitex", "stains", "magnetic_tile")
NEIGHBOURS, WEIGHTS, CLEANED = (5, 20), (0.25, 0.5, 1.0), (0.02, 0.05)
ALPHAS, LEAST_NORMALS = (0.01, 0.05), 99
PLANTED, SUB_MEMORIES, SHRINKAGE = 0.05, 6, 0.1
DEFAULT = "default"

Norms = list[Tensor]


@dataclass(frozen=True)
class Material:
    """One split of a set with cached maps: rows of `kept` to learn from, to tune and to test on."""

    detector: Any
    run: Run[Any]
    empty: Callable[[], MultiScaleScorer]
    kept: KeptMaps
    learn: list[int]
    tune: list[int]
    test: list[int]
    images: Images
    first_test: int

    def of(self, rows: Sequence[int]) -> KeptMaps:
        """Return some rows."""
        return self.kept.subset(list(rows))


def material(name: str, seed: int, share: float, store: FeatureStore) -> Material:
    """Extract the maps of a set; a share of the normals learnt from are replaced by test defects, no longer tested."""
    data = open_bench_set(SETS[name])
    detector: Any = get("anomem")(aspect="square", seed=seed)
    run = make_run(detector.resolve(), device="cpu", fit_precision="float32", batch_size=16, workers=1)
    images = ImageSet(PathSource([*data.train.paths, *data.test.paths]), read_preprocessing(run.params), workers=1)
    backbone = detector._empty(run, images.preprocessing.hw).backbone
    kept = run_to_end(keep_maps(store, backbone, images, precision="float32", batch_size=16))
    first_test = len(data.train)
    digests = [image.digest for image in kept.tiles]
    parts = split_normals(digests[:first_test], groups_of(digests[:first_test], data.train.groups or None), seed=seed)
    defects = first_test + np.flatnonzero(data.test.labels == ANOMALOUS)
    chosen = np.random.default_rng(seed).permutation(defects)[: round(share * len(parts.learn))].tolist()
    learn = [*list(map(int, parts.learn))[len(chosen) :], *chosen]
    test = [i for i in range(first_test, len(digests)) if i not in chosen]
    empty = partial(detector._empty, run, images.preprocessing.hw, backbone)
    return Material(detector, run, empty, kept, learn, list(map(int, parts.tune)), test, data.test, first_test)


def memorised(m: Material, rows: Sequence[int], seed: int) -> MultiScaleScorer:
    """Seed the memories from some rows."""
    scorer = m.empty()
    run = replace(m.run, rng=torch.Generator().manual_seed(seed))
    run_to_end(m.detector._memorise(scorer, m.of(rows), run))
    return scorer.eval().requires_grad_(False)


@torch.inference_mode()
def norms(scorer: MultiScaleScorer, kept: KeptMaps) -> Norms:
    """Return the norms per scale of all images."""
    seen = [
        [scale.norms(f) for scale, f in zip(scorer.memories(), scorer.sources(maps), strict=True)]
        for maps in kept.kept(32)
    ]
    return [torch.cat(scale) for scale in zip(*seen, strict=True)]


@torch.inference_mode()
def embedded(scorer: MultiScaleScorer, kept: KeptMaps) -> list[Tensor]:
    """Return all positions in the space of the association, (N, P, D) per scale."""
    seen = [
        [
            scale.embed(f).flatten(2).transpose(1, 2)
            for scale, f in zip(scorer.memories(), scorer.sources(m), strict=True)
        ]
        for m in kept.kept(32)
    ]
    return [torch.cat(scale) for scale in zip(*seen, strict=True)]


def means(scorer: MultiScaleScorer, positions: Sequence[Tensor]) -> Tensor:
    """Return the mean features of each image, (N, C), of the scales without neighbourhood, places left out."""
    pairs = list(zip(scorer.memories(), positions, strict=True))[1::2]
    return torch.cat([scale[:, :, : memory.channels].mean(dim=1) for memory, scale in pairs], dim=1)


@torch.inference_mode()
def nearest_images(scorer: MultiScaleScorer, learnt: list[Tensor], asked: list[Tensor], k: int) -> Norms:
    """Return distances to the nearest position of the k learnt images most similar as a whole."""
    known, new = (F.normalize(means(scorer, positions)) for positions in (learnt, asked))
    chosen = (new @ known.T).topk(min(k, len(known))).indices
    found = []
    for memory, own, of_learnt in zip(scorer.memories(), asked, learnt, strict=True):
        each = [torch.cdist(z, of_learnt[rows].flatten(0, 1)).amin(dim=1) for z, rows in zip(own, chosen, strict=True)]
        found.append(torch.stack(each).reshape(-1, *memory.hw))
    return found


def supported(scorer: MultiScaleScorer, positions: list[Tensor]) -> int:
    """Leave out items supported by one image; return their number."""
    dropped = 0
    for scale, learnt in zip(scorer.memories(), positions, strict=True):
        if scale.memory is None:
            continue
        items = scale.memory.items.detach()
        support = torch.zeros(len(items), dtype=torch.long)
        for image in learnt:
            support[torch.cdist(image, items).argmin(dim=1).unique()] += 1
        kept = items[support > 1]
        if 0 < len(kept) < len(items):
            dropped += len(items) - len(kept)
            scale.memory = HopfieldMemory(len(kept), scale.dim, **scale.retrieval).requires_grad_(False)
            scale.memory.items.copy_(kept)
    return dropped


def without_highest(m: Material, share: float, seed: int) -> list[int]:
    """Leave out the share of the learnt images that sub-memories without them score highest."""
    rng, scores = np.random.default_rng(seed), {row: list[float]() for row in m.learn}
    for number in range(SUB_MEMORIES):
        order = rng.permutation(m.learn).tolist()
        half, rest = order[: len(order) // 2], order[len(order) // 2 :]
        scorer = memorised(m, half, seed + number)
        found = norms(scorer, m.of(rest))
        scorer.standardise_on(found)
        for row, score in zip(rest, scorer.fuse(found).score.tolist(), strict=True):
            scores[row].append(score)
    ranked = sorted(m.learn, key=lambda row: -float(np.mean(scores[row] or [-np.inf])))
    out = set(ranked[: round(share * len(ranked))])
    return [row for row in m.learn if row not in out]


def judged(
    m: Material, scorer: MultiScaleScorer, tune: Norms, test: Norms, extra: Tensor | None = None
) -> dict[str, Any]:
    """Return image AUROC, attainable detection and AUPRO after standardisation on the tune normals."""
    scorer.standardise_on(tune)
    with torch.inference_mode():
        output = scorer.fuse(test)
    scores = output.score if extra is None else output.score + extra
    places = [row - m.first_test for row in m.test]
    labels = m.images.labels[places]
    found = {"auroc": auroc(scores.numpy(), labels)}
    if (labels != ANOMALOUS).sum() >= LEAST_NORMALS:
        found |= {f"found at {alpha:.0%}": attainable(scores.numpy(), labels, alpha) for alpha in ALPHAS}
    pixels = PixelScores()
    for place, map_ in zip(places, output.map if output.map is not None else [], strict=True):
        _add(pixels, m.images, place, map_)
    return found | ({"aupro": pixels.aupro()} if pixels.n_regions else {})


def attainable(scores: FloatArray, labels: IntArray, alpha: float) -> float:
    """Return the share of the defects above the lowest threshold that rejects at most alpha of the test normals."""
    normals = np.sort(scores[labels != ANOMALOUS])[::-1]
    return float((scores[labels == ANOMALOUS] > normals[int(alpha * len(normals))]).mean())


def _add(pixels: PixelScores, images: Images, place: int, map_: Tensor) -> None:
    height, width, _ = images.source.load(place).shape
    full = F.interpolate(map_[None, None], size=(height, width), mode="bilinear", align_corners=False)[0, 0].numpy()
    if images.labels[place] != ANOMALOUS:
        pixels.add(full)
        return
    mask = images.mask(place, (height, width)) if images.masks else None
    if mask is not None and np.asarray(mask).any():
        pixels.add(full, np.asarray(mask, dtype=bool))


def distributions(m: Material, learnt: list[Tensor], scorer: MultiScaleScorer) -> tuple[Tensor, Tensor]:
    """Return the standardised Mahalanobis distance of the mean features of tune and test images."""
    asked = (learnt, embedded(scorer, m.of(m.tune)), embedded(scorer, m.of(m.test)))
    known, tune, test = (means(scorer, positions) for positions in asked)
    centred = known - known.mean(dim=0)
    covariance = centred.T @ centred / max(1, len(known) - 1)
    shrunk = (1 - SHRINKAGE) * covariance + SHRINKAGE * covariance.diagonal().mean() * torch.eye(len(covariance))
    inverse = torch.linalg.inv(shrunk.double()).float()
    far = [((x - known.mean(dim=0)) @ inverse * (x - known.mean(dim=0))).sum(dim=1).sqrt() for x in (tune, test)]
    return (far[0] - far[0].mean()) / far[0].std(), (far[1] - far[0].mean()) / far[0].std()


def measure(name: str, seed: int, share: float, threads: int, distribution_alone: bool) -> dict[str, Any]:
    """Measure all ideas, or one, on one split of a set; for a separate process."""
    torch.set_num_threads(threads)
    warnings.simplefilter("ignore")
    found: dict[str, Any] = {}
    with FeatureStore(4096) as store:
        m = material(name, seed, share, store)
        scorer = memorised(m, m.learn, seed)
        tune, test, learnt = norms(scorer, m.of(m.tune)), norms(scorer, m.of(m.test)), embedded(scorer, m.of(m.learn))
        found[DEFAULT] = judged(m, scorer, tune, test)
        if not share:
            _, far = distributions(m, learnt, scorer)
            for weight in WEIGHTS:
                found[f"distribution, weight {weight:g}"] = judged(m, scorer, tune, test, weight * far)
            if distribution_alone:
                return found
            asked = [embedded(scorer, m.of(rows)) for rows in (m.tune, m.test)]
            for k in NEIGHBOURS:
                near_tune, near_test = (nearest_images(scorer, learnt, positions, k) for positions in asked)
                found[f"{k} most similar images"] = judged(m, scorer, near_tune, near_test)
        supported(scorer, learnt)
        found["items of one image left out"] = judged(
            m, scorer, norms(scorer, m.of(m.tune)), norms(scorer, m.of(m.test))
        )
        for part in CLEANED:
            cleaned = memorised(m, without_highest(m, part, seed), seed)
            answers = norms(cleaned, m.of(m.tune)), norms(cleaned, m.of(m.test))
            found[f"{part:.0%} cleaned"] = judged(m, cleaned, *answers)
    return found


def run(bench: Bench) -> None:
    """Measure all sets, and write a row per idea."""
    rows, alone = [], bench.args.distribution_alone
    for share in (0.0,) if alone else (0.0, PLANTED):
        found: dict[str, dict[str, list[dict[str, float]]]] = {}
        for name in bench.args.sets:
            for seed in bench.args.seeds:
                key = {"set": name, "seed": seed, "planted": share, "threads": bench.args.threads}
                key |= {"distribution": True} if alone else {}
                unit = bench.unit(key, partial(isolated, measure, name, seed, share, bench.args.threads, alone))
                for idea, figures in unit.items():
                    found.setdefault(idea, {}).setdefault(name, []).append(figures)
        table = f"Image AUROC, attainable detection and AUPRO, %, {share:.0%} of the learnt images planted defects"
        for idea, by_set in found.items():
            values = {
                f"{name}, {figure}": spread([100 * unit[figure] for unit in units], 1)
                for name, units in by_set.items()
                for figure in units[0]
            }
            rows.append(Row(table, idea, values))
    bench.write(rows, notes=[__doc__.split("\n", 1)[0] if __doc__ else "", "split, 224 px, default settings else"])


def main() -> None:
    """Run the script from the command line."""
    parser = options(__doc__)
    parser.set_defaults(out=HERE / "results" / "variants" / "memory-ideas.jsonl")
    parser.add_argument("--sets", nargs="+", default=list(DEVELOPMENT), choices=list(SETS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument(
        "--distribution-alone", action="store_true", help="measure this idea alone, in a tenth of the time"
    )
    run(start("memory-ideas", "Ideas for the memory", parser.parse_args()))


if __name__ == "__main__":
    main()
