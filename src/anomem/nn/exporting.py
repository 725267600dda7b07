"""State of the current thread: it exports a graph, or computes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

__all__ = ["exporting", "exporting_here"]

# torch's own flag is the process's: a thread that scores meanwhile would compute in another order.
_exporting: ContextVar[bool] = ContextVar("exporting", default=False)


def exporting() -> bool:
    """Return True while this thread traces or compiles: a loop, a size or a branch of now would be fixed for ever."""
    return bool(torch.compiler.is_dynamo_compiling() or torch._C._get_tracing_state() or _exporting.get())


@contextmanager
def exporting_here() -> Iterator[None]:
    """Export inside, in this thread."""
    token = _exporting.set(True)
    try:
        yield
    finally:
        _exporting.reset(token)
