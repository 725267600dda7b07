"""Scorer and training shared by the detectors that reconstruct an image."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from anomem.data.imageset import ImageSet
from anomem.detectors.reconstruction.autoencoder import Activation, Autoencoder
from anomem.detectors.reconstruction.partition_memory import Addressing, BlockMemory, Memory, PartitionMemory
from anomem.errors import ParameterError
from anomem.fitting import Run, Shared
from anomem.nn.scorer import Output, Scorer, frame_config, input_hw
from anomem.nn.views import Feed
from anomem.training import Recipe, train
from anomem.types import IntArray, Record

SEEDED_FROM = 64
"""Number of images whose features become first items."""

Loss = Callable[[Tensor], tuple[Tensor, Mapping[str, float]]]
"""Function from images (B, 3, S, S) of values 0 to 1 to the loss and the figures of a record."""


class Reconstructs(Shared, Protocol):
    """Resolved hyperparameters of a method that trains an autoencoder."""

    @property
    def train_steps(self) -> int:
        """Number of optimiser steps."""

    @property
    def train_batch(self) -> int:
        """Images per step."""

    @property
    def lr(self) -> float:
        """Peak learning rate."""

    @property
    def cache_mb(self) -> int:
        """Memory for prepared images, MB."""


class ReconstructionScorer(Scorer):
    """Reconstruction error of an autoencoder trained on normal images only.

    Parameters
    ----------
    config : dict
        ``size`` and ``input_hw`` (pixels), ``widths`` (channels per level), ``links`` (per level None, or a dict
        with ``kind`` "skip", "partition" or "block", a memory's arguments and ``channels``, to which a 1x1 convolution
        brings the map before it), ``activation``, ``error`` ("absolute" or "squared") and ``error_share`` (delta_H of
        the absolute error).
    generator : torch.Generator or None
        Generator of the memories' first items.
    """

    def __init__(self, config: dict[str, Any], generator: torch.Generator | None = None) -> None:
        super().__init__(config)
        if config["error"] not in ("absolute", "squared") or not 0 <= config["error_share"] <= 1:
            raise ParameterError(f"error={config['error']!r}, error_share={config['error_share']!r} is not allowed")
        links: dict[int, nn.Module] = {}
        height, width = input_hw(config)
        widths = config["widths"]
        carried = [(link or {}).get("channels", own) for link, own in zip(config["links"], widths, strict=True)]
        for level, link in enumerate(config["links"]):
            if link is not None:
                links[level] = _link(dict(link), widths[level], (height >> level, width >> level), generator)
        activation = config.get("activation", "relu")
        self.autoencoder = Autoencoder(widths, links, carried=carried, activation=activation)

    @property
    def grid_hw(self) -> tuple[int, int] | None:
        """Pixels of the input: every one has an error."""
        return input_hw(self.config)

    def reconstruct(self, images: Tensor) -> Tensor:
        """Reconstruct prepared images (B, 3, S, S), 0 to 255, as float32 of about 0 to 1."""
        reconstructed: Tensor = self.autoencoder(images.float() / 255)
        return reconstructed.float()

    def forward(self, images: Tensor) -> Output:
        """Score prepared images: the error per pixel, and its sum."""
        shown, reconstructed = images.float() / 255, self.reconstruct(images)
        if self.config["error"] == "squared":
            error = (shown - reconstructed).square().mean(dim=1)
        else:
            error = corrected_error(shown, reconstructed, self.config["error_share"])
        return Output(error.sum(dim=(1, 2)), error)


def _link(link: dict[str, Any], width: int, hw: tuple[int, int], generator: torch.Generator | None) -> nn.Module:
    kind = link.pop("kind")
    if kind not in ("skip", "partition", "block"):
        raise ParameterError(f"links: unknown kind {kind!r}")
    if kind == "skip":
        return nn.Identity()
    how, channels = Addressing(**link.pop("addressing")), link.pop("channels", None)
    memory: Memory
    if kind == "partition":
        memory = PartitionMemory(hw, **link, addressing=how, generator=generator)
    else:
        memory = BlockMemory(channels or width, hw, **link, addressing=how, generator=generator)
    return memory if channels is None else nn.Sequential(nn.Conv2d(width, channels, 1, bias=False), memory)


def new_scorer(
    method: str,
    run: Run[Reconstructs],
    hw: tuple[int, int],
    widths: Sequence[int],
    links: Sequence[dict[str, Any] | None],
    *,
    error: str = "absolute",
    error_share: float = 0.0,
    activation: Activation = "relu",
) -> ReconstructionScorer:
    """Build an untrained scorer for inputs of height and width `hw`, with one width and one link per level.

    Raises
    ------
    ParameterError
        If there are fewer widths than links, the levels do not halve the size evenly, or a memory does not divide its
        map.
    """
    halvings = len(links) - 1
    if len(widths) < len(links):
        raise ParameterError(f"{method}: widths={widths} are too few for {len(links)} levels; give one per level")
    if any(side % 2**halvings for side in hw):
        raise ParameterError(
            f"{method}: size={run.params.size} cannot be halved {halvings} times; give a multiple of {2**halvings}"
        )
    config = {
        **frame_config(hw, run.params.size),
        "widths": list(widths[: len(links)]),
        "links": list(links),
        "error": error,
        "error_share": error_share,
        "activation": activation,
    }
    return ReconstructionScorer(config, run.rng)


@torch.no_grad()
def seed_memories(scorer: ReconstructionScorer, learn: ImageSet, run: Run[Reconstructs]) -> None:
    """Set the items of all memories to queries that some normals make of the untrained encoder."""
    images = next(iter(learn.batches(SEEDED_FROM, _drawn(len(learn), SEEDED_FROM, run.rng)))).images
    scorer.to(run.device).train()
    maps = scorer.autoencoder.encode(images.to(run.device).float() / 255)
    for level, link in scorer.autoencoder.links.items():
        parts = list(link) if isinstance(link, nn.Sequential) else [link]
        memory, found = parts[-1], maps[int(level)]
        if isinstance(memory, Memory):
            for part in parts[:-1]:
                found = part(found)
            queries = memory.gather(found)
            chosen = _drawn(queries.shape[1], memory.items.shape[1], run.rng)
            memory.items.copy_(queries[:, torch.from_numpy(chosen).to(run.device)])


def _drawn(count: int, wanted: int, rng: torch.Generator) -> IntArray:
    """Return `wanted` of `count` positions, each once while there are enough."""
    order = torch.cat([torch.randperm(count, generator=rng) for _ in range(-(-wanted // count))])
    drawn: IntArray = order[:wanted].numpy()
    return drawn


def train_autoencoder(
    scorer: ReconstructionScorer, loss: Loss, learn: ImageSet, run: Run[Reconstructs]
) -> Generator[Record, None, None]:
    """Train on normals by Adam along one cosine."""
    p = run.params
    scorer.to(run.device)
    scorer.train()
    # Convolutions of bfloat16 are several times faster with the channels last.
    scorer.to(memory_format=torch.channels_last)

    def of_batch(batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Mapping[str, float]]:
        images = batch[0].to(run.device).float() / 255
        return loss(images.contiguous(memory_format=torch.channels_last))

    recipe = Recipe(p.train_steps, p.lr, "adamw")  # Without weight decay, AdamW is Adam.
    feed = Feed(learn, None, p.train_batch, p.cache_mb, run.rng)
    options: dict[str, Any] = {"device": run.device, "precision": run.fit_precision, "rng": run.rng}
    yield from train(scorer, of_batch, feed, recipe, **options)
    scorer.to(memory_format=torch.contiguous_format)  # Same state as after loading from a file.
    scorer.eval().requires_grad_(False)


def unavoidable_error(error: Tensor, share: float) -> Tensor:
    """Return mu, the mean of the smallest errors of an image, which the reconstruction makes on normal pixels too.

    Parameters
    ----------
    error : Tensor, (B, H, W)
        A = |X - X_R| per pixel, at least 0.
    share : float, from 0 to 1
        delta_H, the share of the pixels that count. 0: mu is 0.

    Returns
    -------
    Tensor, (B,)

    Examples
    --------
    >>> unavoidable_error(torch.tensor([[[1.0, 3.0], [2.0, 9.0]]]), 0.5)
    tensor([1.5000])
    """
    flat = error.flatten(1)
    count = round(share * flat.shape[1])
    if count == 0:
        return torch.zeros_like(flat[:, 0])
    return flat.topk(count, dim=1, largest=False, sorted=False).values.mean(dim=1)


def corrected_error(images: Tensor, reconstructed: Tensor, share: float) -> Tensor:
    """Return A', the absolute error, mean over channels, minus the unavoidable error (Eq. 1 and 6).

    Parameters
    ----------
    images, reconstructed : Tensor, (B, C, H, W), float32
        X and X_R.
    share : float, from 0 to 1
        delta_H.

    Returns
    -------
    Tensor, (B, H, W), at least 0
        Its sum is the anomaly score.
    """
    error = (images - reconstructed).abs().mean(dim=1)
    return (error - unavoidable_error(error, share)[:, None, None]).clamp_min(0)
