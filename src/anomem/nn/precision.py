"""Mixed precision: where autocast is on, and where it is not."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

__all__ = ["autocast", "without_autocast"]


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Return the context in which a forward pass runs in `precision` ("float32" or "bfloat16")."""
    if precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Return the context in which tensors keep their types, under autocast too.

    Where autocast is off nothing is switched: an export would record each switch as a graph of its own.
    """
    if not torch.is_autocast_enabled(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)
