"""Training of AnoMem's first stage by the contrasted memory loss."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from anomem.data.imageset import ImageSet
from anomem.detectors.anomem.loss import multi_scale_contrasted_memory_loss
from anomem.detectors.anomem.presets import Contrast, StageOne
from anomem.detectors.anomem.scorer import MultiScaleScorer, each
from anomem.fitting import Labelled, Run
from anomem.nn.deviation import ScaleMemory
from anomem.nn.hopfield import effective_items
from anomem.nn.views import CachedViews, Feed, ViewsOf, projection_head, unfreeze
from anomem.training import Recipe, train
from anomem.types import Record

if TYPE_CHECKING:
    from anomem.detectors.anomem.detector import AnoMem


def train_stage_one(
    scorer: MultiScaleScorer, learn: ImageSet, labelled: Labelled | None, p: StageOne, run: Run[AnoMem]
) -> Generator[Record, None, None]:
    """Train the memories, and the backbone layers of `train_backbone`, by the contrasted memory loss (Algorithm 1)."""
    from_scratch = run.params.weights is None
    trained = "all" if from_scratch else p.train_backbone
    scorer.requires_grad_(False)
    unfreeze(scorer.backbone, trained)
    for scale in scorer.memories():
        if scale.memory is not None:
            scale.memory.requires_grad_(True)
    scale_weights = each("scale_weights", run.params.scale_weights, len(scorer.memories()))
    model = ContrastedMemory(
        scorer, p.contrast, projection_dim=p.projection_dim, rng=run.rng, scale_weights=scale_weights
    ).to(run.device)
    # Pretrained batch statistics come from far more images than a fit has; only a backbone from scratch learns its own.
    scorer.backbone.train(from_scratch)
    shared = p.geometry == "shared" or (p.geometry == "auto" and not from_scratch)
    views_of = ViewsOf(model, run.device, p.views.augmentation(), shared, run.fit_precision)
    anomalies = None if labelled is None else labelled.anomalies()
    feed = Feed(learn, anomalies, p.batch, p.cache_mb, run.rng)

    def loss(batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Mapping[str, float]]:
        first, second = views_of(batch[0])
        return model.loss(first, second, batch[1].to(run.device))

    def cached_loss(batch: tuple[list[Tensor], list[Tensor], Tensor]) -> tuple[Tensor, Mapping[str, float]]:
        first, second = ([m.to(run.device).float() for m in view] for view in batch[:2])
        return model.loss(first, second, batch[2].to(run.device))

    options: dict[str, Any] = {"device": run.device, "precision": run.fit_precision, "stage": "stage 1"}
    options["rng"] = run.rng
    recipe = Recipe(p.steps, p.lr, weight_decay=p.weight_decay)
    if trained == "none":
        yield from train(model, cached_loss, CachedViews(views_of, feed), recipe, **options)
    else:
        yield from train(model, loss, feed, recipe, **options)
    scorer.backbone.eval()


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
        self.heads = None
        if projection_dim is not None:
            dims = [memory.dim for memory in scorer.memories()]
            self.heads = nn.ModuleList(projection_head(dim, projection_dim) for dim in dims)

    def features(self, images: Tensor) -> Sequence[Tensor]:
        """Return the backbone's maps of images (B, 3, S, S) with values 0 to 255."""
        return self.scorer.features(images)

    def embed(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Return every scale's map in the space of its association, from the backbone's maps."""
        return [memory.embed(f) for memory, f in zip(self.scorer.memories(), features, strict=True)]

    def loss(
        self, first: Sequence[Tensor], second: Sequence[Tensor], normal: Tensor
    ) -> tuple[Tensor, Mapping[str, float]]:
        """Return Eq. 7 for the maps of two views, and the effective number of items per memory as figures."""
        memories, used = self.scorer.memories(), []

        def recalled_by(memory: ScaleMemory) -> Callable[[Tensor], Tensor]:
            def recall(z: Tensor) -> Tensor:
                used.append((memory, z.detach()))
                return memory.recall(z)

            return recall

        options = self.contrast
        value = multi_scale_contrasted_memory_loss(
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
            variance_weight=options.variance_weight,
            scale_weights=self.scale_weights,
            projections=None if self.heads is None else list(self.heads),
        )
        return value, {f"effective_items_{s}": _effective(*pair) for s, pair in enumerate(used, start=1)}


def _effective(memory: ScaleMemory, z: Tensor) -> float:
    """Return the effective number of items used by a scale's queries; 0 without a memory."""
    if memory.memory is None:
        return 0.0
    return effective_items(memory.memory.usage(z.reshape(-1, z.shape[-1])[:2048]))


def _per_scale(values: tuple[float, ...], scales: int) -> tuple[float, ...]:
    """Return a ratio per scale: `values` from the last scale backwards, the first one repeated for earlier scales."""
    return (values[0],) * max(0, scales - len(values)) + values[max(0, len(values) - scales) :]
