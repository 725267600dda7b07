"""Cross-fitted calibration: every normal is learnt from, and scored by a memory that has not seen its fold.

Features are extracted once. Fold k's memory learns from the other folds; its deviations for fold k are standardised on
the other folds' out-of-sample deviations. The final memory learns from all normals and is standardised on all
out-of-sample deviations.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from anomem.data.imageset import ImageSet
from anomem.errors import ParameterError
from anomem.fitting import Run
from anomem.nn.backbones import Backbone
from anomem.nn.feature_store import FeatureStore
from anomem.nn.fold_scorer import FoldScorer
from anomem.nn.inference import ImageResult
from anomem.nn.kept_maps import KeptMaps, MapsTooLargeError, keep_maps
from anomem.nn.sampling import VectorSample
from anomem.nn.scorer import MapScorer, OutOfSample, Scorer
from anomem.runtime.calibration import KINDS
from anomem.runtime.recalibration import MapScale
from anomem.runtime.scoring import Prepared, TileOutput, score_tiles
from anomem.types import IntArray, Record, UInt8Image

__all__ = ["CHOICES", "CROSS_BELOW", "ClosedForm", "CrossFit", "MapsTooLargeError", "chosen_kind", "cross_fit"]

CROSS_BELOW = 1000
"""Number of normals below which calibration="auto" is cross."""

CHOICES = ("auto", *KINDS)
"""Values of the argument `calibration` of a fit."""


class ClosedForm(ABC):
    """Method with a closed-form fit on a frozen backbone, which can be repeated per fold on features extracted once."""

    def _closed_form(self, params: Any) -> bool:
        """Return True where these hyperparameters train nothing by gradient."""
        return True

    @abstractmethod
    def _empty(self, run: Run[Any], hw: tuple[int, int], backbone: Backbone | None = None) -> MapScorer:
        """Build a scorer of inputs (h, w) without memory, on the run's device; its backbone is loaded unless given."""

    @abstractmethod
    def _memorise(self, scorer: MapScorer, learn: ImageSet, run: Run[Any]) -> Generator[Record, None, None]:
        """Learn a memory from normals, in place."""

    def _finish(self, scorer: MapScorer, learn: ImageSet, run: Run[Any]) -> Generator[Record, None, None]:
        """Add what does not change scores; nothing by default."""
        yield from ()


@dataclass(frozen=True)
class CrossFit:
    """Result of a cross-fit.

    Parameters
    ----------
    scorer : Scorer
        Final scorer.
    results : list of ImageResult
        Out-of-sample result of each image, in order, without its map.
    map_scale : tuple of float
        Colour scale from out-of-sample maps.
    """

    scorer: Scorer
    results: list[ImageResult]
    map_scale: tuple[float, float]


@dataclass(frozen=True)
class _Seen:
    """Deviations of all tiles by memories without them; rows as in the store of maps."""

    norms: list[Tensor]
    evidence: Tensor | None
    deltas: list[Tensor]


def chosen_kind(calibration: str, method: object, name: str, params: Any, n: int) -> str:
    """Return the kind of calibration of a fit: "split" or "cross".

    Raises
    ------
    ParameterError
        For an unknown choice, or cross for a method that trains.
    """
    if calibration not in CHOICES:
        raise ParameterError(f"calibration={calibration!r} is not allowed; expected {', '.join(CHOICES)}")
    closed = isinstance(method, ClosedForm) and method._closed_form(params)
    if calibration == "auto":
        return "cross" if closed and n < CROSS_BELOW else "split"
    if calibration != "split" and not closed:
        raise ParameterError(
            f"calibration={calibration!r}: {name} trains by gradient, which is not repeated per fold; "
            "take calibration='split' (--calibration split)"
        )
    return calibration


def cross_fit(
    method: ClosedForm, images: ImageSet, folds: IntArray, run: Run[Any], *, exact: Sequence[int] | None = None
) -> Generator[Record, None, CrossFit]:
    """Fit a method once per fold and once to all images.

    Parameters
    ----------
    method : ClosedForm
        Method.
    images : ImageSet
        Normals, n of them.
    folds : ndarray of int, (n,)
        Fold of each image.
    run : Run
        Circumstances of the fit.
    exact : sequence of int, optional
        Group of each image; the result then scores by the memories of all folds (cross-exact).

    Raises
    ------
    MapsTooLargeError
        If the features of all images are too large to be kept.
    """
    scorer = method._empty(_afresh(run), images.preprocessing.hw)
    with FeatureStore(run.features_mb) as store:
        options: dict[str, Any] = {"precision": run.params.precision, "batch_size": run.batch_size}
        kept = yield from keep_maps(store, scorer.backbone, images, **options)
        members: list[MapScorer] | None = None if exact is None else []
        results, map_scale = yield from cross_fit_kept(method, scorer, kept, folds, run, members=members)
    if members and exact is not None:
        scores = torch.tensor([result.one_class for result in results])
        sizes = torch.from_numpy(np.bincount(exact)[np.asarray(exact)])
        return CrossFit(FoldScorer.of(members, scores, _numbers(folds), 1 / sizes.double()), results, map_scale)
    yield from method._finish(scorer, images, run)
    return CrossFit(scorer, results, map_scale)


def cross_fit_kept(
    method: ClosedForm,
    scorer: MapScorer,
    kept: KeptMaps,
    folds: IntArray,
    run: Run[Any],
    *,
    members: list[MapScorer] | None = None,
) -> Generator[Record, None, tuple[list[ImageResult], tuple[float, float]]]:
    """Fit an empty scorer to images whose maps are kept, in place; return out-of-sample results and colour scale.

    Scorers of the folds, each standardised for its own, are appended to `members`.
    """
    yield from method._memorise(scorer, kept, _afresh(run))
    scorer.eval().requires_grad_(False).to(run.device)
    seen = yield from _out_of_sample(method, scorer, kept, folds, run, members)
    results, map_scale = _judged(scorer, kept, seen, folds, run)
    evidence = [result.evidence for result in results if result.evidence is not None]
    for fold, member in enumerate(members or ()):
        member.standardise_on(_without(fold, seen, kept, folds))
    scorer.standardise_on(seen.norms)
    scorer.adopt(
        OutOfSample(
            seen.norms,
            seen.deltas,
            torch.tensor([result.one_class for result in results]),
            torch.stack(evidence) if evidence else None,
            _numbers(folds),
        )
    )
    return results, map_scale


def _out_of_sample(
    method: ClosedForm,
    final: MapScorer,
    kept: KeptMaps,
    folds: IntArray,
    run: Run[Any],
    members: list[MapScorer] | None,
) -> Generator[Record, None, _Seen]:
    """Return the deviation of each fold from a memory of the others."""
    count = int(folds.max()) + 1
    parts: list[tuple[Tensor, list[Tensor], Tensor | None]] = []
    samples: list[VectorSample] = []
    for fold in range(count):
        scorer = method._empty(_afresh(run), kept.preprocessing.hw, final.backbone)
        others = kept.subset(np.flatnonzero(folds != fold))
        yield from method._memorise(scorer, others, _afresh(run))
        scorer.eval().to(run.device).align()
        parts += _deviations(scorer, kept.subset(np.flatnonzero(folds == fold)), samples, run)
        if members is None:
            final.keep_fold(scorer)
        else:
            members.append(scorer)
        yield Record("folds", fold + 1, count)
    order = torch.cat([rows for rows, _, _ in parts]).argsort()
    norms = [torch.cat(scale)[order] for scale in zip(*(part for _, part, _ in parts), strict=True)]
    evidence = [part for _, _, part in parts if part is not None]
    deltas = [sample.result()[0] for sample in samples]
    return _Seen(norms, torch.cat(evidence)[order] if evidence else None, deltas)


def _deviations(
    scorer: MapScorer, held_out: KeptMaps, samples: list[VectorSample], run: Run[Any]
) -> list[tuple[Tensor, list[Tensor], Tensor | None]]:
    """Return rows, norms and evidence of the tiles of a fold, in batches; sample their deviations."""
    found = []
    for rows in torch.from_numpy(held_out.rows).split(run.batch_size):
        with torch.inference_mode():
            seen = scorer.deviation_of([m.to(run.device) for m in held_out.maps(rows)])
        if scorer.sampled and not samples:
            samples += [VectorSample(scorer.sampled, run.rng) for _ in seen.deltas]
        for sample, delta in zip(samples, seen.deltas, strict=False):
            sample.add(delta.cpu())
        evidence = None if seen.evidence is None else seen.evidence.cpu()
        found.append((rows, [n.cpu() for n in seen.norms], evidence))
    return found


def _judged(
    scorer: MapScorer, kept: KeptMaps, seen: _Seen, folds: IntArray, run: Run[Any]
) -> tuple[list[ImageResult], tuple[float, float]]:
    """Score each fold's images, standardised on the other folds."""
    results: list[ImageResult | None] = [None] * len(folds)
    scale = MapScale()
    for fold in range(int(folds.max()) + 1):
        scorer.standardise_on(_without(fold, seen, kept, folds))
        positions = np.flatnonzero(folds == fold)
        forward = _Forward(scorer, seen, run.device)
        chunks = _chunks([kept.tiles[int(i)] for i in positions], run.batch_size)
        scored = score_tiles(chunks, forward, batch_size=run.batch_size, maps=True)
        for position, result in zip(positions, scored, strict=True):
            scale.add(result)
            kept_evidence = None if result.evidence is None else torch.from_numpy(result.evidence)
            results[position] = replace(result, tile_map=None, evidence=kept_evidence)
    return [result for result in results if result is not None], scale.result()


def _without(fold: int, seen: _Seen, kept: KeptMaps, folds: IntArray) -> list[Tensor]:
    """Return the norms of all images outside a fold."""
    others = torch.from_numpy(kept.subset(np.flatnonzero(folds != fold)).rows)
    return [norms[others] for norms in seen.norms]


def _numbers(folds: IntArray) -> Tensor:
    return torch.from_numpy(folds.astype(np.int64))


@dataclass(frozen=True)
class _Forward:
    """Scorer of rows whose deviations are known, in place of a network."""

    scorer: MapScorer
    seen: _Seen
    device: torch.device

    @torch.inference_mode()
    def __call__(self, rows: UInt8Image) -> TileOutput:
        chosen = torch.from_numpy(np.asarray(rows, dtype=np.int64))
        output = self.scorer.fuse([norms[chosen].to(self.device) for norms in self.seen.norms])
        score = output.score.float().cpu().numpy()
        maps = None if output.map is None else output.map.float().cpu().numpy()
        evidence = None if self.seen.evidence is None else self.seen.evidence[chosen].numpy()
        return TileOutput(score, maps, score, evidence)


def _chunks(images: list[Prepared], size: int) -> Iterator[list[Prepared]]:
    for start in range(0, len(images), size):
        yield images[start : start + size]


def _afresh(run: Run[Any]) -> Run[Any]:
    """Return the run with a generator at its start: each fold draws alike, whatever was drawn before."""
    return replace(run, rng=torch.Generator().manual_seed(int(run.params.seed)))
