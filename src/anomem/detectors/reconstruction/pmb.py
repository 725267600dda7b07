"""PMB: an autoencoder whose fine levels are read from a partition memory bank."""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping
from typing import Any, ClassVar, Self

from torch import Tensor

from anomem.data.imageset import ImageSet
from anomem.detector import Detector, Supervision
from anomem.detectors.reconstruction.autoencoder import Activation
from anomem.detectors.reconstruction.loss import KINDS, Kind, reconstruction_loss
from anomem.detectors.reconstruction.scorer import (
    ReconstructionScorer,
    new_scorer,
    seed_memories,
    train_autoencoder,
)
from anomem.errors import ParameterError
from anomem.fitting import Labelled, Run
from anomem.framing import SIZE_DOC
from anomem.nn.scorer import Scorer
from anomem.params import FLAG, Each, OneOf, Range, param, parameters
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
        "widths": (16, 32, 64),
        "levels": 3,
        "memory_levels": 3,
        "memory_channels": (4,),
        "activation": "leaky",
        "partitions": (1,),
        "items": (10,),
        "seeding": "features",
        "temperature": 0.1,
        "error": "squared",
        "loss": "mse",
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
# The paper states a rate of 0.002 and batches of 20, and no budget.
PRESETS["paper"] = PRESETS["object"] | {
    "widths": (64, 128, 256, 512, 512),
    "train_steps": 20_000,
    "renormalise": False,
    "aspect": "square",
}


@parameters
class PMB(Detector):
    """Partition memory bank autoencoder with histogram error estimation.

    A U-Net-like autoencoder is trained from scratch to reconstruct normal images. Its finest p levels reach the decoder
    only as reads from memories of normal features: every channel of every horizontal strip of such a feature map
    is a query, replaced by a weighted sum of learnt items (Eq. 2 to 5). Content missing from the memories is
    reconstructed badly. The unavoidable error is subtracted (Eq. 6); the rest is the map, and its sum the score.

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
        "defects_rank_above_normals": "training on photographs of a texture takes minutes, not a second"
    }

    size: int = param(
        None,
        Range(16, 4096, integer=True),
        doc=f"{SIZE_DOC[:-1]}; divisible by 2^(levels - 1).",
        preset=True,
    )
    preset: str = param(
        "surface",
        OneOf(tuple(PRESETS)),
        doc="Named set of parameters: the paper's settings for textures and objects of MVTec AD, MNIST and retinal OCT "
        "at a quarter of the widths; paper: objects at full width, to the letter.",
    )
    widths: tuple[int, ...] = param(
        None, Each(COUNT), doc="Channels per level, fine first; surplus values are not used.", preset=True
    )
    memory_channels: tuple[int, ...] | None = param(
        None,
        Each(COUNT),
        doc="Channels that reach each memory, by a 1x1 convolution; one value for all, none: those of the level. Few "
        "leave an image few numbers to be described by, while encoder and decoder stay wide.",
        optional=True,
        preset=True,
        when="memory=partition|position|block",
    )
    activation: Activation = param(
        "relu",
        OneOf(("relu", "leaky")),
        doc="Rectifier behind each convolution; leaky: slope 0.2 below zero.",
        preset=True,
    )
    levels: int = param(None, Range(1, 10, integer=True), doc="Number of levels, L.", preset=True)
    memory_levels: int = param(
        None,
        Range(0, 10, integer=True),
        doc="Number of finest levels that are read from a memory, p; deeper ones have skip connections.",
        preset=True,
    )
    memory: str = param(
        "partition",
        OneOf(("partition", "position", "block", "skip", "none")),
        doc="Content of the finest p levels: the paper's memory, a memory of positions (MemAE) or of blocks (DAAD), "
        "the encoder's features, or nothing.",
    )
    partitions: tuple[int, ...] = param(
        None,
        Each(COUNT),
        doc="Number k of strips of equal height, per level; one value for all.",
        preset=True,
        when="memory=partition",
    )
    items: tuple[int, ...] = param(
        None,
        Each(COUNT),
        doc="Number m of items per strip (or per memory of positions or blocks), per level; one value for all.",
        preset=True,
        when="memory=partition|position|block",
    )
    block: int = param(4, COUNT, doc="Side of the squares of memory=block, positions.", when="memory=block")
    seeding: str = param(
        "random",
        OneOf(("random", "features")),
        doc="First items: N(0, 0.02), or features of normals by the untrained encoder.",
        preset=True,
        when="memory=partition|position|block",
    )
    temperature: float = param(
        1.0,
        POSITIVE,
        doc="Temperature of the softmax of cosines (Eq. 3).",
        preset=True,
        when="memory=partition|position|block",
    )
    renormalise: bool = param(
        True,
        FLAG,
        doc="Scale the weights that Eq. 4 leaves to a sum of 1, as MemAE does.",
        preset=True,
        when="memory=partition|position|block",
    )
    error: str = param(
        "absolute",
        OneOf(("absolute", "squared")),
        doc="Error per pixel: Eq. 1's difference, or its square, from which nothing is subtracted.",
        preset=True,
    )
    error_share: float = param(
        0.5,
        Range(0.0, 1.0),
        doc="Share delta_H of an image's pixels, those of the smallest errors, whose mean error is subtracted.",
        when="error=absolute",
    )
    loss: Kind = param("mse+ssim", OneOf(KINDS), doc="Reconstruction loss: Eq. 9, or one of its terms.", preset=True)
    ssim_weight: float = param(0.1, Range(0.0), doc="Weight of the SSIM term, lambda_SSIM.", when="loss=mse+ssim")
    train_steps: int = param(None, COUNT, doc="Optimiser steps.", preset=True)
    train_batch: int = param(None, Range(2, integer=True), doc="Images per step.", preset=True)
    lr: float = param(0.002, POSITIVE, doc="Peak learning rate of Adam along one cosine.")
    cache_mb: int = param(1024, COUNT, doc="Memory for prepared images, MB.")

    def input_strides(self) -> tuple[int, int]:
        """Return the pixels that halve evenly on every level, and in strips and blocks on those with a memory."""
        found = [link or {} for link in links(self)]
        down = [link.get("partitions", link.get("block", 1)) << level for level, link in enumerate(found)]
        across = [link.get("block", 1) << level for level, link in enumerate(found)]
        return math.lcm(*down), math.lcm(*across)

    def _fit(
        self, learn: ImageSet, tune: ImageSet, labelled: Labelled | None, run: Run[Self]
    ) -> Generator[Record, None, Scorer]:
        p = run.params
        how: dict[str, Any] = {"error": p.error, "error_share": p.error_share, "activation": p.activation}
        scorer = new_scorer("PMB", run, learn.preprocessing.hw, p.widths, links(p), **how)
        # Nothing is tuned, so tune normals join the training.
        images = learn.joined(tune)
        if p.seeding == "features":
            seed_memories(scorer, images, run)

        def loss(images: Tensor) -> tuple[Tensor, Mapping[str, float]]:
            return reconstruction_loss(images, scorer.autoencoder(images), p.loss, p.ssim_weight), {}

        yield from train_autoencoder(scorer, loss, images, run)
        return scorer

    @classmethod
    def _build(cls, config: dict[str, Any]) -> Scorer:
        return ReconstructionScorer(config)


def links(p: PMB) -> list[dict[str, Any] | None]:
    """Return the modules between encoder and decoder, one per level, as :class:`ReconstructionScorer` takes them.

    Raises
    ------
    ParameterError
        If p exceeds L, or there are too few values of k or m.
    """
    if p.memory_levels > p.levels:
        raise ParameterError(f"PMB: memory_levels={p.memory_levels} exceeds levels={p.levels}; lower it")
    return [_link(p, level) for level in range(p.levels)]


def _link(p: PMB, level: int) -> dict[str, Any] | None:
    if level >= p.memory_levels or p.memory == "skip":
        return {"kind": "skip"}
    if p.memory == "none":  # The decoder needs an input at the deepest level.
        return {"kind": "skip"} if level == p.levels - 1 else None
    narrowed = {} if p.memory_channels is None else {"channels": _at("memory_channels", p.memory_channels, level)}
    shared = {
        **narrowed,
        "n_items": _at("items", p.items, level),
        "addressing": {"temperature": p.temperature, "renormalise": p.renormalise},
    }
    if p.memory == "partition":
        return {"kind": "partition", "partitions": _at("partitions", p.partitions, level), **shared}
    return {"kind": "block", "block": p.block if p.memory == "block" else 1, **shared}


def _at(name: str, values: tuple[int, ...], level: int) -> int:
    if 1 < len(values) <= level:
        raise ParameterError(
            f"PMB: {name}={values} has no value for level {level + 1}; give one per level, or one for all"
        )
    return values[0] if len(values) == 1 else values[level]
