"""Split and cross-fitted calibration on draws of few normals: realised rate, detection, labels, suspects.

    python -m benchmarks.cross_fitting rates --data magnetic_tile --sizes 20,50,100,200 --draws 5
    python -m benchmarks.cross_fitting suspects --data magnetic_tile --sizes 100 --draws 5

Normals of a set (training and test) are drawn by group; the others are fresh. Features are extracted once for all
draws. `rates` prints, per calibration and alpha, the share of fresh normals and of defects that are rejected, the
detection of the lowest threshold that rejects at most alpha of the fresh normals ("oracle"), and the same after five
labelled defects. `suspects` plants defects of the set among the normals. Lines are appended to --out.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from anomem.benchmark.environment import made_by
from anomem.cross_fitting import cross_fit_kept
from anomem.data.imageset import ImageSet
from anomem.data.sources import PathSource, read_dataset
from anomem.data.splits import fold_normals, groups_of, split_normals
from anomem.detectors import get
from anomem.detectors.anomem import stage_two
from anomem.detectors.anomem.scorer import MultiScaleScorer
from anomem.fitting import Run, make_run, read_preprocessing
from anomem.metrics import auroc
from anomem.nn.feature_store import FeatureStore
from anomem.nn.kept_maps import KeptMaps, keep_maps
from anomem.nn.scorer import MapScorer
from anomem.params import parse_assignments
from anomem.runtime.calibration import calibrate, rejected_ranks
from anomem.runtime.progress import run_to_end
from anomem.runtime.suspects import find_suspects
from anomem.types import ANOMALOUS, NORMAL

ALPHAS = (0.01, 0.02, 0.05, 0.1)
FRESH, DEFECTS, LABELLED, WEIGHT = 150, 100, 5, 0.4
SHARES = (0.0, 0.01, 0.03, 0.05)
GROUPS = {"aitex_tiles": r"_t\d+$", "fabric_stain": r"_[0-4]$"}
"""End of a name that does not belong to its group."""


@dataclass(frozen=True)
class Pool:
    """Images of a set with their maps: normals first, then defects."""

    kept: KeptMaps
    groups: list[str]
    n_defects: int

    @property
    def n_normals(self) -> int:
        """Number of normals."""
        return len(self.groups)


def open_pool(name: str, detector: Any, run: Run[Any], store: FeatureStore, most: int) -> Pool:
    """Extract the maps of at most `most` normals and DEFECTS defects."""
    dataset, rng = read_dataset(Path(os.environ["ANOMEM_DATA"]) / name), np.random.default_rng(0)
    paths = {}
    for label, count in ((NORMAL, most), (ANOMALOUS, DEFECTS)):
        found = [Path(s.path) for s in (*dataset.train, *dataset.test) if s.label == label]
        paths[label] = [found[i] for i in np.sort(rng.permutation(len(found))[:count])]
    source = PathSource([*paths[NORMAL], *paths[ANOMALOUS]])
    images = ImageSet(source, read_preprocessing(run.params), workers=1)
    backbone = run_backbone(detector, run, images.preprocessing.hw)
    steps = keep_maps(store, backbone, images, precision="float32", batch_size=16)
    end = GROUPS.get(name)
    groups = [str(p) if end is None else re.sub(end, "", p.stem) for p in paths[NORMAL]]
    return Pool(run_to_end(steps), groups, len(paths[ANOMALOUS]))


def draw(pool: Pool, n: int, rng: np.random.Generator) -> tuple[list[int], list[int]]:
    """Draw about n normals by whole groups, and fresh ones of other groups."""
    chosen: list[int] = []
    for unit in rng.permutation(sorted(set(pool.groups))):
        if len(chosen) < n:
            chosen += [i for i, group in enumerate(pool.groups) if group == unit]
    taken = {pool.groups[i] for i in chosen}
    rest = [i for i, group in enumerate(pool.groups) if group not in taken]
    return chosen, [int(i) for i in rng.permutation(rest)[:FRESH]]


@dataclass(frozen=True)
class Fit:
    """Fitted scorer with the scores and groups that calibrate it."""

    scorer: MapScorer
    scores: Any
    groups: list[int] | None


@torch.inference_mode()
def observe(scorer: MapScorer, kept: KeptMaps) -> tuple[list[torch.Tensor], torch.Tensor | None]:
    """Return norms per scale and evidence of all images."""
    seen = [scorer.deviation_of(maps) for maps in kept.kept(32)]
    evidence = [part.evidence for part in seen if part.evidence is not None]
    norms = [torch.cat(scale) for scale in zip(*(part.norms for part in seen), strict=True)]
    return norms, torch.cat(evidence) if evidence else None


@torch.inference_mode()
def score(scorer: MapScorer, kept: KeptMaps) -> Any:
    """Return one-class scores."""
    return scorer.fuse(observe(scorer, kept)[0]).score.numpy()


def fit_cross(detector: Any, kept: KeptMaps, groups: list[int], run: Run[Any]) -> Fit:
    """Fit with cross-fitted calibration."""
    folds = fold_normals([image.digest for image in kept.tiles], groups, seed=run.params.seed)
    scorer = detector._empty(run, kept.preprocessing.hw, run_backbone(detector, run, kept.preprocessing.hw))
    results, _ = run_to_end(cross_fit_kept(detector, scorer, kept, folds, run))
    return Fit(scorer, np.asarray([result.one_class for result in results]), groups)


def fit_split(detector: Any, kept: KeptMaps, groups: list[int], run: Run[Any]) -> Fit:
    """Fit with a split."""
    digests = [image.digest for image in kept.tiles]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        parts = split_normals(digests, groups, seed=run.params.seed)
    scorer = detector._empty(run, kept.preprocessing.hw, run_backbone(detector, run, kept.preprocessing.hw))
    run_to_end(detector._memorise(scorer, kept.subset(parts.learn), run))
    scorer.eval().requires_grad_(False)
    norms, evidence = observe(scorer, kept.subset(parts.tune))
    scorer.standardise_on(norms)
    scores = score(scorer, kept.subset(parts.calibrate))
    if isinstance(scorer, MultiScaleScorer) and evidence is not None:
        tune = torch.from_numpy(score(scorer, kept.subset(parts.tune)))
        scorer.adopt_tune(norms, tune.clone(), evidence.clone())
        known = observe(scorer, kept.subset(parts.calibrate))[1]
        scorer.remember("calibration", torch.from_numpy(scores), torch.zeros(0) if known is None else known.clone())
    return Fit(scorer, scores, None)


FITS: dict[str, Callable[[Any, KeptMaps, list[int], Run[Any]], Fit]] = {"split": fit_split, "cross": fit_cross}
_backbones: dict[str, Any] = {}


def run_backbone(detector: Any, run: Run[Any], hw: tuple[int, int]) -> Any:
    """Return the method's backbone, loaded once."""
    if detector.name not in _backbones:
        _backbones[detector.name] = detector._empty(run, hw).backbone
    return _backbones[detector.name]


def figures(calibrating: Any, groups: list[int] | None, fresh: Any, bad: Any) -> dict[str, Any]:
    """Return AUROC, and per alpha realised rate, detection and the oracle's detection."""
    calibration = calibrate(calibrating, 0.5, groups=groups)
    labels = [0] * len(fresh) + [1] * len(bad)
    found: dict[str, Any] = {"auroc": auroc(np.concatenate([fresh, bad]), labels)}
    for alpha in ALPHAS:
        if not rejected_ranks(alpha, calibration.n_groups):
            continue
        top = np.sort(fresh)[::-1][int(alpha * len(fresh))]
        rates = {"rate": calibration.p_value(fresh) <= alpha, "detection": calibration.p_value(bad) <= alpha}
        found[f"{alpha:g}"] = {k: float(v.mean()) for k, v in rates.items()} | {"oracle": float((bad > top).mean())}
    return found


def with_labels(fit: Fit, labelled: KeptMaps, run: Run[Any]) -> Any:
    """Fit the second stage to labelled defects at a fixed weight; return the calibration scores."""
    scorer = fit.scorer
    if not isinstance(scorer, MultiScaleScorer):
        return None
    with torch.inference_mode():
        norms, evidence = observe(scorer, labelled)
        one_class = scorer.fuse(norms).score
    seen = stage_two.Observed(one_class, torch.zeros(0) if evidence is None else evidence, [], [])
    stage, known, support = scorer.second_stage, scorer.tune_one_class, scorer.tune_evidence
    unfitted, anomalous = copy.deepcopy(stage), torch.ones(len(one_class)).bool()
    if scorer.folds is not None:
        known, support = stage_two._standardise(stage, known[scorer.folds != 0], support[scorer.folds != 0])
    heads, labels = stage_two._heads(stage, support, seen, anomalous)
    stage_two._adopt_heads(stage, heads, labels, WEIGHT, torch.Generator().manual_seed(0))
    stage.n_support, stage.n_labelled = len(scorer.tune_one_class), len(anomalous)
    if scorer.folds is not None:
        stage_two._leave_out(stage, scorer.folds == 0)
        folds = [stage_two._seen_by(scorer.fold(k), labelled, run) for k in range(len(scorer.fold_scales))]
        seen = replace(seen, by_fold=folds)
        run_to_end(stage_two._score_out_of_fold(scorer, unfitted, seen, anomalous, WEIGHT, run))
    return scorer.calibration_scores().numpy()


@torch.inference_mode()
def concluded(scorer: MultiScaleScorer, kept: KeptMaps) -> Any:
    """Return scores of the second stage."""
    norms, evidence = observe(scorer, kept)
    return scorer.conclude(scorer.fuse(norms).score, torch.zeros(0) if evidence is None else evidence).numpy()


def rates(pool: Pool, detector: Any, run: Run[Any], n: int, seed: int) -> Iterator[dict[str, Any]]:
    """Yield the figures of one draw."""
    rng = np.random.default_rng([n, seed])
    chosen, fresh = draw(pool, n, rng)
    defects = [int(i) for i in rng.permutation(pool.n_defects) + pool.n_normals]
    labelled, bad = pool.kept.subset(defects[:LABELLED]), pool.kept.subset(defects[LABELLED:])
    rest = pool.kept.subset(fresh)
    groups = groups_of([pool.kept.tiles[i].digest for i in chosen], [pool.groups[i] for i in chosen])
    with FeatureStore(4096) as store:
        kept = pool.kept.subset(chosen).alone(store)
        for name, fitting in FITS.items():
            fresh_run = replace(run, rng=torch.Generator().manual_seed(seed))
            fit = fitting(detector, kept, groups, fresh_run)
            facts = {
                "protocol": "rates",
                "calibration": name,
                "n": len(chosen),
                "groups": len(set(groups)),
                "seed": seed,
            }
            yield {**facts, **figures(fit.scores, fit.groups, score(fit.scorer, rest), score(fit.scorer, bad))}
            scores = with_labels(fit, labelled, fresh_run)
            if isinstance(fit.scorer, MultiScaleScorer):
                answers = (concluded(fit.scorer, rest), concluded(fit.scorer, bad))
                yield {**facts, "labelled": LABELLED, **figures(scores, fit.groups, *answers)}


def suspects(pool: Pool, detector: Any, run: Run[Any], n: int, seed: int) -> Iterator[dict[str, Any]]:
    """Yield recall among suspects, and figures with and without their exclusion, for some shares of defects."""
    rng = np.random.default_rng([n, seed, 1])
    chosen, fresh = draw(pool, n, rng)
    defects = [int(i) for i in rng.permutation(pool.n_defects) + pool.n_normals]
    for share in SHARES:
        count = round(share * n)
        images = [*chosen[count:], *defects[:count]]
        bad, rest = pool.kept.subset(defects[count:]), pool.kept.subset(fresh)
        left = images
        for excluded in (False, True):
            groups = list(range(len(left)))
            with FeatureStore(4096) as store:
                fit = fit_cross(detector, pool.kept.subset(left).alone(store), groups, run)
            found = {int(s["path"]) for s in find_suspects([str(i) for i in left], fit.scores)}
            facts = {"protocol": "suspects", "n": len(left), "planted": count, "share": share, "seed": seed}
            told = {"excluded": excluded, "suspects": len(found), "hits": len(found & set(defects[:count]))}
            yield {**facts, **told, **figures(fit.scores, None, score(fit.scorer, rest), score(fit.scorer, bad))}
            left = [i for i in left if i not in found]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one protocol, and append its lines."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("protocol", choices=("rates", "suspects"))
    parser.add_argument("--data", required=True)
    parser.add_argument("--method", default="anomem")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="hyperparameters")
    parser.add_argument("--sizes", default="20,50")
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--most", type=int, default=500)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/variants/crossfit.jsonl"))
    options = parser.parse_args(arguments)
    given = parse_assignments(get(options.method), options.set)
    detector = get(options.method)(**given)
    run = make_run(detector.resolve(), device="cpu", fit_precision="float32", batch_size=16, workers=1)
    protocol = {"rates": rates, "suspects": suspects}[options.protocol]
    with FeatureStore(4096) as store, options.out.open("a", encoding="utf-8") as stream:
        pool = open_pool(options.data, detector, run, store, options.most)
        for seed in range(options.first, options.first + options.draws):
            for n in map(int, options.sizes.split(",")):
                for line in protocol(pool, detector, run, n, seed):
                    told = {"data": options.data, "method": options.method, "parameters": given, **line}
                    print(
                        json.dumps({**told, "made_by": made_by("cpu", torch.get_num_threads())}),
                        file=stream,
                        flush=True,
                    )


if __name__ == "__main__":
    main()
