"""Largest value per row, the inner loop of every recall by nearest item."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from anomem.nn.tracing import exporting

__all__ = ["largest"]


def largest(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return the largest value of each row, and the first index that has it: (M, N) to (M,) and (M,) int64.

    Examples
    --------
    >>> largest(torch.tensor([[1.0, 3.0, 3.0], [2.0, 0.0, 1.0]]))
    (tensor([3., 2.]), tensor([1, 0]))
    """
    if exporting() or rows.requires_grad or rows.device.type != "cpu" or rows.dtype == torch.bfloat16:
        values, indices = rows.max(dim=-1)
        return values, indices
    # torch compares one value at a time where indices are asked for; NumPy takes a ninth of the time.
    first = torch.from_numpy(np.argmax(rows.numpy(), axis=-1))
    return rows.gather(-1, first[:, None])[:, 0], first
