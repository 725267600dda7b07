"""Running generators that report their progress and return a result."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TypeVar

S = TypeVar("S")
T = TypeVar("T")

__all__ = ["exhaust"]


def exhaust(steps: Generator[S, None, T], each: Callable[[S], object] | None = None) -> T:
    """Run a generator to its end and return its result.

    Parameters
    ----------
    steps : generator
    each : callable, optional
        Called with everything that the generator yields.

    Examples
    --------
    >>> def counted():
    ...     yield from (1, 2)
    ...     return "done"
    >>> exhaust(counted(), print)
    1
    2
    'done'
    """
    while True:
        try:
            step = next(steps)
        except StopIteration as end:
            result: T = end.value
            return result
        if each is not None:
            each(step)
