"""Training on contrasted views: AnoMem's first stage trains encoder and memories together (Eq. 3 to 7, Algorithm 1)."""

from __future__ import annotations

import math
import os
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from anomem.data.augment import Augmentation, views
from anomem.data.imageset import ImageSet
from anomem.nn.backbones import Backbone
from anomem.nn.inference import autocast
from anomem.nn.token_maps import TokenMaps
from anomem.params import Parameters, Range, param, parameter_group
from anomem.types import IntArray

SHARE = Range(0.0, 1.0)


@parameter_group
class Views(Parameters):
    """Strengths of the random changes that make a view; the defaults are the AnoMem paper's.

    SimCLR has crop 0.08, hue 0.1, grey 0.2 and no noise.
    """

    crop: float = param(0.2, Range(0.0, 1.0, low_open=True), doc="Minimum share of the area that a random crop keeps.")
    flip: float = param(0.5, SHARE, doc="Probability of a horizontal flip.")
    brightness: float = param(0.4, SHARE, doc="Strength of brightness jitter.")
    contrast: float = param(0.4, SHARE, doc="Strength of contrast jitter.")
    saturation: float = param(0.4, SHARE, doc="Strength of saturation jitter.")
    hue: float = param(0.0, Range(0.0, 0.5), doc="Strength of hue jitter, full turns.")
    grey: float = param(0.0, SHARE, doc="Probability of conversion to grey.")
    blur: float = param(0.5, SHARE, doc="Probability of a Gaussian blur.")
    noise: float = param(0.02, SHARE, doc="Largest standard deviation of Gaussian noise.")

    def augmentation(self) -> Augmentation:
        """Return the augmentation of these strengths."""
        strengths = {name: value for name, value in self.get_params().items() if name != "crop"}
        return Augmentation(crop_scale=(self.crop, 1.0), **strengths)


MOVED_VIEWS = {name: name for name in Views.declared() if name != "contrast"} | {"contrast_jitter": "contrast"}
"""Map from former flat names to names in :class:`Views`."""

ROUNDS = 2
"""Number of pairs of views drawn per image where a frozen backbone lets them be cached."""


@dataclass(frozen=True)
class Feed:
    """Feed of images for the first stage: endless batches uint8 (B, 3, S, S) with (B,) bool, true where normal.

    Parameters
    ----------
    learn : ImageSet
        Normals.
    anomalies : ImageSet or None
        Labelled anomalies; each batch contains them in their share.
    batch_size : int
        Images per batch, B of the paper.
    cache_mb : int
        Memory for prepared images, MB; beyond it they are decoded again every epoch.
    rng : torch.Generator
        Generator of the order of the images.
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
            wanted = round(self.batch_size * len(extra) / (len(extra) + len(self.learn)))
            share = min(max(1, wanted), self.batch_size - 1)  # A batch without a normal would not train the memory.
        for normals in self._normals(self.batch_size - share):
            if extra is None or not share:
                yield normals, torch.ones(len(normals), dtype=torch.bool)
                continue
            drawn = extra[torch.randint(len(extra), (share,), generator=self.rng)]
            flags = torch.arange(len(normals) + share) < len(normals)
            yield torch.cat([normals, drawn]), flags

    def _normals(self, batch_size: int) -> Iterator[Tensor]:
        fits = len(self.learn) * 3 * math.prod(self.learn.preprocessing.hw) <= self.cache_mb * 2**20
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
    """Both views of some images as frozen features, embedded, in float16; in endless batches.

    With a frozen backbone the features of a view never change, so each drawn view is extracted once: `ROUNDS` pairs of
    views of each image, or as many as the budget holds, but at least one; what exceeds the budget lies in a
    memory-mapped temporary file.
    """

    def __init__(self, views_of: ViewsOf, feed: Feed) -> None:
        self._parts: list[tuple[list[Tensor], list[Tensor], Tensor]] = []
        budget, held, seen = feed.cache_mb * 2**20, 0, 0
        spilled = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as its maps
        weakref.finalize(self, spilled.close)
        for images, normal in feed:
            with torch.no_grad():
                first, second = ([m.half().cpu() for m in view] for view in views_of(images))
            if held < budget:
                held += sum(2 * m.numel() for m in (*first, *second))
            else:
                first, second = ([_mapped(spilled, m) for m in view] for view in (first, second))
            self._parts.append((first, second, normal))
            seen += len(images)
            if seen >= (1 if held >= budget else ROUNDS) * len(feed.learn):
                return

    def __iter__(self) -> Iterator[tuple[list[Tensor], list[Tensor], Tensor]]:
        while True:
            yield from self._parts


def _mapped(file: IO[bytes], values: Tensor) -> Tensor:
    """Append float16 values to a file, and return them memory-mapped."""
    start = file.seek(0, os.SEEK_END)
    file.write(values.contiguous().numpy().tobytes())
    file.flush()
    return torch.from_numpy(np.memmap(file, np.float16, "c", start, tuple(values.shape)))


class Contrasted(Protocol):
    """Modules trained on two views: a backbone, the embedding of its maps, and the generator that draws the views."""

    rng: torch.Generator

    def features(self, images: Tensor, /) -> Sequence[Tensor]:
        """Return the backbone's maps of images (B, 3, S, S) with values 0 to 255."""
        ...

    def embed(self, features: Sequence[Tensor], /) -> list[Tensor]:
        """Return the maps of one view that the loss contrasts."""
        ...


@dataclass(frozen=True)
class ViewsOf:
    """Embeddings of two random views of uint8 images: [first, second], each a list of one map per scale."""

    model: Contrasted
    device: torch.device
    augmentation: Augmentation
    shared_geometry: bool
    precision: str

    def __call__(self, images: Tensor) -> list[list[Tensor]]:
        """Draw and embed two views of images (B, 3, S, S) uint8."""
        features, half = self.features(images), len(images)
        with autocast(self.device, self.precision):
            return [self.model.embed([f[part] for f in features]) for part in (slice(0, half), slice(half, None))]

    def features(self, images: Tensor) -> Sequence[Tensor]:
        """Draw two views of images (B, 3, S, S) uint8; return the backbone's maps, those of the first views first."""
        model, device = self.model, self.device
        with torch.autocast(device.type, enabled=False):
            pair = views(
                images.to(device).float() / 255,
                self.augmentation,
                shared_geometry=self.shared_geometry,
                generator=model.rng,
            )
        with autocast(device, self.precision):
            # One pass over both views: in training mode they share the batch's statistics.
            return model.features(torch.cat(pair) * 255)


def unfreeze(backbone: Backbone, how: str) -> None:
    """Unfreeze a backbone's layers for stage one: "none", "last" (behind the last but one wanted map) or "all"."""
    backbone.requires_grad_(how == "all")
    if how == "last":
        for module in last_stage(backbone):
            module.requires_grad_(True)


def last_stage(backbone: Backbone) -> list[nn.Module]:
    """Return the layers behind the last but one wanted feature map; all of them where there is one map."""
    model: Any = backbone.model
    if isinstance(model, TokenMaps):
        model, called = model.timm, model.called()
    else:
        called = [str(node.target) for node in model.graph.nodes if node.op == "call_module"]
    wanted = [*dict.fromkeys(backbone.layers)] + ([""] if backbone.embedding else [])
    start = 0
    if len(wanted) > 1:
        before = wanted[-2]
        start = 1 + max(i for i, name in enumerate(called) if name == before or name.startswith(before + "."))
    return [model.get_submodule(name) for name in called[start:]]


def projection_head(dim: int, width: int) -> nn.Module:
    """Return two dense layers (N, dim) -> (N, width) with a ReLU between, as wide as the wider of both (SimCLR)."""
    hidden = max(dim, width)
    return nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Linear(hidden, width))
