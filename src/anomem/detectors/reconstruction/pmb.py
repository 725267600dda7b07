"""PMB: an autoencoder whose fine levels are read from a partition memory bank."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, ClassVar

from torch import Tensor

from anomem.data.imageset import ImageSet
from anomem.detector import Detector, Supervision
from anomem.detectors.reconstruction.loss import KINDS, reconstruction_loss
from anomem.detectors.reconstruction.scorer import ReconstructionScorer, new_scorer, train_autoencoder
from anomem.errors import ParameterError
from anomem.fitting import Labelled, Run
from anomem.nn.scorer import Scorer
from anomem.params import FLAG, Each, OneOf, Range, param
from anomem.types import Record

COUNT = Range(1, integer=True)
POSITIVE = Range(0.0, low_open=True)

_WIDTHS = (16, 32, 64, 128, 128)
PRESETS: dict[str, dict[str, Any]] = {
    "surface": {
        "size": 128,
        "widths": _WIDTHS,
        "levels": 5,
        "memory_levels": 4,
        "partitions": (32, 16, 16, 8, 8),
        "items": (150, 200, 200, 200, 200),
        "train_batch": 20,
        "train_steps": 600,
    },
    "object": {
        "size": 128,
        "widths": _WIDTHS,
        "levels": 5,
        "memory_levels": 4,
        "partitions": (16, 16, 16, 8, 8),
        "items": (150, 200, 200, 200, 200),
        "train_batch": 20,
        "train_steps": 600,
    },
    "digits": {
        "size": 32,
        "widths": (2, 4, 8),
        "levels": 3,
        "memory_levels": 3,
        "partitions": (1,),
        "items": (10,),
        "train_batch": 64,
        "train_steps": 600,
    },
    "medical": {
        "size": 128,
        "widths": _WIDTHS,
        "levels": 4,
        "memory_levels": 3,
        "partitions": (2,),
        "items": (10,),
        "train_batch": 20,
        "train_steps": 600,
    },
}


@dataclass(kw_only=True, repr=False, eq=False)
class PMB(Detector):
    """Partition memory bank autoencoder with histogram error estimation.

    A U-Net-like autoencoder is trained from scratch to reconstruct normal images. Its finest p levels reach the decoder
    only as what memories of normal features hold of them: every channel of every horizontal strip of such a feature map
    is a query, replaced by a weighted sum of learnt items (Eq. 2 to 5). What the memories do not hold is reconstructed
    badly. The error that an image has everywhere is taken off (Eq. 6); the rest is the map, and its sum the score.

    Parameters
    ----------
    preset : {"surface", "object", "digits", "medical"}
        The paper's settings for textures and objects of MVTec AD, MNIST and Retinal-OCT, at a quarter of the widths;
        digits at a quarter of the size and with few channels, which leave other digits less room. Parameters marked
        (preset) default to what the preset says.
    size : int (preset)
        Side of the input, pixels; divisible by 2^(levels - 1).
    widths : tuple of int (preset)
        Channels of each level, fine first; surplus values are not used. The full-width network is
        ``(64, 128, 256, 512, 512)``.
    levels : int (preset)
        L.
    memory_levels : int (preset)
        p: the finest p levels have what `memory` says, the deeper ones skip connections.
    memory : {"partition", "position", "block", "skip", "none"}
        "partition": the paper's memory. "position": a query is all channels of one position (MemAE's), "block": of a
        square of positions (DAAD's); both share their items between all places. "skip": the encoder's features
        themselves (the memory-free ablation; AE + skip). "none": nothing crosses; with ``memory_levels`` equal to
        ``levels`` a plain autoencoder.
    partitions : tuple of int (preset)
        k of each level, fine first: strips of equal height. One value: for all.
    items : tuple of int (preset)
        m of each level: items of each strip (of the whole memory for "position" and "block"). One value: for all.
    block : int, default 4
        Side of the squares of "block", positions.
    temperature : float, default 1.0
        The softmax of Eq. 3 is taken of cosine / temperature. 1 is the paper's form.
    renormalise : bool, default True
        Scale the weights that Eq. 4 leaves to a sum of 1, as MemAE does. False is the paper to the letter, whose reads
        have a few hundredths of an item's norm.
    error_share : float, default 0.5
        delta_H: share of an image's pixels, those of the smallest errors, whose mean is taken off. 0: nothing is.
    loss : {"mse+ssim", "mse", "ssim"}
        Eq. 9, or one of its terms alone.
    ssim_weight : float, default 0.1
        lambda_SSIM.
    train_steps, train_batch : int (preset)
        Optimiser steps, and images a step.
    lr : float, default 0.002
        Peak learning rate of Adam; falls along a cosine.
    cache_mb : int, default 1024
        Prepared images are kept in memory up to this, MB; beyond it they are decoded again every epoch.

    References
    ----------
    Xing and Li, "Visual Anomaly Detection Via Partition Memory Bank Module and Error Estimation", IEEE TCSVT 2023.
    """

    name: ClassVar[str] = "pmb"
    supervision: ClassVar[Supervision] = "none"
    localizes: ClassVar[bool] = True
    paper: ClassVar[str] = (
        "Xing and Li, Visual Anomaly Detection Via Partition Memory Bank Module and Error Estimation, 2023"
    )
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = PRESETS
    test_params: ClassVar[dict[str, Any]] = {
        "size": 16,
        "widths": (8, 16),
        "levels": 2,
        "memory_levels": 2,
        "partitions": (1,),
        "items": (3,),
        "train_steps": 60,
        "train_batch": 16,
        "lr": 0.03,
    }
    contract_skips: ClassVar[dict[str, str]] = {
        "defects_rank_above_normals": "an autoencoder learns photographs of a texture in minutes, not in a second"
    }

    size: int | None = param(None, Range(16, 4096, integer=True), doc="Input side, pixels.", preset=True)
    preset: str = param("surface", OneOf(tuple(PRESETS)), doc="Named set of parameters.")
    widths: tuple[int, ...] | None = param(None, Each(COUNT), doc="Channels of each level, fine first.", preset=True)
    levels: int | None = param(None, Range(1, 10, integer=True), doc="L: levels of the autoencoder.", preset=True)
    memory_levels: int | None = param(
        None, Range(0, 10, integer=True), doc="p: how many levels, fine first, are read from a memory.", preset=True
    )
    memory: str = param(
        "partition",
        OneOf(("partition", "position", "block", "skip", "none")),
        doc="What the first p levels have between encoder and decoder.",
    )
    partitions: tuple[int, ...] | None = param(None, Each(COUNT), doc="k: strips of each level.", preset=True)
    items: tuple[int, ...] | None = param(None, Each(COUNT), doc="m: items of each strip, by level.", preset=True)
    block: int = param(4, COUNT, doc="Side of a query where memory is block, positions.")
    temperature: float = param(1.0, POSITIVE, doc="Of the softmax of cosines.")
    renormalise: bool = param(True, FLAG, doc="Scale weights to a sum of 1; False: the paper to the letter.")
    error_share: float = param(0.5, Range(0.0, 1.0), doc="delta_H: share of pixels that the error is estimated on.")
    loss: str = param("mse+ssim", OneOf(KINDS), doc="Of the reconstruction.")
    ssim_weight: float = param(0.1, Range(0.0), doc="lambda_SSIM.")
    train_steps: int | None = param(None, COUNT, doc="Optimiser steps.", preset=True)
    train_batch: int | None = param(None, Range(2, integer=True), doc="Images a step.", preset=True)
    lr: float = param(0.002, POSITIVE, doc="Peak learning rate.")
    cache_mb: int = param(1024, COUNT, doc="Memory for prepared images, MB.")

    def _fit(
        self, learn: ImageSet, tune: ImageSet, labelled: Labelled | None, run: Run
    ) -> Generator[Record, None, Scorer]:
        p = run.params
        scorer = new_scorer("PMB", run, p.widths, links(p), error_share=p.error_share)

        def loss(images: Tensor) -> tuple[Tensor, Mapping[str, float]]:
            return reconstruction_loss(images, scorer.autoencoder(images), p.loss, p.ssim_weight), {}

        yield from train_autoencoder(scorer, loss, learn, run)
        return scorer

    @classmethod
    def _build(cls, config: dict[str, Any]) -> Scorer:
        return ReconstructionScorer(config)


def links(p: SimpleNamespace) -> list[dict[str, Any] | None]:
    """What lies between encoder and decoder at each level, as :class:`ReconstructionScorer` takes it.

    Raises
    ------
    ParameterError
        If p exceeds L, or there are too few values of k or m.
    """
    if p.memory_levels > p.levels:
        raise ParameterError(f"PMB: memory_levels={p.memory_levels} exceeds levels={p.levels}; lower it")
    return [_link(p, level) for level in range(p.levels)]


def _link(p: SimpleNamespace, level: int) -> dict[str, Any] | None:
    if level >= p.memory_levels or p.memory == "skip":
        return {"kind": "skip"}
    if p.memory == "none":  # but the decoder must begin with something
        return {"kind": "skip"} if level == p.levels - 1 else None
    shared = {
        "n_items": _at("items", p.items, level),
        "addressing": {"temperature": p.temperature, "renormalise": p.renormalise},
    }
    if p.memory == "partition":
        return {"kind": "partition", "partitions": _at("partitions", p.partitions, level), **shared}
    return {"kind": "block", "block": p.block if p.memory == "block" else 1, **shared}


def _at(name: str, values: tuple[int, ...], level: int) -> int:
    if 1 < len(values) <= level:
        raise ParameterError(
            f"PMB: {name}={values} has no value for level {level + 1}; give one a level, or one for all"
        )
    return values[0] if len(values) == 1 else values[level]
