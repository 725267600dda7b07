"""Cached views: those beyond the budget are in a file, and equal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from anomem.nn.views import CachedViews


@dataclass(frozen=True)
class Given:
    """Ten images, four a batch, again and again."""

    cache_mb: int
    learn: range = range(10)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, 10_000, 4):
            yield torch.arange(start, start + 4), torch.ones(4, dtype=torch.bool)


def views_of(images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Two scales of 160 kB and 16 bytes an image."""
    first = [images[:, None].float().expand(-1, 80_000), images[:, None].float() / 8 + torch.arange(8)]
    return first, [m + 1 for m in first]


def parts(cache_mb: int) -> list[tuple[list[Tensor], list[Tensor], Tensor]]:
    cached = CachedViews(cast(Any, views_of), cast(Any, Given(cache_mb)))
    return list(islice(cached, len(cached._parts)))


def in_a_file(values: Tensor) -> bool:
    """Whether the system says that a tensor's memory belongs to a file."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, _, _, _, inode = line.split(maxsplit=5)[:5]
        start, end = (int(place, 16) for place in span.split("-"))
        if start <= values.data_ptr() < end:
            return inode != "0"
    raise AssertionError("nowhere in memory")


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="reads what Linux says of its memory")
def test_what_exceeds_the_budget_is_mapped_and_the_same() -> None:
    held, spilled = parts(1000), parts(1)
    assert (len(held), len(spilled)) == (5, 3), "two rounds within the budget, one beyond it"
    for part, (first, second, normal) in enumerate(spilled):
        for mine, theirs in zip((*first, *second), (*held[part][0], *held[part][1]), strict=True):
            assert torch.equal(mine, theirs)
            assert in_a_file(mine) == (part > 0), "what fits stays in memory"
        assert normal.all()
