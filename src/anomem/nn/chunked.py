"""Parallel computation of a batch: each core computes some of the images.

torch spreads every single operation over all cores, which wait for one another after each; most operations of a small
backbone are too short for that, and a batch's maps do not fit a core's cache. A few images per core avoid both costs.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar, copy_context
from functools import cache
from threading import Barrier
from typing import Any, TypeVar

import torch
from torch import Tensor

from anomem.nn.tracing import exporting

__all__ = ["side_by_side"]

T = TypeVar("T")

PIECE = 4 * 3 * 224 * 224
"""Number of values per core at a time, four images of 224 px: fewer are all overhead, more exceed its cache."""

_alone: ContextVar[bool] = ContextVar("alone", default=False)
"""True in threads that compute a piece: nested calls run inline; otherwise the pool would deadlock."""


def side_by_side(function: Callable[[Tensor], T], images: Tensor) -> T:
    """Apply a function to a batch, in pieces side by side on a processor of several cores.

    Parameters
    ----------
    function : callable
        Function from (B, ...) to a tensor, or a list or named tuple of tensors and None, each (B, ...); images are
        independent of each other, and calls from several threads are safe.
    images : Tensor
        Batch, (B, ...).

    Returns
    -------
    The function's result for the whole batch, beyond rounding. With gradients, on another device, in a graph that is
    being exported, for few images or with one thread of torch it is called once, with all.
    """
    if exporting() or images.device.type != "cpu" or torch.is_grad_enabled() or _alone.get():
        return function(images)  # Before any look at the size, which a graph leaves open.
    threads, least = torch.get_num_threads(), min(-(-images.numel() // PIECE), len(images))
    if threads == 1 or least < 2:
        return function(images)
    state = torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")
    pieces = images.chunk(-(-least // threads) * threads)  # Equally many per core.
    pool = _pool(threads)
    found = [pool.submit(copy_context().run, _as_here, state, function, piece) for piece in pieces]
    with torch.autocast("cpu", enabled=False):  # Types are inspected before results are put together.
        joined: T = _joined([each.result() for each in found])
    return joined


def _as_here(state: tuple[bool, bool, torch.dtype], function: Callable[[Tensor], T], piece: Tensor) -> T:
    """Call a function in the modes of the calling thread; torch keeps modes per thread."""
    _alone.set(True)
    inference, mixed, dtype = state
    with torch.inference_mode(inference), torch.no_grad(), torch.autocast("cpu", dtype, enabled=mixed):
        return function(piece)


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """Return a pool of threads that compute with one core each; torch's own number of threads is restored."""
    together = Barrier(threads)

    def alone() -> None:
        torch.get_num_threads()  # Otherwise a thread takes the common number when it first computes.
        torch.set_num_threads(1)  # Sets this thread's number, and the default of new threads, which is restored below.
        together.wait()

    pool = ThreadPoolExecutor(threads, thread_name_prefix="anomem")
    for started in [pool.submit(alone) for _ in range(threads)]:
        started.result()
    torch.set_num_threads(threads)
    return pool


def _compute_alone() -> None:
    """Compute with one thread in a forked process, where torch would deadlock waiting for threads of its parent."""
    _pool.cache_clear()
    torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_compute_alone)


def _joined(parts: list[Any]) -> Any:
    first = parts[0]
    if first is None or isinstance(first, Tensor):
        return None if first is None else torch.cat(parts)
    columns = [_joined(list(column)) for column in zip(*parts, strict=True)]
    return type(first)(*columns) if hasattr(first, "_fields") else columns
