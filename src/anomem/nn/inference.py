"""The scoring path: prepared images through a scorer, back to one result an image."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from anomem.data.imageset import ImageSet, Prepared, to_tensor
from anomem.nn.scorer import Output, Scorer, TwoStageScorer
from anomem.types import FloatArray


@dataclass(frozen=True)
class ImageResult:
    """What a scorer says of one image.

    Parameters
    ----------
    index, digest, height_width, error
        As in :class:`~anomem.data.imageset.Prepared`.
    score : float
        Raw anomaly score; NaN where `error` is set.
    one_class : float
        The score before labels had a say.
    evidence : Tensor or None
        (D,) float16 of the tile that stands for the image.
    tile_maps : ndarray or None
        (T, h, w) float32, one map a tile, in the frame of the prepared tiles; None unless asked for.
    tile : int
        Which tile stands for the image.
    """

    index: int
    digest: int
    height_width: tuple[int, int]
    score: float
    one_class: float
    evidence: Tensor | None = None
    tile_maps: FloatArray | None = None
    tile: int = 0
    error: str | None = None


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Return the context in which a forward pass runs in `precision` ("float32" or "bfloat16")."""
    if precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def score_images(
    scorer: Scorer,
    images: ImageSet,
    *,
    precision: str,
    batch_size: int,
    maps: bool = False,
    evidence: bool = False,
    forward: Callable[[Tensor], Output] | None = None,
) -> Iterator[ImageResult]:
    """Score a set of images lazily, in order.

    Parameters
    ----------
    scorer : Scorer
        In evaluation mode, on its device.
    images : ImageSet
        What to score.
    precision : {"float32", "bfloat16"}
        Of the forward pass.
    batch_size : int
        Tiles a forward pass; the scores do not depend on it beyond rounding.
    maps : bool
        Whether to keep the anomaly maps.
    evidence : bool
        Whether to return what a second stage is fitted to (scorers of one stage have none).
    forward : callable, optional
        Stands for the scorer where some of its work is done already; it is called with the same batches.
    """
    if forward is None:
        forward = scorer.observe if evidence and isinstance(scorer, TwoStageScorer) else scorer
    device = next(scorer.buffers()).device
    for chunk in images.prepared(batch_size):
        good = [image for image in chunk if image.error is None]
        outputs = _forward(forward, good, device, precision, batch_size) if good else None
        start = 0
        for image in chunk:
            if outputs is None or image.error is not None:
                yield ImageResult(image.index, image.digest, image.height_width, np.nan, np.nan, error=image.error)
                continue
            part = slice(start, start + len(image.tiles))
            start = part.stop
            yield _one_image(image, outputs, part, maps)


@torch.inference_mode()
def _forward(
    forward: Callable[[Tensor], Output], images: list[Prepared], device: torch.device, precision: str, batch_size: int
) -> Output:
    """One output for the tiles of all `images`, on the CPU."""
    tiles = np.concatenate([image.tiles for image in images])
    outputs = []
    for start in range(0, len(tiles), batch_size):
        batch = to_tensor(tiles[start : start + batch_size]).to(device)
        with autocast(device, precision):
            outputs.append(forward(batch))
    return Output(
        torch.cat([o.score.cpu() for o in outputs]),
        _joined([o.map for o in outputs]),
        _joined([o.one_class for o in outputs]),
        _joined([o.evidence for o in outputs]),
    )


def _joined(parts: list[Tensor | None]) -> Tensor | None:
    there = [part.cpu() for part in parts if part is not None]
    return torch.cat(there) if there else None


def _one_image(image: Prepared, outputs: Output, part: slice, maps: bool) -> ImageResult:
    scores = outputs.score[part].float()
    one_class = scores if outputs.one_class is None else outputs.one_class[part].float()
    tile = int(one_class.argmax())
    tile_maps = outputs.map[part].float().numpy() if maps and outputs.map is not None else None
    evidence = None if outputs.evidence is None else outputs.evidence[part][tile].clone()
    return ImageResult(
        image.index,
        image.digest,
        image.height_width,
        float(scores[tile]),
        float(one_class[tile]),
        evidence,
        tile_maps,
        tile,
    )
