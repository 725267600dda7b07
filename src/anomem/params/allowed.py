"""Allowed values of a hyperparameter: ranges, choices, texts, tuples.

Every declaration checks a value, describes what it accepts and gives an example that it accepts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np


class Allowed(Protocol):
    """Values that a parameter may take."""

    def accepts(self, value: object) -> bool:
        """Return true for an allowed value."""
        ...

    def example(self) -> object:
        """Return an allowed value."""
        ...

    def __str__(self) -> str:
        """Return the allowed values as the end of the sentence "expected ..."."""
        ...


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included unless excluded explicitly."""

    low: float = -math.inf
    high: float = math.inf
    integer: bool = False
    low_open: bool = False

    def accepts(self, value: object) -> bool:
        """Return true for a number of this range (a bool is not a number)."""
        kinds = (int, np.integer) if self.integer else (int, float, np.integer, np.floating)
        if isinstance(value, bool) or not isinstance(value, kinds) or not _is_finite(value):
            return False
        return bool((self.low < value if self.low_open else self.low <= value) and value <= self.high)

    def example(self) -> float:
        """Return the simplest number of this range."""
        ends = [end for end in (self.low, self.high) if math.isfinite(end)]
        middle = sum(ends) / max(1, len(ends))
        tried = [int(v) if float(v).is_integer() else v for v in (1, 0.5, *ends, middle)]
        return next(value for value in tried if self.accepts(value))

    def __str__(self) -> str:
        kind = "an integer" if self.integer else "a number"
        low = f" {'>' if self.low_open else '>='} {self.low:.10g}" if self.low > -math.inf else ""
        high = f" <= {self.high:.10g}" if self.high < math.inf else ""
        return kind + low + (" and" if low and high else "") + high


@dataclass(frozen=True)
class OneOf:
    """One of a few values."""

    values: tuple[Any, ...]

    def accepts(self, value: object) -> bool:
        """Return true for one of them, of the same type (so that 1 is not True)."""
        return any(type(value) is type(v) and value == v for v in self.values)

    def example(self) -> object:
        """Return the first of them."""
        return self.values[0]

    def __str__(self) -> str:
        return "one of " + ", ".join(repr(v) for v in self.values)


@dataclass(frozen=True)
class Text:
    """Any non-empty string; `like` is an example."""

    what: str = "a non-empty string"
    like: str = "text"

    def accepts(self, value: object) -> bool:
        """Return true for a non-empty string."""
        return isinstance(value, str) and bool(value)

    def example(self) -> str:
        """Return `like`."""
        return self.like

    def __str__(self) -> str:
        return self.what


@dataclass(frozen=True)
class FileOrArray:
    """A file's path, or an array that stands for its content."""

    what: str

    def accepts(self, value: object) -> bool:
        """Return true for a path or a two-dimensional array."""
        return isinstance(value, (str, Path)) or (isinstance(value, np.ndarray) and value.ndim == 2)

    def example(self) -> str:
        """Return a file's name."""
        return "mask.png"

    def __str__(self) -> str:
        return self.what


@dataclass(frozen=True)
class Each:
    """A tuple whose members all satisfy `item`; a fixed length by `length`."""

    item: Allowed
    length: int | None = None

    def accepts(self, value: object) -> bool:
        """Return true for such a tuple (a list counts: JSON has no tuples)."""
        if not isinstance(value, (tuple, list)) or not value:
            return False
        return self.length in (None, len(value)) and all(self.item.accepts(v) for v in value)

    def example(self) -> tuple[object, ...]:
        """Return a tuple of the item's example."""
        return (self.item.example(),) * (self.length or 1)

    def __str__(self) -> str:
        count = "a tuple" if self.length is None else f"{self.length} values"
        return f"{count}, each {self.item}"


@dataclass(frozen=True)
class Either:
    """A value that satisfies any of several declarations."""

    options: tuple[Allowed, ...]

    def accepts(self, value: object) -> bool:
        """Return true when any option accepts `value`."""
        return any(option.accepts(value) for option in self.options)

    def example(self) -> object:
        """Return the first option's example."""
        return self.options[0].example()

    def __str__(self) -> str:
        return ", or ".join(str(option) for option in self.options)


FLAG = OneOf((False, True))


def shown(value: object) -> str:
    """Return any value as text on one line."""
    if isinstance(value, np.ndarray):
        return f"<array {' x '.join(map(str, value.shape))}, {value.dtype}>"
    try:
        return " ".join(repr(value).split())
    except (ValueError, RecursionError):  # Numbers of thousands of digits, unlimited nesting.
        return f"<{type(value).__name__}>"


def shortened(value: object) -> str:
    """Return any value as text on one line of at most 120 characters."""
    text = shown(value)
    return text if len(text) <= 120 else f"{text[:100]}..."


def same(value: Any, default: Any) -> bool:
    """Return true for two equal values of one type; false for arrays."""
    if isinstance(value, np.ndarray):
        return False
    return type(value) is type(default) and bool(value == default)


def _is_finite(value: Any) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # A whole number beyond all floats.
        return False
