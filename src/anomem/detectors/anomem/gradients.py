"""Figures of a memory in training: its loss, how far its retrievals differ, and the gradients that reach its parts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from anomem.detectors.anomem.stage_one import ContrastedMemory


def memory_gradients(model: ContrastedMemory, first: Sequence[Tensor], second: Sequence[Tensor]) -> dict[str, float]:
    """Return figures of every scale for the embedded maps of two views of normal images.

    Parameters
    ----------
    model : ContrastedMemory
        Its items' gradients are not changed.
    first, second : sequence of Tensor, (B, C_s, h_s, w_s)
        Maps of the views; the first passes through the memory.

    Returns
    -------
    dict
        The figures of a training record, and with the scale's number behind ``gradient_ratio``: norm of the loss's
        gradient in the maps that pass through the memory, over that in the others. 0: no gradient reaches the
        backbone through the memory. ``item_gradient``: norm of the gradient in the items times the items' norm, over
        the same of the other maps: independent of scale; absent without a memory.
    """
    model.zero_grad()
    with torch.enable_grad():
        views = [[m.detach().float().requires_grad_() for m in maps] for maps in (first, second)]
        everyone = torch.ones(len(views[0][0]), dtype=torch.bool, device=views[0][0].device)
        value, figures = model.loss(views[0], views[1], everyone)
        value.backward()
    found = dict(figures)
    for s, scale in enumerate(model.scorer.memories(), start=1):
        ours, others = (_norm(maps[s - 1].grad) for maps in views)
        found[f"gradient_ratio_{s}"] = ours / max(others, 1e-30)
        if scale.memory is not None and not model.bypassed:
            items = scale.memory.items
            reach = max(others * _norm(views[1][s - 1]), 1e-30)
            found[f"item_gradient_{s}"] = _norm(items.grad) * _norm(items) / reach
    model.zero_grad()
    return found


def _norm(values: Tensor | None) -> float:
    return 0.0 if values is None else float(values.detach().norm())
