"""Frozen features of a set of images, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from anomem.data.imageset import ImageSet
from anomem.nn.backbones import Backbone
from anomem.nn.inference import autocast


def feature_batches(backbone: Backbone, images: ImageSet, *, precision: str, batch_size: int) -> Iterator[list[Tensor]]:
    """Yield the backbone's maps of every batch of tiles, in order: [(B, C_s, h_s, w_s)] float32, no gradient."""
    device = backbone.mean.device
    for batch in images.batches(batch_size):
        with torch.inference_mode(), autocast(device, precision):
            maps = backbone(batch.images.to(device))
        yield [m.float() for m in maps]
