"""Scoring path: prepared images through a scorer to one result per image."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from anomem.data.imageset import ImageSet, to_tensor
from anomem.nn.backbones import Backbone
from anomem.nn.chunked import side_by_side
from anomem.nn.precision import autocast
from anomem.nn.scorer import Output, Scorer, TwoStageScorer
from anomem.runtime.scoring import ImageResult, PreparedImages, TileOutput, score_tiles
from anomem.types import UInt8Image

__all__ = ["ImageResult", "feature_batches", "outputs", "score_images"]

T = TypeVar("T")


def score_images(
    scorer: Scorer,
    images: PreparedImages,
    *,
    precision: str,
    batch_size: int,
    maps: bool = False,
    whole: bool = False,
    evidence: bool = False,
    forward: Callable[[Tensor], Output] | None = None,
) -> Iterator[ImageResult]:
    """Score a set of images lazily, in order.

    Parameters
    ----------
    scorer : Scorer
        Scorer in evaluation mode, on its device.
    images : PreparedImages
        Images to score.
    precision : {"float32", "bfloat16"}
        Arithmetic of the forward pass.
    batch_size : int
        Tiles per forward pass; the scores do not depend on it beyond rounding.
    maps : bool
        Keep the anomaly map of each image's selected tile.
    whole : bool
        Return the map of each whole image.
    evidence : bool
        Return the inputs of a second stage (scorers of one stage have none).
    forward : callable, optional
        Replacement for the scorer where some of its work is already done; called with the same batches.
    """
    if forward is None:
        scoring: Callable[[Tensor], Output] = scorer if maps or whole else scorer.judge
        observed = scorer.observe if evidence and isinstance(scorer, TwoStageScorer) else scoring
        forward = partial(side_by_side, observed)
    device = next(scorer.buffers()).device

    def network(tiles: UInt8Image) -> TileOutput:
        return _forward(forward, to_tensor(tiles).to(device), precision, maps=maps or whole)

    stitched = images.preprocessing if whole else None
    batches = images.prepared(batch_size)
    for result in score_tiles(batches, network, batch_size=batch_size, maps=maps, whole=stitched):
        kept = result.evidence
        yield result if kept is None else replace(result, evidence=torch.from_numpy(kept))


@torch.inference_mode()
def _forward(forward: Callable[[Tensor], Output], tiles: Tensor, precision: str, *, maps: bool) -> TileOutput:
    """Convert one output to the arrays that every engine returns."""
    with autocast(tiles.device, precision):
        output = forward(tiles)
    return TileOutput(
        output.score.float().cpu().numpy(),
        output.map.float().cpu().numpy() if maps and output.map is not None else None,
        None if output.one_class is None else output.one_class.float().cpu().numpy(),
        None if output.evidence is None else output.evidence.cpu().numpy(),
    )


def feature_batches(backbone: Backbone, images: ImageSet, *, precision: str, batch_size: int) -> Iterator[list[Tensor]]:
    """Yield the backbone's maps of every batch of tiles, in order: [(B, C_s, h_s, w_s)] float32, no gradient."""
    device = backbone.mean.device
    kept = images.kept(batch_size)
    if kept is not None:
        yield from ([m.to(device) for m in maps] for maps in kept)
        return
    for maps in outputs(backbone, images, device=device, precision=precision, batch_size=batch_size):
        yield [m.float() for m in maps]


def outputs(
    network: Callable[[Tensor], T], images: ImageSet, *, device: torch.device, precision: str, batch_size: int
) -> Iterator[T]:
    """Yield a network's output for every batch of tiles, in order, without gradient."""
    for batch in images.batches(batch_size):
        with torch.inference_mode(), autocast(device, precision):
            output = network(batch.images.to(device))
        yield output
