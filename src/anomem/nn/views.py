"""Training on contrasted views: AnoMem's first stage trains encoder and memories together (Eq. 3 to 7, Algorithm 1)."""

from __future__ import annotations

import math
import os
import tempfile
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import IO, Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from anomem.data.augment import Augmentation, views
from anomem.data.imageset import Batch, ImageSet
from anomem.nn.backbones import Backbone
from anomem.nn.endless import Cycle, Endless
from anomem.nn.precision import autocast, without_autocast
from anomem.nn.token_maps import TokenMaps
from anomem.params import Parameters, Range, param, parameter_group

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

    def __iter__(self) -> FeedBatches:
        return FeedBatches(self)


class FeedBatches(Endless[tuple[Tensor, Tensor]]):
    """Batches of a feed."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._order = torch.empty(0, dtype=torch.int64)
        self._done = 0
        self._decoded: Iterator[Batch] | None = None

    def __next__(self) -> tuple[Tensor, Tensor]:
        extra, share = self._anomalies
        normals = self._normals(self._feed.batch_size - share)
        if extra is None or not share:
            return normals, torch.ones(len(normals), dtype=torch.bool)
        drawn = extra[torch.randint(len(extra), (share,), generator=self._feed.rng)]
        flags = torch.arange(len(normals) + share) < len(normals)
        return torch.cat([normals, drawn]), flags

    def state(self) -> dict[str, Tensor]:
        """Return the order of this pass over the images, and the number of batches taken of it."""
        return {"order": self._order, "done": torch.tensor(self._done)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Continue a pass over the images."""
        self._order, self._done, self._decoded = state["order"], int(state["done"]), None

    @cached_property
    def _anomalies(self) -> tuple[Tensor | None, int]:
        """All tiles of the labelled anomalies, and the number of them in a batch."""
        feed = self._feed
        extra = None if feed.anomalies is None else _all_tiles(feed.anomalies)
        if extra is None or not len(extra):
            return extra, 0
        wanted = round(feed.batch_size * len(extra) / (len(extra) + len(feed.learn)))
        # A batch without a normal would not train the memory.
        return extra, min(max(1, wanted), feed.batch_size - 1)

    @cached_property
    def _kept(self) -> Tensor | None:
        """All tiles of the normals where they fit into the budget and are not cut; None: decoded in every pass."""
        learn = self._feed.learn
        fits = len(learn) * 3 * math.prod(learn.preprocessing.hw) <= self._feed.cache_mb * 2**20
        return _all_tiles(learn) if fits and learn.preprocessing.tile is None else None

    def _normals(self, batch_size: int) -> Tensor:
        kept = self._kept
        if kept is None:
            return self._next_decoded(batch_size)
        take = min(batch_size, len(kept))
        if len(self._order) < (self._done + 1) * take:
            self._begin(len(kept))
        rows = self._order[self._done * take : (self._done + 1) * take]
        self._done += 1
        return kept[rows]

    def _next_decoded(self, batch_size: int) -> Tensor:
        while True:
            if self._decoded is None and not len(self._order):
                self._begin(len(self._feed.learn))
            if self._decoded is None:
                self._decoded = self._decode(batch_size)
            batch = next(self._decoded, None)
            if batch is not None:
                self._done += 1
                return batch.images
            self._order, self._decoded = self._order[:0], None

    def _decode(self, batch_size: int) -> Iterator[Batch]:
        """Decode the rest of this pass; an image that is cut gives several batches, and the pass is decoded again."""
        learn, order = self._feed.learn, self._order.numpy()
        if learn.preprocessing.tile is None:
            return learn.batches(batch_size, order=order[self._done * batch_size :])
        return islice(learn.batches(batch_size, order=order), self._done, None)

    def _begin(self, count: int) -> None:
        self._order, self._done = torch.randperm(count, generator=self._feed.rng), 0


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

    def __iter__(self) -> Cycle[tuple[list[Tensor], list[Tensor], Tensor]]:
        return Cycle(self._parts)


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
        with without_autocast(device):
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
