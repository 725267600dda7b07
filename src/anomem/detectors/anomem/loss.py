"""AnoMem's losses as pure functions, with the papers' equation numbers.

Eq. 2 to 12 are those of AnoMem (Jezequel, Vu, Beaudet, Histace, "Anomaly Detection via Multi-Scale Contrasted Memory").
The paper writes y = 1 for normal; here, as everywhere in anomem, a label is 0 for normal and 1 for anomalous, and where
a loss only asks "normal or not" it takes a bool mask.

Shapes: P positions of a feature map, B images of a batch, C channels. Positions are a batch dimension: negatives and
moments are taken across the images at one position, never across positions. Losses of half-precision features are
computed in float32, under autocast too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from anomem.errors import ParameterError
from anomem.nn.contrastive_loss import barlow_twins, full_precision, nt_xent

Base = Literal["simclr", "barlow"]
VarianceKind = Literal["batch", "sample"]


_VARIANCE_FLOOR = 1e-20
"""Constant added under the root of Eq. 6. It must be far below the variance of almost coinciding retrievals:
there the root's steep slope separates them."""


def variance_loss(
    retrieved: Tensor, normal: Tensor, kind: VarianceKind = "batch", hinge: bool = False, unit: bool | None = None
) -> Tensor:
    """Return the variance loss, Eq. 6, that keeps the retrieved prototypes apart.

    Eq. 6 does not say over what the variance runs. ``"batch"`` (the default) takes the standard deviation of each
    channel over the normal images, and its mean over channels: it falls to zero exactly when all retrievals coincide.
    ``"sample"`` takes the variance within each retrieved vector, as printed; it cannot see that vectors coincide, and
    so cannot prevent collapse.

    Eq. 6 has no lower bound while a cosine loss ignores the scale, so that the norm of the prototypes could grow
    without limit. By default retrievals are scaled to unit norm first; with ``hinge`` they stay, and each term is
    max(0, 1 - std) (VICReg). The printed form is ``kind="sample", unit=False``.

    Parameters
    ----------
    retrieved : Tensor, (P, B, C), floating
        Retrievals of every image; rows of anomalous images are ignored.
    normal : Tensor, (B,), bool
        True for normal images.
    kind : {"batch", "sample"}
        Elements of the variance: the batch per channel, or the channels per vector.
    hinge : bool
        Use max(0, 1 - std) in place of -std.
    unit : bool or None
        Scale retrievals to unit norm first. None: unless ``hinge`` is set.

    Returns
    -------
    Tensor, ()
        Mean over positions; 0 if no image is normal. Population variances.

    Raises
    ------
    ParameterError
        If ``kind`` is unknown.
    """
    features = full_precision(retrieved)
    if unit or (unit is None and not hinge):
        features = F.normalize(features, dim=-1)
    weight = normal.to(features.dtype)
    share = weight / weight.sum().clamp_min(1)
    if kind == "batch":
        mean = torch.einsum("b,pbc->pc", share, features)
        squares = (features - mean[:, None]).square()
        deviation = (torch.einsum("b,pbc->pc", share, squares) + _VARIANCE_FLOOR).sqrt()
        value = _variance_term(deviation, hinge).mean()
    elif kind == "sample":
        deviation = (features.var(dim=-1, correction=0) + _VARIANCE_FLOOR).sqrt()
        value = (_variance_term(deviation, hinge) @ share).mean()
    else:
        raise ParameterError(f"kind must be 'batch' or 'sample', got {kind!r}")
    return value * normal.any()


def _variance_term(deviation: Tensor, hinge: bool) -> Tensor:
    return F.relu(1 - deviation) if hinge else -deviation


def contrasted_memory_loss(
    z: Tensor,
    z_other: Tensor,
    retrieved: Tensor,
    normal: Tensor,
    *,
    base: Base = "simclr",
    temperature: float = 0.1,
) -> Tensor:
    """Return the contrasted memory loss between one view, passed through the memory, and the other, Eq. 3 and 4.

    Mem(z) is the retrieval for a normal image and z itself for an anomalous one (Eq. 3): labelled anomalies are
    contrasted, but never memorised.

    Parameters
    ----------
    z, z_other : Tensor, (P, B, C), floating
        Features of the two views.
    retrieved : Tensor, (P, B, C), floating
        HF(z).
    normal : Tensor, (B,), bool
        True for normal images.
    base : {"simclr", "barlow"}
        The contrastive loss: NT-Xent or cross-correlation.
    temperature : float, > 0
        tau of NT-Xent; unused by "barlow".

    Returns
    -------
    Tensor, ()
        Mean over positions.

    Raises
    ------
    ParameterError
        If ``base`` is unknown or the temperature is not positive.
    """
    remembered = torch.where(normal[:, None], retrieved, z.to(retrieved.dtype))
    if base == "simclr":
        return nt_xent(remembered, z_other, temperature)
    if base == "barlow":
        return barlow_twins(remembered, z_other)
    raise ParameterError(f"base must be 'simclr' or 'barlow', got {base!r}")


def sample_positions(h: int, w: int, ratio: float, generator: torch.Generator) -> Tensor:
    """Draw Omega of Eq. 7: positions of one scale, without replacement.

    Parameters
    ----------
    h, w : int, >= 1
        Height and width of the feature map.
    ratio : float, in (0, 1]
        Share r of the positions.
    generator : torch.Generator
        CPU generator; the only source of randomness.

    Returns
    -------
    Tensor, (P,), int64, CPU
        Flat positions ``i * w + j`` in rising order; P = floor(h w r), at least 1.

    Raises
    ------
    ParameterError
        If the ratio is outside (0, 1].

    Examples
    --------
    >>> sample_positions(8, 8, 0.3, torch.Generator().manual_seed(0)).numel()
    19
    >>> sample_positions(2, 2, 1.0, torch.Generator().manual_seed(0))
    tensor([0, 1, 2, 3])
    """
    if not 0 < ratio <= 1:
        raise ParameterError(f"sampling ratio must be above 0 and at most 1, got {ratio}")
    # The tiny addend undoes rounding: 100 * 0.29 is 28.999999999999996.
    count = max(1, math.floor(h * w * ratio + 1e-9))
    return torch.randperm(h * w, generator=generator)[:count].sort().values


def multi_scale_contrasted_memory_loss(
    maps: Sequence[Tensor],
    maps_other: Sequence[Tensor],
    memories: Sequence[Callable[[Tensor], Tensor]],
    normal: Tensor,
    *,
    ratios: Sequence[float],
    generator: torch.Generator,
    base: Base = "simclr",
    temperature: float = 0.1,
    variance: VarianceKind = "batch",
    hinge: bool = False,
    unit: bool | None = None,
    variance_weight: float = 0.05,
    scale_weights: Sequence[float] | None = None,
    projections: Sequence[Callable[[Tensor], Tensor]] | None = None,
) -> Tensor:
    """Return the contrasted memory loss at sampled positions of several scales, Eq. 7.

    Parameters
    ----------
    maps, maps_other : sequence of S Tensors, (B, C_s, h_s, w_s), floating
        Feature maps of the two views, early scales first.
    memories : sequence of S callables
        HF per scale: (P, B, C_s) -> (P, B, C_s); called once each.
    normal : Tensor, (B,), bool
        True for normal images.
    ratios : sequence of S floats, in (0, 1]
        Sampling ratio r per scale.
    generator : torch.Generator
        CPU generator of the positions.
    base, temperature
        As in `contrasted_memory_loss`.
    variance, hinge, unit
        ``kind``, ``hinge`` and ``unit`` of `variance_loss`.
    variance_weight : float, >= 0
        lambda_V.
    scale_weights : sequence of S floats or None
        lambda_s; None: 2^(s-1) = 1, 2, 4, ...
    projections : sequence of S callables or None
        Projection heads, (P, B, C_s) -> (P, B, D): their output is contrasted; the memory's input (kept
        varied) is not. The paper has none.

    Returns
    -------
    Tensor, ()
        The sum over all sampled positions of all scales, divided by their number.

    Raises
    ------
    ParameterError
        If a choice is unknown or a value outside its range.
    """
    losses = scale_losses(
        maps,
        maps_other,
        memories,
        normal,
        ratios=ratios,
        generator=generator,
        base=base,
        temperature=temperature,
        variance=variance,
        hinge=hinge,
        unit=unit,
        variance_weight=variance_weight,
        projections=projections,
    )
    return mean_over_positions(losses, scale_weights)


@dataclass(frozen=True)
class ScaleLoss:
    """Loss of one scale at its sampled positions.

    Parameters
    ----------
    n_positions : int
    contrast : Tensor, ()
        Eq. 4, mean over positions.
    total : Tensor, ()
        The same with the weighted variance loss, Eq. 6.
    retrieved : Tensor, (P, B, C)
        HF(z).
    """

    n_positions: int
    contrast: Tensor
    total: Tensor
    retrieved: Tensor


def scale_losses(
    maps: Sequence[Tensor],
    maps_other: Sequence[Tensor],
    memories: Sequence[Callable[[Tensor], Tensor]],
    normal: Tensor,
    *,
    ratios: Sequence[float],
    generator: torch.Generator,
    base: Base = "simclr",
    temperature: float = 0.1,
    variance: VarianceKind = "batch",
    hinge: bool = False,
    unit: bool | None = None,
    variance_weight: float = 0.05,
    projections: Sequence[Callable[[Tensor], Tensor]] | None = None,
) -> list[ScaleLoss]:
    """Return the terms of :func:`multi_scale_contrasted_memory_loss`, whose parameters these are, per scale."""
    heads: Sequence[Callable[[Tensor], Tensor]] = (
        projections if projections is not None else [torch.nn.Identity()] * len(maps)
    )
    found = []
    for z_map, other_map, memory, ratio, head in zip(maps, maps_other, memories, ratios, heads, strict=True):
        h, w = z_map.shape[-2:]
        positions = sample_positions(h, w, ratio, generator).to(z_map.device)
        z, z_other = _vectors_at(z_map, positions), _vectors_at(other_map, positions)
        retrieved = memory(z)
        contrast = contrasted_memory_loss(
            head(z), head(z_other), head(retrieved), normal, base=base, temperature=temperature
        )
        total = contrast
        if variance_weight:
            total = contrast + variance_weight * variance_loss(retrieved, normal, variance, hinge, unit)
        found.append(ScaleLoss(len(positions), contrast, total, retrieved))
    return found


def mean_over_positions(losses: Sequence[ScaleLoss], scale_weights: Sequence[float] | None = None) -> Tensor:
    """Return Eq. 7 from its terms per scale; `scale_weights` (lambda_s) None: 1, 2, 4, ..."""
    weights = scale_weights if scale_weights is not None else [2.0**s for s in range(len(losses))]
    weighted = [weight * loss.n_positions * loss.total for weight, loss in zip(weights, losses, strict=True)]
    return torch.stack(weighted).sum() / sum(loss.n_positions for loss in losses)


def double_hinge(distance: Tensor, label: Tensor, margin: float = 2.0) -> Tensor:
    """Return the double hinge of Eq. 11: normal distances below 1/M, anomalous ones above M.

    The loss is 0 on the correct side, so that anomalies do not diverge. In our labels (0 normal,
    1 anomalous; the paper has them the other way round): max(d - 1/M, 0) for a normal sample, max(M - d, 0) for an
    anomalous one.

    Parameters
    ----------
    distance : Tensor, (...), floating
        Anomaly distance d.
    label : Tensor, broadcastable to ``distance``
        0 normal, 1 anomalous, -1 unknown.
    margin : float, >= 1
        M.

    Returns
    -------
    Tensor, (...)
        One loss per sample, 0 where the label is unknown. Eq. 12 is its mean.

    Raises
    ------
    ParameterError
        If the margin is below 1: the two sides would overlap.

    Examples
    --------
    >>> double_hinge(torch.tensor([0.25, 1.0, 1.0, 3.0]), torch.tensor([0, 0, 1, 1]))
    tensor([0.0000, 0.5000, 1.0000, 0.0000])
    """
    if not margin >= 1:
        raise ParameterError(f"margin must be at least 1, got {margin}")
    normal_side = F.relu(distance - 1 / margin)
    anomalous_side = F.relu(margin - distance)
    return normal_side * (label == 0) + anomalous_side * (label == 1)


def _vectors_at(maps: Tensor, positions: Tensor) -> Tensor:
    """Return the vectors at the given positions, (B, C, h, w) to (P, B, C)."""
    return maps.flatten(2).index_select(2, positions).permute(2, 0, 1)
