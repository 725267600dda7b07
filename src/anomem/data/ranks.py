"""Fits on several ranks, as torchrun starts them: one fit, whose loading and backbone passes are divided.

Every rank runs the same fit with the same random numbers. Of each batch, a rank decodes its part of the images and
computes its part of the backbone's maps; both are gathered, in order, so that losses, memories and statistics see the
global batch on every rank. Gradients of gathered maps return to the rank that computed them, multiplied by the number
of ranks; gradients of parameters are then averaged over ranks: those of the backbone become the sum of its parts, those
of everything behind the maps stay as they are, equal on all ranks.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn

from anomem.errors import ParameterError

__all__ = ["average_gradients", "divided", "exchanged", "is_first", "joined", "maps_in_parts", "part_of"]

T = TypeVar("T")

_divided: ContextVar[bool] = ContextVar("divided", default=False)


def divided() -> bool:
    """Return True inside a fit on several ranks."""
    return _divided.get()


def is_first() -> bool:
    """Return True on the rank that writes files and prints; also without torchrun."""
    return int(os.environ.get("RANK", "0")) == 0


@contextmanager
def joined(device: str) -> Iterator[None]:
    """Join the ranks that torchrun has started, if any, for the fit inside.

    Raises
    ------
    ParameterError
        The ranks do not find each other.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or "RANK" not in os.environ:
        yield
        return
    from accelerate import PartialState

    state = PartialState(cpu=device == "cpu" or not torch.cuda.is_available())
    if state.num_processes != int(os.environ["WORLD_SIZE"]):
        raise ParameterError(f"torchrun: {os.environ['WORLD_SIZE']} ranks, of which {state.num_processes} joined")
    token = _divided.set(True)
    try:
        yield
    finally:
        _divided.reset(token)


def maps_in_parts(module: nn.Module, compute: Callable[[Tensor], list[Tensor]], images: Tensor) -> list[Tensor]:
    """Return ``compute(images)``, of which this rank computes its part where a fit is divided.

    Parameters
    ----------
    module : Module
        Module that `compute` runs.
    compute : callable
        Function from images (B, ...) to maps (B, ...), each row of its own image.
    images : Tensor
        (B, 3, H, W), equal on all ranks.

    Raises
    ------
    ParameterError
        Rows depend on each other: a layer normalises by the batch or drops values at random.
    """
    if not divided():
        return compute(images)
    _check_rows(module)
    rank, world = distributed.get_rank(), distributed.get_world_size()
    share = -(-len(images) // world)
    rows = torch.arange(rank * share, (rank + 1) * share).clamp_max(len(images) - 1)
    return [_gathered(part, len(images)) for part in compute(images[rows.to(images.device)])]


def part_of(items: list[T]) -> list[T]:
    """Return the items of this rank: every W-th."""
    return items[distributed.get_rank() :: distributed.get_world_size()]


def exchanged(own: list[T], fault: Exception | None = None) -> list[T]:
    """Return the items of all ranks in the order of `part_of`; raise the first rank's fault on all.

    Parameters
    ----------
    own : list
        Items of this rank.
    fault : exception, optional
        Error in making them.
    """
    found: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(found, fault or own)
    for part in found:
        if isinstance(part, Exception):
            raise part
    return [part[i] for i in range(max(map(len, found))) for part in found if i < len(part)]


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Average gradients over ranks; see the module's text."""
    for parameter in parameters:
        if parameter.grad is not None:
            distributed.all_reduce(parameter.grad)
            parameter.grad /= distributed.get_world_size()


def _check_rows(module: nn.Module) -> None:
    for layer in module.modules():
        if not layer.training:
            continue
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            problem = "batch normalisation in training sees its rank's part of the batch only"
        elif getattr(layer, "p", 0) and isinstance(layer, nn.modules.dropout._DropoutNd):
            problem = "dropout draws other values for each rank's part of the batch"
        else:
            continue
        raise ParameterError(f"torchrun: {problem}; fit in one process, or take a pretrained backbone")


class _Gather(torch.autograd.Function):
    """Rows of all ranks; the gradient of a rank's rows, times the number of ranks."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, count: int) -> Tensor:
        ctx.rows, ctx.count = len(own), count
        sent = own.contiguous()
        as_bytes = sent.view(torch.uint8)  # gloo knows no bfloat16
        parts = [torch.empty_like(as_bytes) for _ in range(distributed.get_world_size())]
        distributed.all_gather(parts, as_bytes)
        return torch.cat(parts)[:count].view(own.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (gradient,) = gradients
        start = distributed.get_rank() * ctx.rows
        own = gradient.new_zeros((ctx.rows, *gradient.shape[1:]))
        part = gradient[start : start + ctx.rows]
        own[: len(part)] = part * distributed.get_world_size()
        return own, None


def _gathered(own: Tensor, count: int) -> Tensor:
    """Gather rows in their memory layout, which decides the rounding of what follows."""
    if own.ndim == 4 and own.is_contiguous(memory_format=torch.channels_last):
        gathered: Tensor = _Gather.apply(own.permute(0, 2, 3, 1), count)
        return gathered.permute(0, 3, 1, 2)
    return _Gather.apply(own, count)  # type: ignore[no-any-return]
