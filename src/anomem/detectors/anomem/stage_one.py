"""Training of AnoMem's first stage by the contrasted memory loss."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anomem.data.imageset import ImageSet
from anomem.detectors.anomem.loss import ScaleLoss, mean_over_positions, scale_losses
from anomem.detectors.anomem.presets import Contrast, StageOne
from anomem.detectors.anomem.scorer import MultiScaleScorer, each
from anomem.detectors.anomem.seeding import SAMPLE_LIMIT, drawn_for, seed_items
from anomem.errors import ParameterError
from anomem.fitting import Labelled, Run
from anomem.nn.deviation import ScaleMemory
from anomem.nn.hopfield import effective_items
from anomem.nn.normalise import FeatureMoments
from anomem.nn.precision import without_autocast
from anomem.nn.sampling import VectorSample
from anomem.nn.views import CachedViews, Feed, ViewsOf, projection_head, unfreeze
from anomem.training import Recipe, train
from anomem.types import Record

if TYPE_CHECKING:
    from anomem.detectors.anomem.detector import AnoMem

SEED_BATCHES = 8
"""Number of batches whose views seed a memory in training."""


def train_stage_one(
    scorer: MultiScaleScorer, learn: ImageSet, labelled: Labelled | None, p: StageOne, run: Run[AnoMem]
) -> Generator[Record, None, None]:
    """Train the memories, and the backbone layers of `train_backbone`, by the contrasted memory loss (Algorithm 1)."""
    from_scratch = run.params.weights is None
    trained = "all" if from_scratch else p.train_backbone
    scorer.requires_grad_(False)
    unfreeze(scorer.backbone, trained)
    identity = run.params.memory == "identity"
    if p.warmup and trained == "none":
        raise ParameterError("AnoMem: stage_one.warmup trains the backbone alone; set stage_one.train_backbone or 0")
    for scale in scorer.memories():
        if scale.memory is not None and not identity:
            scale.memory.requires_grad_(True)
    steps = budget(p, len(learn))
    model = contrasted(scorer, p, run)
    model.bypassed = identity or p.warmup > 0
    # Pretrained batch statistics come from far more images than a fit has; only a backbone from scratch learns its own.
    scorer.backbone.train(from_scratch)
    shared = p.geometry == "shared" or (p.geometry == "auto" and not from_scratch)
    views_of = ViewsOf(model, run.device, p.views.augmentation(), shared, run.fit_precision)
    anomalies = None if labelled is None else labelled.anomalies()
    feed = Feed(learn, anomalies, p.batch, p.cache_mb, run.rng)

    def loss(batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Mapping[str, float]]:
        if model.steps == p.warmup and model.bypassed and not identity:
            with without_autocast(run.device):
                seed_from_views(model, views_of, feed, run)
            model.bypassed = False
        first, second = views_of(batch[0])
        return model.loss(first, second, batch[1].to(run.device))

    def cached_loss(batch: tuple[list[Tensor], list[Tensor], Tensor]) -> tuple[Tensor, Mapping[str, float]]:
        first, second = ([m.to(run.device).float() for m in view] for view in batch[:2])
        return model.loss(first, second, batch[2].to(run.device))

    options: dict[str, Any] = {"device": run.device, "precision": run.fit_precision, "stage": "stage 1"}
    options["rng"] = run.rng
    recipe = Recipe(steps, p.lr, weight_decay=p.weight_decay)
    if trained == "none":
        yield from train(model, cached_loss, CachedViews(views_of, feed), recipe, **options)
    else:
        yield from train(model, loss, feed, recipe, **options)
    scorer.backbone.eval()


def contrasted(scorer: MultiScaleScorer, p: StageOne, run: Run[AnoMem]) -> ContrastedMemory:
    """Return a scorer's backbone and memories as the first stage trains them, with new projection heads."""
    return ContrastedMemory(
        scorer,
        p.contrast,
        projection_dim=p.projection_dim,
        rng=run.rng,
        scale_weights=each("scale_weights", run.params.scale_weights, len(scorer.memories())),
    ).to(run.device)


def budget(p: StageOne, n_images: int) -> int:
    """Return the number of optimiser steps for some images: the smaller of both limits.

    Raises
    ------
    ParameterError
        If neither steps nor epochs are given.
    """
    by_epochs = None if p.epochs is None else math.ceil(p.epochs * n_images / min(p.batch, n_images))
    limits = [limit for limit in (p.steps, by_epochs) if limit is not None]
    if not limits:
        raise ParameterError("AnoMem: stage_one.steps and stage_one.epochs are both none; give one")
    return min(limits)


@torch.no_grad()
def seed_from_views(model: ContrastedMemory, views_of: ViewsOf, feed: Feed, run: Run[AnoMem]) -> None:
    """Fit the normalisation and seed the memories, from features of views in the backbone's present mode.

    In training mode, features have the batch's statistics, which the running ones do not match early in training.
    """
    p, scales = run.params, model.scorer.memories()
    moments = [FeatureMoments(s.normaliser.dim, s.hw, unit=s.normaliser.unit) for s in scales]
    samples = [VectorSample(SAMPLE_LIMIT, run.rng) for _ in scales]
    for images, normal in itertools.islice(feed, SEED_BATCHES):
        for s, features in enumerate(views_of.features(images[normal])):
            gathered = scales[s].gather(features)
            moments[s].update(gathered)
            samples[s].add(gathered)
    for s, scale in enumerate(scales):
        if scale.normaliser.mode == "whiten":
            scale.normaliser.fit(moments[s], p.shrinkage, p.whitening)
        if scale.memory is not None:
            vectors, positions = samples[s].result()
            if len(vectors) >= scale.memory.n_items:
                considered = drawn_for(p.seeding, len(vectors), run.rng)
                chosen = (part[considered].to(run.device) for part in (vectors, positions))
                embedded = scale.embed_vectors(*chosen).cpu()
                seed_items(scale.memory, embedded, p.seeding, run.rng)


class ContrastedMemory(nn.Module):
    """A scorer's backbone and memories as the first stage trains them.

    Parameters
    ----------
    scorer : MultiScaleScorer
        Parameters that do not require a gradient stay frozen.
    contrast : Contrast
        The loss.
    projection_dim : int or None
        Width of a two-layer projection head per scale; None: no head, as in the paper.
    rng : torch.Generator
        Generator of positions and views.
    scale_weights : sequence of float or None
        lambda of each scale; None: 1, 2, 4, ...
    """

    def __init__(
        self,
        scorer: MultiScaleScorer,
        contrast: Contrast,
        *,
        projection_dim: int | None,
        rng: torch.Generator,
        scale_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.scorer, self.contrast, self.rng = scorer, contrast.resolve(), rng
        self.scale_weights = scale_weights
        self.bypassed, self.steps = False, 0
        self.heads = None
        if projection_dim is not None:
            dims = [memory.dim for memory in scorer.memories()]
            self.heads = nn.ModuleList(projection_head(dim, projection_dim) for dim in dims)

    def get_extra_state(self) -> Tensor:
        """Return the number of steps, and 1 while memories are bypassed; part of checkpoints."""
        return torch.tensor([self.steps, int(self.bypassed)])

    def set_extra_state(self, state: Tensor) -> None:
        """Take both from a checkpoint."""
        self.steps, self.bypassed = int(state[0]), bool(state[1])

    def features(self, images: Tensor) -> Sequence[Tensor]:
        """Return the backbone's maps of images (B, 3, S, S) with values 0 to 255."""
        return self.scorer.features(images)

    def embed(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Return every scale's map in the space of its association, from the backbone's maps."""
        return [memory.embed(f) for memory, f in zip(self.scorer.memories(), features, strict=True)]

    def loss(
        self, first: Sequence[Tensor], second: Sequence[Tensor], normal: Tensor
    ) -> tuple[Tensor, Mapping[str, float]]:
        """Return Eq. 7 for the maps of two views and, per scale, figures of its memory; see :func:`figures_of`.

        While `bypassed`, Mem(z) = z, and there are no retrievals that Eq. 6 could keep apart.
        """
        memories, options, queries = self.scorer.memories(), self.contrast, []

        def recalled_by(memory: ScaleMemory) -> Callable[[Tensor], Tensor]:
            def recall(z: Tensor) -> Tensor:
                queries.append(z.detach())
                return z if self.bypassed else memory.recall(z)

            return recall

        losses = scale_losses(
            first,
            second,
            [recalled_by(memory) for memory in memories],
            normal,
            ratios=_per_scale(options.ratios, len(memories)),
            generator=self.rng,
            base=options.base,
            temperature=options.temperature,
            variance=options.variance,
            hinge=options.hinge,
            unit=options.unit,
            variance_weight=0.0 if self.bypassed else options.variance_weight,
            projections=None if self.heads is None else list(self.heads),
        )
        self.steps += 1
        figures: dict[str, float] = {}
        for s, (memory, z, found) in enumerate(zip(memories, queries, losses, strict=True), start=1):
            own = figures_of(memory, z, found, bypassed=self.bypassed)
            figures |= {f"{name}_{s}": value for name, value in own.items()}
        return mean_over_positions(losses, self.scale_weights), figures


@torch.no_grad()
def figures_of(memory: ScaleMemory, z: Tensor, found: ScaleLoss, *, bypassed: bool = False) -> dict[str, float]:
    """Return figures of one scale in training.

    Parameters
    ----------
    memory : ScaleMemory
    z : Tensor, (P, B, C)
        Queries.
    found : ScaleLoss
    bypassed : bool
        True where the memory took no part: its items are then not counted.

    Returns
    -------
    dict
        ``contrast``: Eq. 4; chance is ln(2B - 1). ``retrieval_cosine``: mean over positions of the mean cosine of
        retrievals of two images; near 1, the memory has collapsed. ``effective_items``: number of items in use, 0
        without a memory.
    """
    used = 0.0
    if memory.memory is not None and not bypassed:
        used = effective_items(memory.memory.usage(z.reshape(-1, z.shape[-1])[:2048]))
    cosine = mean_cosine(found.retrieved)
    return {"effective_items": used, "contrast": float(found.contrast), "retrieval_cosine": cosine}


def mean_cosine(vectors: Tensor) -> float:
    """Return the mean cosine of two different images' vectors (P, B, C) at a position, averaged over positions."""
    unit = F.normalize(vectors.detach().float(), dim=-1)
    n_images = unit.shape[1]
    pairs = unit.sum(dim=1).square().sum(dim=-1) - unit.square().sum(dim=(1, 2))
    return float(pairs.mean() / max(1, n_images * (n_images - 1)))


def _per_scale(values: tuple[float, ...], scales: int) -> tuple[float, ...]:
    """Return a ratio per scale: `values` from the last scale backwards, the first one repeated for earlier scales."""
    return (values[0],) * max(0, scales - len(values)) + values[max(0, len(values) - scales) :]
