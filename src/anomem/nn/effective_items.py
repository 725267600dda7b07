"""Effective number of memory items in use."""

from __future__ import annotations

import torch
from torch import Tensor


def effective_items(usage: Tensor) -> float:
    """Return the effective number of items in use: exp of the entropy of the mean association.

    Parameters
    ----------
    usage : Tensor, (N,), floating
        Non-negative, sums to 1; from `HopfieldMemory.usage`.

    Returns
    -------
    float
        Number from 1 (one item serves all queries) to N (all items serve equally).

    Examples
    --------
    >>> round(effective_items(torch.full((8,), 0.125)), 6)
    8.0
    """
    return float(perplexity(usage.double()))


def perplexity(distribution: Tensor) -> Tensor:
    """Return exp of the entropy over the last axis, (..., N) to (...)."""
    return torch.exp(torch.special.entr(distribution).sum(dim=-1))
