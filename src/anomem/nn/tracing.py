"""Tracing and exporting in one thread, without effect on others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from threading import RLock, get_ident
from typing import Any

import torch
from torch.fx import _symbolic_trace

__all__ = ["exporting", "exporting_here", "private_tracing"]

# torch's own flag holds for the process: a thread that scores meanwhile would compute in another order.
_exporting: ContextVar[bool] = ContextVar("exporting", default=False)


def exporting() -> bool:
    """Return True while this thread traces or compiles: loops, sizes and branches would be frozen."""
    tracing = torch._C._get_tracing_state() is not None
    return torch.compiler.is_dynamo_compiling() or tracing or _exporting.get()


@contextmanager
def exporting_here() -> Iterator[None]:
    """Mark this thread as exporting while inside."""
    token = _exporting.set(True)
    try:
        yield
    finally:
        _exporting.reset(token)


_one_at_a_time = RLock()


@contextmanager
def private_tracing() -> Iterator[None]:
    """Trace or export modules inside while other threads compute.

    torch.fx replaces methods of ``nn.Module`` for the whole process while it traces; a model that another thread calls
    meanwhile would be recorded as a part of the traced one. Inside, replacements hold for this thread only, and one
    thread traces at a time.
    """
    with _one_at_a_time:
        patcher: Any = _symbolic_trace._Patcher
        plain = patcher.patch_method
        patcher.patch_method = _for_thread(plain, get_ident())
        try:
            yield
        finally:
            patcher.patch_method = plain


def _for_thread(patch_method: Callable[..., None], thread: int) -> Callable[..., None]:
    """Restrict a patch of a class's method to one thread; all others call the original."""

    def patch(patcher: Any, cls: type, name: str, new: Callable[..., Any], deduplicate: bool = True) -> None:
        before = getattr(cls, name)

        @wraps(new)
        def dispatched(*args: Any, **kwargs: Any) -> Any:
            return (new if get_ident() == thread else before)(*args, **kwargs)

        patch_method(patcher, cls, name, dispatched, deduplicate)

    return patch
