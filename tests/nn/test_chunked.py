"""Chunks of a batch, one per core: same results, same modes, same number of threads afterwards."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from threading import current_thread, main_thread
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from anomem.nn import chunked as module
from anomem.nn.chunked import side_by_side
from anomem.nn.scorer import Output
from anomem.nn.tracing import exporting_here
from tests.cli.process import completed, environment


@pytest.fixture(autouse=True)
def _two_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two cores, and four of `batch` a piece."""
    monkeypatch.setattr(module, "PIECE", 12)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


class Seen(NamedTuple):
    """What a call found around it, an entry an image."""

    values: Tensor
    count: Tensor
    threads: Tensor
    nothing: None = None


def look(images: Tensor) -> Seen:
    here = torch.full((len(images),), torch.get_num_threads())
    return Seen(images * 2, torch.full((len(images),), len(images)), here)


def batch(count: int) -> Tensor:
    return torch.arange(count * 3, dtype=torch.float32).view(count, 3)


@torch.no_grad()
def test_pieces_come_back_in_order_each_from_one_core() -> None:
    found = side_by_side(look, batch(11))
    assert isinstance(found, Seen)
    assert torch.equal(found.values, batch(11) * 2)
    assert found.count.tolist() == [3] * 9 + [2] * 2, "as many pieces for either core"
    assert found.threads.tolist() == [1] * 11, "a piece has a core to itself"
    assert found.nothing is None
    assert torch.get_num_threads() == 2
    lists = side_by_side(lambda images: [images, images + 1], batch(9))
    assert [torch.equal(a, b) for a, b in zip(lists, (batch(9), batch(9) + 1), strict=True)] == [True, True]


@torch.no_grad()
def test_one_call_where_there_is_nothing_to_share() -> None:
    def once(images: Tensor) -> Tensor:
        assert current_thread() is main_thread()
        return images

    assert len(side_by_side(once, batch(4))) == 4
    assert side_by_side(once, batch(32).view(1, 96)).shape == (1, 96), "all cores on the only image"
    torch.set_num_threads(1)
    assert len(side_by_side(once, batch(32))) == 32
    torch.set_num_threads(2)
    with torch.enable_grad():
        assert len(side_by_side(once, batch(32))) == 32


class Doubled(torch.nn.Module):
    """Something to export."""

    def forward(self, images: Tensor) -> Tensor:
        return side_by_side(lambda piece: piece * 2, images)


@torch.no_grad()
def test_a_graph_leaves_the_batch_open() -> None:
    shapes = {"images": {0: torch.export.Dim("batch", min=1)}}
    with exporting_here():
        program = torch.export.export(Doubled(), (batch(8),), dynamic_shapes=shapes)
    assert torch.equal(program.module()(batch(11)), batch(11) * 2)


@torch.no_grad()
def test_a_piece_within_a_piece_waits_for_nobody() -> None:
    def inner(images: Tensor) -> Tensor:
        assert len(images) == 16
        return images + 1

    def outer(images: Tensor) -> Tensor:
        return side_by_side(inner, images.repeat(4, 1))[: len(images)]

    assert torch.equal(side_by_side(outer, batch(8)), batch(8) + 1)


def test_the_modes_of_the_caller_hold() -> None:
    modes = []

    def product(images: Tensor) -> Output:
        modes.append((torch.is_inference_mode_enabled(), torch.is_grad_enabled()))
        return Output((images @ images.new_ones(3, 1))[:, 0], evidence=images.half())

    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        found = side_by_side(product, batch(8))
        assert (found.score.dtype, found.map) == (torch.bfloat16, None)
        assert torch.equal(found.evidence, batch(8).half())
    with torch.no_grad():
        assert side_by_side(product, batch(8)).score.dtype == torch.float32
    assert modes == [(True, False)] * 2 + [(False, False)] * 2


@torch.no_grad()
def test_an_error_reaches_the_caller() -> None:
    def fails(images: Tensor) -> Tensor:
        raise ValueError(f"of {len(images)}")

    with pytest.raises(ValueError, match="of 4"):
        side_by_side(fails, batch(8))
    assert torch.equal(side_by_side(torch.neg, batch(8)), -batch(8)), "the threads live on"


FORKED = """
import os, torch
from anomem.nn import chunked
chunked.PIECE = 12
torch.set_num_threads(2)
batch = torch.arange(24.0).view(8, 3)
with torch.no_grad():
    chunked.side_by_side(torch.neg, batch)
    child = os.fork()
    if not child:
        os._exit(0 if torch.equal(chunked.side_by_side(torch.neg, batch), -batch) else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_fork_has_threads_of_its_own() -> None:
    assert completed([sys.executable, "-c", FORKED], env=environment(), check=True).stdout == "0\n"
