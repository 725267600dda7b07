"""Units that end their worker: an even one the first time, 5 always."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from anomem.scale.processes import Open


def opened(folder: Path) -> Open[int, int]:
    return partial(_opened, folder)


@contextmanager
def _opened(folder: Path) -> Iterator[Callable[[Sequence[int]], Iterator[int]]]:
    yield partial(_attempts, folder)


def _attempts(folder: Path, units: Sequence[int]) -> Iterator[int]:
    for unit in units:
        tried = len(list(folder.glob(f"{unit}-*")))
        (folder / f"{unit}-{tried}").touch()
        if unit == 5 or (unit % 2 == 0 and not tried):
            os._exit(3)
        yield 10 * unit
