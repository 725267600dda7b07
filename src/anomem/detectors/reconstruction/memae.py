"""MemAE: an autoencoder whose code is read from a memory of normal features."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any, ClassVar, Self

from torch import Tensor

from anomem.data.imageset import ImageSet
from anomem.detector import Detector, Supervision
from anomem.detectors.reconstruction.loss import addressing_entropy, squared_error
from anomem.detectors.reconstruction.partition_memory import BlockMemory
from anomem.detectors.reconstruction.scorer import ReconstructionScorer, new_scorer, train_autoencoder
from anomem.fitting import Labelled, Run
from anomem.framing import SIZE_DOC
from anomem.nn.scorer import Scorer
from anomem.params import Each, OneOf, Range, param, parameters
from anomem.types import Record

COUNT = Range(1, integer=True)
POSITIVE = Range(0.0, low_open=True)

PRESETS: dict[str, dict[str, Any]] = {
    "surface": {
        "size": 128,
        "widths": (16, 32, 64, 128, 128),
        "items": 2000,
        "train_batch": 10,
        "train_steps": 2000,
    },
    "object": {"size": 64, "widths": (32, 64, 128, 128), "items": 500, "train_batch": 32, "train_steps": 2000},
    "digits": {"size": 32, "widths": (16, 32, 64, 64), "items": 100, "train_batch": 64, "train_steps": 2000},
}


@parameters
class MemAE(Detector):
    """Memory-augmented autoencoder.

    The code of a plain convolutional autoencoder, at each of its positions, is replaced by a weighted sum of learnt
    items. Weights are a softmax of cosines; those below a threshold are dropped and the others scaled to a sum of 1.
    The score is the squared error of the reconstruction, its map the error per pixel.

    References
    ----------
    Gong et al., "Memorizing Normality to Detect Anomaly: Memory-augmented Deep Autoencoder for Unsupervised Anomaly
    Detection", ICCV 2019.
    """

    name: ClassVar[str] = "memae"
    supervision: ClassVar[Supervision] = "none"
    localizes: ClassVar[bool] = True
    paper: ClassVar[str] = "Gong et al., Memorizing Normality to Detect Anomaly, 2019"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = PRESETS
    test_params: ClassVar[dict[str, Any]] = {
        "size": 16,
        "widths": (8, 16, 16),
        "items": 8,
        "train_steps": 60,
        "train_batch": 16,
        "lr": 0.01,
    }
    contract_skips: ClassVar[dict[str, str]] = {
        "defects_rank_above_normals": "training on photographs of a texture takes minutes, not a second",
        "maps_peak_on_defects": "training on photographs of a texture takes minutes, not a second",
    }

    size: int = param(None, Range(16, 4096, integer=True), doc=SIZE_DOC, preset=True)
    preset: str = param(
        "surface",
        OneOf(tuple(PRESETS)),
        doc="Named set of parameters: size, network and memory for 128, 64 and 32 pixels.",
    )
    widths: tuple[int, ...] = param(None, Each(COUNT), doc="Channels per level, fine first.", preset=True)
    items: int = param(None, COUNT, doc="Number of memory items, N.", preset=True)
    shrinkage: float = param(1.0, Range(0.0), doc="Threshold on the weights, in units of 1 / N.")
    temperature: float = param(1.0, POSITIVE, doc="Temperature of the softmax of cosines.")
    entropy_weight: float = param(0.0002, Range(0.0), doc="Weight of the entropy of the weights in the loss, alpha.")
    train_steps: int = param(None, COUNT, doc="Optimiser steps.", preset=True)
    train_batch: int = param(None, Range(2, integer=True), doc="Images per step.", preset=True)
    lr: float = param(0.0001, POSITIVE, doc="Peak learning rate of Adam along one cosine.")
    cache_mb: int = param(1024, COUNT, doc="Memory for prepared images, MB.")

    def input_strides(self) -> tuple[int, int]:
        """Return the pixels of one position of the deepest level."""
        return (1 << (len(self.widths) - 1),) * 2

    def _fit(
        self, learn: ImageSet, tune: ImageSet, labelled: Labelled | None, run: Run[Self]
    ) -> Generator[Record, None, Scorer]:
        p = run.params
        how = {"temperature": p.temperature, "threshold": p.shrinkage, "shrink": "cut"}
        memory = {"kind": "block", "block": 1, "n_items": p.items, "addressing": how}
        linked = [None] * (len(p.widths) - 1) + [memory]
        scorer = new_scorer("MemAE", run, learn.preprocessing.hw, p.widths, linked, error="squared")

        def loss(images: Tensor) -> tuple[Tensor, Mapping[str, float]]:
            reconstructed, weights = recall(scorer, images)
            error, entropy = squared_error(images, reconstructed), addressing_entropy(weights)
            return error + p.entropy_weight * entropy, {
                "error": float(error.detach()),
                "entropy": float(entropy.detach()),
            }

        yield from train_autoencoder(scorer, loss, learn, run)
        return scorer

    @classmethod
    def _build(cls, config: dict[str, Any]) -> Scorer:
        return ReconstructionScorer(config)


def recall(scorer: ReconstructionScorer, images: Tensor) -> tuple[Tensor, Tensor]:
    """Reconstruct images (B, 3, S, S), 0 to 1, and return the weights of the memory read, (1, B h w, N)."""
    model = scorer.autoencoder
    maps = model.encode(images)
    (memory,) = model.links.values()
    if not isinstance(memory, BlockMemory):
        raise TypeError("links: no memory at the deepest level; MemAE has its one memory there")
    read, weights = memory.look_up(maps[-1])
    return model.decode([None] * (len(maps) - 1) + [read]), weights
