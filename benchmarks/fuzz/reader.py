"""One reader under test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

__all__ = ["Reader"]


@dataclass(frozen=True)
class Reader:
    """Reader, and the inputs that it gets.

    Parameters
    ----------
    name : str
    runs : int
        Number of executions.
    make : callable
        Function from a random generator to an input.
    read : callable
        Function that reads an input; only anomem's errors are allowed.
    """

    name: str
    runs: int
    make: Callable[[Random], bytes]
    read: Callable[[bytes], None]
