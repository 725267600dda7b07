"""Contrastive losses of two views: NT-Xent and Barlow Twins."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from anomem.errors import ParameterError
from anomem.nn.precision import without_autocast

_CHUNK_ELEMENTS = 2**24
"""Number of elements of similarity matrices computed at once (64 MB in float32); above it, positions are processed in
chunks whose matrices are computed again in the backward pass instead of being stored."""

_BARLOW_EPSILON = 1e-5
"""Constant added to the variance in the cross-correlation, as in the batch normalisation of Barlow Twins."""


def nt_xent(anchor: Tensor, other: Tensor, temperature: float = 0.1) -> Tensor:
    """Return the normalised temperature-scaled cross entropy of two views, Eq. 2 with Eq. 5 (SimCLR).

    Both directions count, and each member of {anchor} u {other} has the 2B-1 other members at the same position in its
    denominator, its positive among them. No gradient is stopped.

    Parameters
    ----------
    anchor, other : Tensor, (P, B, C), floating
        The two views; row k of one belongs to row k of the other. Any scale: similarity is cosine.
    temperature : float, > 0
        tau.

    Returns
    -------
    Tensor, ()
        Mean over positions, images and both directions; 0 for B = 1.

    Raises
    ------
    ParameterError
        If the temperature is not positive.
    """
    if not temperature > 0:
        raise ParameterError(f"temperature must be above 0, got {temperature}")
    n_positions, n_images, _ = anchor.shape
    with without_autocast(anchor.device):
        unit = F.normalize(torch.cat([full_precision(anchor), full_precision(other)], dim=1), dim=-1)
        chunk_sum = partial(_nt_xent_sum, temperature=temperature)
        total = _sum_over_positions(chunk_sum, (unit,), (2 * n_images) ** 2)
        return total / (2 * n_images * n_positions)


def _nt_xent_sum(unit: Tensor, temperature: float) -> Tensor:
    """Return the sum of Eq. 5 over all members; unit: (P, 2B, C), the first B rows against the last B."""
    n_images = unit.shape[1] // 2
    logits = unit @ unit.transpose(1, 2) / temperature
    itself = torch.eye(2 * n_images, dtype=torch.bool, device=unit.device)
    denominators = logits.masked_fill_(itself, -math.inf).logsumexp(dim=-1)
    positives = (unit[:, :n_images] * unit[:, n_images:]).sum(dim=-1) / temperature
    return denominators.sum() - 2 * positives.sum()


def barlow_twins(anchor: Tensor, other: Tensor, off_diagonal_weight: float = 5e-3) -> Tensor:
    """Return the cross-correlation loss of two views (Zbontar et al., "Barlow Twins", ICML 2021, Eq. 1).

    Alternative to NT-Xent in Eq. 4. Each channel is standardised over the batch (population variance, 1e-5 added), c is
    the C x C cross-correlation of the two views, and the loss is sum_i (1 - c_ii)^2 + weight * sum_{i != j} c_ij^2.

    Parameters
    ----------
    anchor, other : Tensor, (P, B, C), floating
        The two views; row k of one belongs to row k of the other.
    off_diagonal_weight : float, >= 0
        Weight of the redundancy term (the paper's lambda).

    Returns
    -------
    Tensor, ()
        Mean over positions.
    """
    n_positions, n_images, n_channels = anchor.shape
    with without_autocast(anchor.device):
        pair = (_standardised(full_precision(anchor)), _standardised(full_precision(other)))
        chunk_sum = partial(_barlow_sum, off_diagonal_weight=off_diagonal_weight)
        total = _sum_over_positions(chunk_sum, pair, min(n_images, n_channels) ** 2)
        return total / n_positions


def _barlow_sum(anchor: Tensor, other: Tensor, off_diagonal_weight: float) -> Tensor:
    _, n_images, n_channels = anchor.shape
    diagonal = (anchor * other).mean(dim=1)
    if n_images < n_channels:
        # ||A^T B||^2 = <A A^T, B B^T>: two B x B matrices are smaller than one C x C.
        grams = (anchor @ anchor.transpose(1, 2)) * (other @ other.transpose(1, 2))
        all_squares = grams.sum() / n_images**2
    else:
        all_squares = (anchor.transpose(1, 2) @ other / n_images).square().sum()
    off_diagonal = all_squares - diagonal.square().sum()
    return (1 - diagonal).square().sum() + off_diagonal_weight * off_diagonal


def _standardised(features: Tensor) -> Tensor:
    variance, mean = torch.var_mean(features, dim=1, correction=0, keepdim=True)
    return (features - mean) / (variance + _BARLOW_EPSILON).sqrt()


def full_precision(features: Tensor) -> Tensor:
    """Convert half precision to float32; leave float32 and float64 as they are."""
    return features.float() if features.dtype in (torch.float16, torch.bfloat16) else features


def _sum_over_positions(
    function: Callable[..., Tensor], tensors: tuple[Tensor, ...], elements_per_position: int
) -> Tensor:
    """Return ``function(*tensors)``, a sum over the first dimension, in bounded memory."""
    n_positions = tensors[0].shape[0]
    step = max(1, _CHUNK_ELEMENTS // elements_per_position)
    if step >= n_positions:
        return function(*tensors)
    sums: list[Tensor] = []
    for start in range(0, n_positions, step):
        part = [tensor[start : start + step] for tensor in tensors]
        sums.append(checkpoint(function, *part, use_reentrant=False, preserve_rng_state=False))
    return torch.stack(sums).sum()
