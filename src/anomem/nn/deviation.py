"""Deviations from a multi-scale memory of normality: AnoMem's second stage before labels have a say."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anomem.nn.hopfield import HopfieldMemory
from anomem.nn.normalise import Normaliser

Reduction = Literal["l2", "max", "top"]


class ScaleMemory(nn.Module):
    """One scale: neighbourhood average, normalisation, memory, and what is left over.

    Parameters
    ----------
    channels : int
        C of the backbone's map.
    hw : tuple of int
        Its height and width.
    n_items : int
        Items of the memory; 0: no memory, the recollection is the mean (zero in whitened space).
    neighbourhood : int
        Side of the average pooling (stride 1) that gives each position its surroundings; odd, 1: off.
    normalise : {"whiten", "unit", "layernorm", "raw"}
        In which space vectors are compared.
    position_mean : bool
        Whether whitening subtracts a mean of each position (aligned objects) instead of one mean.
    beta, steps, association
        As for :class:`~anomem.nn.hopfield.HopfieldMemory`.
    """

    def __init__(
        self,
        channels: int,
        hw: tuple[int, int],
        *,
        n_items: int,
        neighbourhood: int,
        normalise: Any,
        position_mean: bool,
        beta: float,
        steps: int | None,
        association: Any,
    ) -> None:
        super().__init__()
        self.neighbourhood = neighbourhood if min(hw) > 1 else 1
        self.normaliser = Normaliser(normalise, channels, hw if position_mean else None)
        self.memory = (
            HopfieldMemory(n_items, channels, beta=beta, steps=steps, association=association)
            if n_items
            else None
        )

    def gather(self, maps: Tensor) -> Tensor:
        """Average each position with its neighbours; borders average what there is. Float32."""
        maps = maps.float()
        if self.neighbourhood == 1:
            return maps
        side = self.neighbourhood
        return F.avg_pool2d(maps, side, stride=1, padding=side // 2, count_include_pad=False)

    def embed(self, maps: Tensor) -> Tensor:
        """(B, C, h, w) features to the space of the association."""
        return self.normaliser(self.gather(maps))

    def recall(self, vectors: Tensor) -> Tensor:
        """HF(z) for vectors (..., C) of that space."""
        return torch.zeros_like(vectors) if self.memory is None else self.memory(vectors)

    def forward(self, maps: Tensor) -> Tensor:
        """Delta = z - HF(z) at every position (Eq. 8): (B, C, h, w) to (B, C, h, w)."""
        z = self.embed(maps).permute(0, 2, 3, 1)
        return (z - self.recall(z)).permute(0, 3, 1, 2)


class MapFusion(nn.Module):
    """Deviation norms of several scales to one map and one score (Eq. 9 and 13).

    Parameters
    ----------
    hws : list of tuple of int
        Height and width of each scale's map.
    weights : list of float
        lambda of each scale.
    size : int
        Side of the model's input, pixels.
    reduction : {"l2", "max", "top"}
        "l2": the paper's L2 norm over each scale's map, scales fused afterwards. "max" and "top": maximum, or mean of the
        highest `top` share, of the fused map.
    top : float
        That share.
    smoothing : float
        Standard deviation of the Gaussian on the fused map, in pixels of the model's input; 0: none.
    standardise : bool
        Whether each scale is standardised (mean 0, deviation 1 on tune normals) before the fusion.

    Notes
    -----
    The buffers ``position_mean``, ``position_std`` (of the norm at each position) and ``score_mean``, ``score_std`` (of
    the L2 norm over a map) hold one entry a scale and are learnt by :meth:`standardise_on`.
    """

    def __init__(
        self,
        hws: list[tuple[int, int]],
        weights: list[float],
        *,
        size: int,
        reduction: str,
        top: float,
        smoothing: float,
        standardise: bool,
    ) -> None:
        super().__init__()
        self.reduction, self.top, self.standardise = reduction, top, standardise
        self.spatial = [min(hw) > 1 for hw in hws] if any(min(hw) > 1 for hw in hws) else [True] * len(hws)
        finest = max(max(hw) for hw in hws)
        self.grid = min(size, 2 * finest) if finest > 1 else 1
        scales = len(hws)
        self.register_buffer("weights", torch.tensor(weights, dtype=torch.float32))
        self.register_buffer("statistics", _neutral(scales))
        self.register_buffer("kernel", _gaussian(smoothing * self.grid / size))

    weights: Tensor
    statistics: Tensor
    kernel: Tensor

    def standardise_on(self, norms: list[list[Tensor]]) -> None:
        """Learn each scale's statistics from the norm maps (B, h, w) of tune normals, batch by batch."""
        if not self.standardise:
            return
        rows = []
        for scale_norms in zip(*norms, strict=True):
            maps = torch.cat([m.double().cpu() for m in scale_norms])
            totals = maps.square().sum(dim=(1, 2)).sqrt()
            rows.append([maps.mean(), _spread(maps), totals.mean(), _spread(totals)])
        self.statistics.copy_(torch.tensor(rows))

    def forward(self, norms: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Fuse norm maps [(B, h_s, w_s)] to a score (B,) and a map (B, g, g)."""
        fused = self._fused_map(norms)
        if self.reduction == "l2":
            return self._fused_totals(norms), fused
        if self.reduction == "max":
            return fused.amax(dim=(1, 2)), fused
        flat = fused.flatten(1)
        count = max(1, round(self.top * flat.shape[1]))
        return flat.topk(count, dim=1).values.mean(dim=1), fused

    def _fused_totals(self, norms: list[Tensor]) -> Tensor:
        """Eq. 9 at each scale, standardised, then Eq. 13."""
        totals = torch.stack([n.square().sum(dim=(1, 2)).sqrt() for n in norms], dim=1)
        standard = (totals - self.statistics[:, 2]) / self.statistics[:, 3]
        return (standard * self.weights).sum(dim=1) / self.weights.sum()

    def _fused_map(self, norms: list[Tensor]) -> Tensor:
        """Norms per position, standardised, up-sampled, fused with lambda (Eq. 13), smoothed."""
        total, weight = torch.zeros(()), torch.zeros(())
        for s, norm in enumerate(norms):
            if not self.spatial[s]:
                continue
            standard = (norm - self.statistics[s, 0]) / self.statistics[s, 1]
            total = total + self.weights[s] * _resized(standard[:, None], self.grid)
            weight = weight + self.weights[s]
        return smooth(total / weight, self.kernel)[:, 0]


def smooth(maps: Tensor, kernel: Tensor) -> Tensor:
    """Blur (B, 1, h, w) maps by a separable Gaussian; borders are replicated."""
    reach = kernel.numel() // 2
    if reach == 0:
        return maps
    padded = F.pad(maps, (reach, reach, reach, reach), mode="replicate")
    return F.conv2d(F.conv2d(padded, kernel.view(1, 1, -1, 1)), kernel.view(1, 1, 1, -1))


def _resized(maps: Tensor, side: int) -> Tensor:
    return F.interpolate(maps, size=(side, side), mode="bilinear", align_corners=False)


def _gaussian(sigma: float) -> Tensor:
    if sigma <= 0:
        return torch.ones(1)
    reach = math.ceil(3 * sigma)
    weights = torch.exp(-torch.arange(-reach, reach + 1, dtype=torch.float32).square() / (2 * sigma**2))
    return weights / weights.sum()


def _neutral(scales: int) -> Tensor:
    """Statistics that change nothing: mean 0 and deviation 1, of positions and of totals."""
    return torch.tensor([0.0, 1.0, 0.0, 1.0]).repeat(scales, 1)


def _spread(values: Tensor) -> Tensor:
    """Standard deviation with a floor, so that constant deviations do not divide by zero."""
    return values.std(correction=0).clamp_min(1e-6 * (1 + values.abs().mean()))
