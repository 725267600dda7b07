"""Suppression of library output during an export."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import get_ident
from typing import Any

__all__ = ["hushed"]


class _OthersOnly:
    """Stream that discards the output of one thread."""

    def __init__(self, stream: Any) -> None:
        self._stream, self._thread = stream, get_ident()

    def write(self, text: str) -> int:
        return len(text) if get_ident() == self._thread or self._stream is None else self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def hushed(*names: str) -> Iterator[None]:
    """Suppress library logs for developers, and the output of this thread."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    plain, sys.stdout = sys.stdout, _OthersOnly(sys.stdout)
    try:
        yield
    finally:
        sys.stdout = plain
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
