"""Conversion of values to JSON types."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["plain"]


def plain(value: object, *, strict: bool = False) -> Any:
    """Convert mappings, sequences, arrays, paths and numpy scalars to JSON types; NaN and infinity become None.

    Parameters
    ----------
    value : object
    strict : bool
        Convert mappings, sequences and numpy scalars only; NaN and other values are unchanged, so that a strict writer
        refuses them.

    Raises
    ------
    TypeError
        A key is not text, and `strict`.

    Examples
    --------
    >>> plain({"a": (1, np.float32(0.5)), "b": Path("c"), "d": float("nan")})
    {'a': [1, 0.5], 'b': 'c', 'd': None}
    """
    if isinstance(value, Mapping):
        if strict and not all(isinstance(key, str) for key in value):
            raise TypeError("keys must be text")
        return {str(key): plain(entry, strict=strict) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(entry, strict=strict) for entry in value]
    if isinstance(value, np.generic):
        return plain(value.item(), strict=strict)
    if strict:
        return value
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value
