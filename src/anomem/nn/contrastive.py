"""AnoMem's first stage: encoder and memories trained together on contrasted views (Eq. 3 to 7, Algorithm 1)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from anomem.data.augment import Augmentation, views
from anomem.data.imageset import ImageSet
from anomem.losses import multi_scale_contrasted_memory_loss
from anomem.nn.backbones import Backbone
from anomem.nn.deviation import ScaleMemory
from anomem.nn.hopfield import effective_items
from anomem.types import ANOMALOUS, IntArray


@dataclass(frozen=True)
class Contrast:
    """Parameters of the contrasted memory loss, named as in :func:`~anomem.losses.multi_scale_contrasted_memory_loss`."""

    base: str = "simclr"
    temperature: float = 0.1
    variance: str = "batch"
    hinge: bool = False
    variance_weight: float = 0.05
    ratios: tuple[float, ...] = (0.3, 1.0)
    scale_weights: tuple[float, ...] | None = None


class ContrastedMemory(nn.Module):
    """Backbone and one memory a scale, trained together.

    Parameters
    ----------
    backbone : Backbone
        Parameters that do not require a gradient stay frozen.
    scales : list of ScaleMemory
        In the order of the backbone's maps.
    contrast : Contrast
        The loss.
    projection_dim : int or None
        Width of a two-layer projection head a scale; None: no head, as in the paper.
    rng : torch.Generator
        Draws positions.
    """

    def __init__(
        self,
        backbone: Backbone,
        scales: Sequence[ScaleMemory],
        contrast: Contrast,
        *,
        projection_dim: int | None,
        rng: torch.Generator,
    ) -> None:
        super().__init__()
        self.backbone, self.scales = backbone, nn.ModuleList(scales)
        self.contrast, self.rng = contrast, rng
        self.heads = None
        if projection_dim is not None:
            self.heads = nn.ModuleList(_projection(s.normaliser.dim, projection_dim) for s in scales)

    def embed(self, images: Tensor) -> list[Tensor]:
        """Return every scale's map in the space of its association, for images (B, 3, S, S) with values 0 to 255."""
        return self.embed_features(self.backbone(images))

    def embed_features(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Return the same from the backbone's maps."""
        return [scale.embed(f) for scale, f in zip(self.scales, features, strict=True)]

    def loss(
        self, first: Sequence[Tensor], second: Sequence[Tensor], normal: Tensor
    ) -> tuple[Tensor, Mapping[str, float]]:
        """Eq. 7 for two views' maps; figures: effective items of the last scale's memory."""
        used: list[Tensor] = []

        def memory(scale: nn.Module) -> Any:
            def recall(z: Tensor) -> Tensor:
                used.append(z.detach())
                return scale.recall(z)  # type: ignore[operator,no-any-return]

            return recall

        options = self.contrast
        value = multi_scale_contrasted_memory_loss(
            first,
            second,
            [memory(scale) for scale in self.scales],
            normal,
            ratios=_per_scale(options.ratios, len(self.scales)),
            generator=self.rng,
            base=options.base,  # type: ignore[arg-type]
            temperature=options.temperature,
            variance=options.variance,  # type: ignore[arg-type]
            hinge=options.hinge,
            variance_weight=options.variance_weight,
            scale_weights=options.scale_weights,
            projections=None if self.heads is None else list(self.heads),
        )
        return value, self._usage(used)

    def _usage(self, used: list[Tensor]) -> dict[str, float]:
        figures = {}
        for s, (scale, z) in enumerate(zip(self.scales, used, strict=True), start=1):
            if isinstance(scale, ScaleMemory) and scale.memory is not None:
                sample = z.reshape(-1, z.shape[-1])[:2048]
                figures[f"effective_items_{s}"] = effective_items(scale.memory.usage(sample))
        return figures


@dataclass(frozen=True)
class Feed:
    """Endless batches of images for the first stage: uint8 (B, 3, S, S) with (B,) bool, true where normal.

    Parameters
    ----------
    learn : ImageSet
        Normals.
    anomalies : ImageSet or None
        Labelled anomalies; each batch holds them in their share.
    batch_size : int
        B of the paper: images a batch.
    cache_mb : int
        Prepared images are kept in memory up to this; beyond it they are decoded again every epoch.
    rng : torch.Generator
        Order of the images.
    """

    learn: ImageSet
    anomalies: ImageSet | None
    batch_size: int
    cache_mb: int
    rng: torch.Generator

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        extra = None if self.anomalies is None else _all_tiles(self.anomalies)
        share = 0
        if extra is not None and len(extra):
            share = max(1, round(self.batch_size * len(extra) / (len(extra) + len(self.learn))))
        for normals in self._normals(self.batch_size - share):
            if extra is None or not share:
                yield normals, torch.ones(len(normals), dtype=torch.bool)
                continue
            drawn = extra[torch.randint(len(extra), (share,), generator=self.rng)]
            flags = torch.arange(len(normals) + share) < len(normals)
            yield torch.cat([normals, drawn]), flags

    def _normals(self, batch_size: int) -> Iterator[Tensor]:
        size = self.learn.preprocessing.size
        fits = len(self.learn) * 3 * size * size <= self.cache_mb * 2**20
        if not (fits and self.learn.preprocessing.tile is None):
            while True:
                for batch in self.learn.batches(batch_size, order=self._order(len(self.learn))):
                    yield batch.images
        kept = _all_tiles(self.learn)
        take = min(batch_size, len(kept))
        while True:
            order = torch.randperm(len(kept), generator=self.rng)
            for start in range(0, len(kept) - take + 1, take):
                yield kept[order[start : start + take]]

    def _order(self, n: int) -> IntArray:
        return torch.randperm(n, generator=self.rng).numpy()


def _all_tiles(images: ImageSet) -> Tensor:
    return torch.cat([batch.images for batch in images.batches(64)])


class CachedViews:
    """Both views of some images as frozen features, embedded, in float16; endless batches of them.

    With a frozen backbone, features of a view never change, so each drawn view is extracted once: as many images as the
    budget holds, `rounds` pairs of views of each at most.
    """

    def __init__(
        self,
        model: ContrastedMemory,
        feed: Feed,
        augmentation: Augmentation,
        *,
        shared_geometry: bool,
        precision: str,
        cache_mb: int,
        rounds: int = 2,
    ) -> None:
        self._parts: list[tuple[list[Tensor], list[Tensor], Tensor]] = []
        held, wanted = 0, rounds * len(feed.learn)
        seen = 0
        for images, normal in feed:
            pair = [
                [m.half().cpu() for m in embedded]
                for embedded in embed_views(
                    model, images, augmentation, shared_geometry, precision, frozen=True
                )
            ]
            self._parts.append((pair[0], pair[1], normal))
            held += sum(2 * m.numel() for view in pair for m in view)
            seen += len(images)
            if seen >= wanted or held >= cache_mb * 2**20:
                return

    def __iter__(self) -> Iterator[tuple[list[Tensor], list[Tensor], Tensor]]:
        while True:
            yield from self._parts


def embed_views(
    model: ContrastedMemory,
    images: Tensor,
    augmentation: Augmentation,
    shared_geometry: bool,
    precision: str,
    *,
    frozen: bool,
) -> list[list[Tensor]]:
    """Draw two views of uint8 images and embed them: [first, second], each a list of one map a scale."""
    from anomem.nn.inference import autocast

    device = model.backbone.mean.device
    pair = views(images.to(device).float() / 255, augmentation, shared_geometry=shared_geometry, generator=model.rng)
    with torch.set_grad_enabled(not frozen), autocast(device, precision):
        # One pass over both views: in training mode they share the batch's statistics.
        features = model.backbone(torch.cat(pair) * 255)
    half = len(images)
    with torch.set_grad_enabled(not frozen):
        return [model.embed_features([f[part] for f in features]) for part in (slice(0, half), slice(half, None))]


def unfreeze(backbone: Backbone, how: str) -> None:
    """Mark what the first stage trains of a backbone: "none", "last" (its last wanted stage) or "all"."""
    backbone.requires_grad_(how == "all")
    if how == "last":
        for module in last_stage(backbone):
            module.requires_grad_(True)


def last_stage(backbone: Backbone) -> list[nn.Module]:
    """Return the modules behind the last but one wanted feature map."""
    model: Any = backbone.model
    info = model.feature_info
    names = [entry["module"] for entry in getattr(info, "info", info)]
    before = names[sorted(s % len(names) for s in backbone.stages)[-2]] if len(backbone.stages) > 1 else None
    ordered = dict(model.named_modules())
    top = [name for name in ordered if name.count(".") == (1 if before and "." in before else 0) and name]
    start = top.index(before) + 1 if before in top else 0
    return [ordered[name] for name in top[start:]] + (
        [ordered[name] for name in ("conv_head", "bn2") if name in ordered] if backbone.embedding else []
    )


def _per_scale(values: tuple[float, ...], scales: int) -> tuple[float, ...]:
    """Ratios from the last scale backwards; earlier scales than given take the first."""
    return (values[0],) * max(0, scales - len(values)) + values[max(0, len(values) - scales) :]


def _projection(dim: int, width: int) -> nn.Module:
    hidden = max(dim, width)
    return nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Linear(hidden, width))


