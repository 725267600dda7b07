"""Progress of long calls: the callback type, and a runner for generators of records."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from typing import TypeAlias, TypeVar

from anomem.types import Record

__all__ = ["Progress", "run_to_end"]

S = TypeVar("S")
T = TypeVar("T")
Progress: TypeAlias = Callable[[Record], object]
"""Callback for each record; an exception it raises ends the call without leaving partial results."""


def run_to_end(steps: Generator[S, None, T], each: Callable[[S], object] | None = None) -> T:
    """Run a generator to its end, pass its items to `each`, and return its value.

    Examples
    --------
    >>> def steps():
    ...     yield Record("count", 1, 1)
    ...     return "done"
    >>> run_to_end(steps(), lambda record: print(record.stage, record.step))
    count 1
    'done'
    """
    with closing(steps):
        while True:
            try:
                step = next(steps)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
            if each is not None:
                each(step)
