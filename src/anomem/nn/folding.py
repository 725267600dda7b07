"""Folding batch normalisation into the convolutions before it: the same function in fewer passes over memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


@torch.no_grad()
def fold_batch_norm(model: Any) -> None:
    """Fold every batch normalisation of a traced model that directly follows a convolution, in place.

    Parameters
    ----------
    model : GraphModule
        Traced model in evaluation mode; of a normalisation with an activation (timm's) the activation remains.

    Notes
    -----
    gamma (w x + b - mu) / sigma + beta = (gamma w / sigma) x + (b - mu) gamma / sigma + beta.
    """
    modules = dict(model.named_modules())
    for node in model.graph.nodes:
        norm = modules.get(str(node.target)) if node.op == "call_module" else None
        if not isinstance(norm, nn.BatchNorm2d):
            continue
        before = node.args[0]
        conv = modules.get(str(before.target)) if before.op == "call_module" else None
        if not isinstance(conv, nn.Conv2d) or len(before.users) > 1:
            continue
        conv.weight.data, bias = _folded(conv, norm)
        conv.bias = nn.Parameter(bias, requires_grad=conv.weight.requires_grad)
        model.set_submodule(str(node.target), _activation(norm))


def _folded(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    if norm.running_mean is None or norm.running_var is None:
        raise TypeError("batch normalisation: no running statistics to fold; load a backbone with them")
    gain = torch.rsqrt(norm.running_var + norm.eps) * norm.weight
    bias = torch.zeros_like(norm.running_mean) if conv.bias is None else conv.bias
    return conv.weight * gain[:, None, None, None], (bias - norm.running_mean) * gain + norm.bias


def _activation(norm: nn.BatchNorm2d) -> nn.Module:
    """Return what remains of a normalisation: its activation, which may overwrite the convolution's fresh output."""
    activation: nn.Module = getattr(norm, "act", nn.Identity())
    if hasattr(activation, "inplace"):
        setattr(activation, "inplace", True)  # noqa: B010
    return activation
