"""Fitting of AnoMem's second stage to labelled images, in seconds; labels weigh only where they show a gain."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from anomem.data.imageset import Prepared, to_tensor
from anomem.detectors.anomem.heads import KERNELS, SecondStage
from anomem.detectors.anomem.loss import double_hinge
from anomem.detectors.anomem.scorer import MultiScaleScorer
from anomem.fitting import Labelled, Run
from anomem.nn.deviation import spread
from anomem.nn.feature_store import FeatureStore
from anomem.nn.inference import score_images
from anomem.nn.kept_maps import KeptMaps, keep_maps
from anomem.nn.kernel_ridge import (
    Head,
    cross_validated_gain,
    out_of_fold,
    random_folds,
    squared_distances,
    standardised,
)
from anomem.nn.precision import autocast
from anomem.nn.sampling import VectorSample
from anomem.training import Recipe, train
from anomem.types import ANOMALOUS, Record

if TYPE_CHECKING:
    from anomem.detectors.anomem.detector import AnoMem

BRIEF, BRIEF_BATCH = Recipe(200, 3e-3, optimiser="adamw", weight_decay=0.05, clip=1.0), 128
PAPER, PAPER_BATCH = Recipe(1000, 0.1), 1024
"""Training of g: ours, and with the paper's optimiser, schedule and batch; it states neither rate nor steps."""
MASKED_LIMIT = 32_768
"""Number of deviations kept per scale at positions marked by masks, and at unmarked ones."""
MOST = 0.95
"""Maximum weight of labels of several known types."""


@dataclass(frozen=True)
class Observed:
    """Scorer outputs for the labelled images.

    Parameters
    ----------
    one_class : Tensor
        (k,) scores of the representative tiles.
    evidence : Tensor
        (k, D) float16.
    defective, clean : list of Tensor
        Deviations (n, C) per scale at positions marked by masks, and at unmarked ones.
    by_fold : list of (Tensor, Tensor)
        With cross-fitted calibration, scores and evidence by each fold's memory; else empty.
    """

    one_class: Tensor
    evidence: Tensor
    defective: list[Tensor]
    clean: list[Tensor]
    by_fold: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def subset(self, rows: Tensor) -> Observed:
        """Return some images, with all positions."""
        by_fold = [(one_class[rows], evidence[rows]) for one_class, evidence in self.by_fold]
        return replace(self, one_class=self.one_class[rows], evidence=self.evidence[rows], by_fold=by_fold)


def fit_second_stage(scorer: MultiScaleScorer, labelled: Labelled, run: Run[AnoMem]) -> Generator[Record, None, None]:
    """Fit heads and their weight to labelled images, in place."""
    observed = yield from observe(scorer, labelled, run)
    anomalous = torch.from_numpy(labelled.labels == ANOMALOUS)
    yield from fit_heads(scorer, observed, anomalous, labelled.types, run)


def fit_heads(
    scorer: MultiScaleScorer,
    observed: Observed,
    anomalous: Tensor,
    types: Sequence[str | None],
    run: Run[AnoMem],
    *,
    maps: bool = True,
) -> Generator[Record, None, None]:
    """Fit heads and their weight to what the scorer has observed of labelled images, in place.

    `anomalous` is (k,) bool; `types` has the defect type per image. Without `maps` the evidence at each position is not
    fitted: scores by kernel heads do not need it.

    Notes
    -----
    Kernel ridge heads on several summaries of Delta are fitted on tune normals against labelled anomalies, both classes
    weighing one half. Their share w of the score starts from (15 + k) / (45 + k), k labelled anomalies, is capped, and
    drops to 0 unless the cross-validated AUROC of the mixture exceeds that of the one-class score by more than one
    standard error, so that labels do not make the score worse. Folds are random rather than grouped by type, and the
    test runs from two labels on: on the development sets grouped folds lost a point at ten labels (magnetic tile), and
    three labels without the test lost two (toothbrush).

    With cross-fitted calibration each calibration normal is scored by heads fitted without its fold, on evidence by the
    memory without it. Of these models, that without the first fold gives evidence and heads for new images.

    The paper's own head g (Eq. 10 to 12) is trained beside them and gives the evidence at each position; masks, where
    given, add its hinge at each position.
    """
    one_class, evidence = scorer.tune_one_class.cpu(), scorer.tune_evidence.cpu()
    stage = scorer.second_stage.cpu()
    unfitted = copy.deepcopy(stage)
    if scorer.folds is not None:
        kept = scorer.folds.cpu() != 0
        one_class, evidence = _standardise(stage, one_class[kept], evidence[kept])
    heads, labels = _heads(stage, evidence, observed, anomalous)
    deviation = (torch.cat([one_class, observed.one_class]) - stage.mix[0]) / stage.mix[1]
    known = {type_ for type_, defect in zip(types, anomalous.tolist(), strict=True) if defect and type_ is not None}
    weight, facts = _weight(heads, deviation, labels, int(anomalous.sum()), len(known), run)
    _adopt_heads(stage, heads, labels, weight, run.rng)
    if scorer.folds is not None:
        _leave_out(stage, scorer.folds.cpu() == 0)
    stage.n_support, stage.n_labelled = len(scorer.tune_one_class), len(anomalous)
    scorer.config["second_stage"].update(n_support=stage.n_support, n_labelled=stage.n_labelled)
    yield Record("labels", len(anomalous), len(anomalous), facts)
    if maps:
        yield from _fit_evidence_heads(stage, torch.cat([evidence, observed.evidence]), labels, observed, run)
    scorer.second_stage = stage.to(run.device)
    if observed.by_fold:
        yield from _score_out_of_fold(scorer, unfitted, observed, anomalous, weight, run)


def _standardise(stage: SecondStage, one_class: Tensor, evidence: Tensor) -> tuple[Tensor, Tensor]:
    """Standardise a stage on the normals that its heads are fitted to; return these."""
    stage.standardise_on(evidence)
    stage.mix[:2] = torch.stack([one_class.mean(), spread(one_class)])
    return one_class, evidence


def _leave_out(stage: SecondStage, left_out: Tensor) -> None:
    """Extend the heads to all tune normals, those left out with no weight."""
    kept = torch.cat([(~left_out).nonzero()[:, 0], torch.arange(len(stage.labelled)) + len(left_out)])
    for h in range(len(stage.blocks)):
        alpha = stage.get_buffer(f"alpha_{h}")
        full = alpha.new_zeros(len(left_out) + len(stage.labelled))
        full[kept] = alpha
        setattr(stage, f"alpha_{h}", full)


def _heads(stage: SecondStage, evidence: Tensor, observed: Observed, anomalous: Tensor) -> tuple[list[Head], Tensor]:
    """Return unfitted heads on normals' evidence and labelled images, with the labels of both."""
    stage.labelled = observed.evidence.half()
    blocks = [stage.fitted_to(evidence, name) for name in stage.blocks]
    heads = [
        Head(squared_distances(block, block), **KERNELS.get(name, {}))
        for block, name in zip(blocks, stage.blocks, strict=True)
    ]
    return heads, torch.cat([torch.zeros(len(evidence)), anomalous.float()])


def _score_out_of_fold(
    scorer: MultiScaleScorer,
    unfitted: SecondStage,
    observed: Observed,
    anomalous: Tensor,
    weight: float,
    run: Run[AnoMem],
) -> Generator[Record, None, None]:
    """Score each fold's normals by a second stage fitted and standardised without them; w is that without fold 0."""
    if scorer.folds is None:
        raise TypeError("scorer: no folds; only a cross-fitted one has them")
    folds, one_class, evidence = scorer.folds.cpu(), scorer.tune_one_class.cpu(), scorer.tune_evidence.cpu()
    scores = torch.empty_like(one_class)
    for fold in folds.unique().tolist():
        out = folds == fold
        seen = replace(observed, one_class=observed.by_fold[fold][0], evidence=observed.by_fold[fold][1])
        stage = copy.deepcopy(unfitted)
        support = _standardise(stage, one_class[~out], evidence[~out])[1]
        heads, labels = _heads(stage, support, seen, anomalous)
        _adopt_heads(stage, heads, labels, weight, torch.Generator().manual_seed(int(run.params.seed)))
        stage.n_support, stage.n_labelled = len(support), len(anomalous)
        if stage.distance_head:
            both = torch.cat([support, seen.evidence])
            yield from _fit_evidence_heads(stage, both, labels, seen, run)
        with torch.inference_mode():
            scores[out] = stage(one_class[out], evidence[out], support)
        yield Record("labels per fold", fold + 1, int(folds.max()) + 1)
    scorer.adopt_scores(scores)


def _observe_by_fold(
    scorer: MultiScaleScorer, labelled: Labelled, run: Run[AnoMem]
) -> Generator[Record, None, list[tuple[Tensor, Tensor]]]:
    """Return one-class scores and evidence of labelled images by each fold's memory.

    Labelled images and normals that a memory has not learnt from deviate from the learnt ones' mean in a common
    direction, the error of that mean, and heads learn it. So a fold's normals are judged by heads on labelled images as
    the same memory sees them; new images by the memory and heads without the first fold.
    """
    with FeatureStore(run.features_mb) as store:
        options: dict[str, Any] = {"precision": run.params.precision, "batch_size": run.batch_size}
        kept = yield from keep_maps(store, scorer.backbone, labelled.images, **options)
        return [_seen_by(scorer.fold(k), kept, run) for k in range(len(scorer.fold_scales))]


@torch.inference_mode()
def _seen_by(scorer: MultiScaleScorer, kept: KeptMaps, run: Run[AnoMem]) -> tuple[Tensor, Tensor]:
    """Return one-class scores and evidence per image, of its tile with the highest score."""
    one_class, evidence = [], []
    for image in kept.tiles:
        seen = scorer.deviation_of([m.to(run.device) for m in kept.maps(torch.from_numpy(np.asarray(image.tiles)))])
        scores = scorer.fuse(seen.norms).score.cpu()
        tile = int(scores.argmax())
        one_class.append(scores[tile])
        if seen.evidence is not None:
            evidence.append(seen.evidence[tile].cpu())
    return torch.stack(one_class), torch.stack(evidence)


def observe(scorer: MultiScaleScorer, labelled: Labelled, run: Run[AnoMem]) -> Generator[Record, None, Observed]:
    """Score labelled images along the scoring path, and collect deviations at defective positions given by masks."""
    one_class, evidence = [], []
    options: dict[str, Any] = {"precision": run.params.precision, "batch_size": run.batch_size}
    for result in score_images(scorer, labelled.images, **options, evidence=True):
        if result.evidence is not None:
            one_class.append(result.one_class)
            evidence.append(result.evidence)
        yield Record("labelled", len(one_class), len(labelled.images))
    rng = torch.Generator().manual_seed(int(run.params.seed))
    defective, clean = ([VectorSample(MASKED_LIMIT, rng) for _ in scorer.scales] for _ in range(2))
    for channels, samples in zip(scorer.second_stage.channels, zip(defective, clean, strict=True), strict=True):
        for sample in samples:
            sample.add(torch.zeros(1, channels, 0, 1))  # Masks may be absent.
    for position in labelled.masked():
        for image in next(iter(labelled.images.subset([position]).prepared(1))):
            masks = _tile_masks(labelled, position, image)
            for start in range(0, len(image.tiles), run.batch_size):
                part = slice(start, start + run.batch_size)
                marked = masks(part)
                for s, delta in enumerate(_deviations(scorer, image, part, run)):
                    inside = F.adaptive_max_pool2d(marked, delta.shape[2:])[:, 0] > 0
                    vectors = delta.permute(0, 2, 3, 1).cpu()
                    defective[s].add(vectors[inside].T[None, :, :, None])
                    clean[s].add(vectors[~inside].T[None, :, :, None])
    calibrates = scorer.folds is not None and scorer.calibrated_on_tune
    return Observed(
        torch.tensor(one_class),
        torch.stack(evidence),
        [sample.result()[0] for sample in defective],
        [sample.result()[0] for sample in clean],
        (yield from _observe_by_fold(scorer, labelled, run)) if calibrates else [],
    )


@torch.inference_mode()
def _deviations(scorer: MultiScaleScorer, image: Prepared, part: slice, run: Run[AnoMem]) -> list[Tensor]:
    with autocast(run.device, run.params.precision):
        return scorer.deviations(scorer.features(to_tensor(image.tiles[part]).to(run.device)))


def _tile_masks(labelled: Labelled, position: int, image: Prepared) -> Callable[[slice], Tensor]:
    """Return a function from a slice of an image's tiles to their masks, (T, 1, S, S) float."""
    mask = labelled.mask(position, image.height_width)
    if mask is None:
        raise TypeError("images without masks: no positions to collect; pass images with masks")
    picture = np.repeat(mask[..., None].astype(np.uint8) * 255, 3, axis=2)
    marked, blank = (labelled.images.preprocessing.cut(shown) for shown in (picture, np.zeros_like(picture)))
    # Any part of a small defect makes a position unclean; borders and unlabelled regions are grey in both.
    return lambda part: (to_tensor(marked[part]) > to_tensor(blank[part]))[:, :1].float()


def _weight(
    heads: list[Head], deviation: Tensor, labels: Tensor, k: int, types: int, run: Run[AnoMem]
) -> tuple[float, dict[str, float]]:
    """Choose w, the labels' share, from their number, their known types and the cross-validated gain."""
    wanted = run.params.stage_two.weight
    cap = run.params.stage_two.cap if types < 2 else MOST
    weight = min((15 + k) / (45 + k), cap)
    facts = {"labelled": float(k), "types": float(types)}
    if wanted is not None or run.params.stage_two.learner == "distance":
        return 1.0 if wanted is None else wanted, facts
    gain, error = cross_validated_gain(heads, deviation, labels, weight, rng=run.rng)
    weight = weight if gain > error else 0.0
    facts["weight"] = weight
    return weight, {**facts, "gain": gain, "gain_error": error} if math.isfinite(error) else facts


def _adopt_heads(stage: SecondStage, heads: list[Head], labels: Tensor, weight: float, rng: torch.Generator) -> None:
    """Store the fitted heads in the stage, with the distribution of their predictions for normals."""
    fold_of = random_folds(labels, rng)
    rows, figures = torch.arange(len(labels)), []
    for h, head in enumerate(heads):
        fitted, predictions = head.fit(rows, labels)
        held = predictions if fold_of is None else out_of_fold(head, labels, fold_of)
        setattr(stage, f"alpha_{h}", fitted.alpha)
        figures.append(torch.stack([fitted.bandwidth, *standardised(held, labels)]))
    stage.heads = torch.stack(figures)
    stage.mix[4] = weight


def _fit_evidence_heads(
    stage: SecondStage, evidence: Tensor, labels: Tensor, observed: Observed, run: Run[AnoMem]
) -> Generator[Record, None, None]:
    """Train g of every scale on class-balanced batches (Eq. 12), then standardise it on positions of tune normals."""
    for layer in stage.evidence_heads.modules():
        if isinstance(layer, torch.nn.Linear):
            layer.reset_parameters()
    stage.requires_grad_(False)
    stage.evidence_heads.requires_grad_(True)
    p = run.params.stage_two
    published = p.recipe == "paper"
    pools = [
        _published_pools(stage, s, evidence, labels) if published else _pools(stage, s, evidence, labels, observed)
        for s in range(len(stage.channels))
    ]

    def loss(half: int) -> tuple[Tensor, dict[str, float]]:
        losses = []
        for s, (normal, anomalous) in enumerate(pools):
            batch = torch.cat([_draw(normal, half, run), _draw(anomalous, half, run)])
            target = torch.arange(2 * half) >= half
            losses.append(double_hinge(stage.distance(s, batch), target.long(), p.margin).mean())
        return torch.stack(losses).mean(), {}

    recipe, half_batch = (PAPER, PAPER_BATCH // 2) if published else (BRIEF, BRIEF_BATCH // 2)
    halves = (half_batch for _ in range(recipe.steps))
    options: dict[str, Any] = {"device": torch.device("cpu"), "stage": "heads", "every": 50, "rng": run.rng}
    yield from train(stage, loss, halves, recipe, **options)
    stage.requires_grad_(False)
    with torch.no_grad():
        for s in range(len(stage.channels)):
            said = stage.distance(s, stage.positions(s))
            stage.evidence_affine[s] = torch.stack([said.mean(), said.std(correction=0).clamp_min(0.05)])
        distances = stage.fused_distance(evidence[labels == 0])
        stage.distance_affine.copy_(torch.stack([distances.mean(), distances.std(correction=0).clamp_min(1e-3)]))


def _pools(
    stage: SecondStage, scale: int, evidence: Tensor, labels: Tensor, observed: Observed
) -> tuple[list[Tensor], list[Tensor]]:
    """Return normal and anomalous vectors of a scale, each a list of sources that are sampled equally."""
    pooled = stage.signed(evidence, scale).clone()
    normal = [pooled[labels == 0], stage.positions(scale), observed.clean[scale].clone()]
    anomalous = [pooled[labels == 1], observed.defective[scale].clone()]
    return [n for n in normal if len(n)], [a for a in anomalous if len(a)]


def _published_pools(
    stage: SecondStage, scale: int, evidence: Tensor, labels: Tensor
) -> tuple[list[Tensor], list[Tensor]]:
    """Return phi(Delta) of stage 1's normals and of labelled anomalies; of tune normals where a fit kept no others."""
    pooled = stage.signed(evidence, scale).clone()
    learnt = stage.learnt_delta(scale)
    return [learnt if len(learnt) else pooled[labels == 0]], [pooled[labels == 1]]


def _draw(sources: list[Tensor], count: int, run: Run[AnoMem]) -> Tensor:
    shares = [count // len(sources)] * len(sources)
    shares[0] += count - sum(shares)
    drawn = [
        source[torch.randint(len(source), (share,), generator=run.rng)]
        for source, share in zip(sources, shares, strict=True)
    ]
    return torch.cat(drawn)
