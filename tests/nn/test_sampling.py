"""Uniform sample of a stream: exact, uniform, bounded."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from anomem.nn.sampling import VectorSample


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _stream(count: int, side: int = 3) -> list[Tensor]:
    """`count` batches of two maps whose vectors say their place in the stream."""
    numbers = torch.arange(count * 2 * side * side, dtype=torch.float32)
    return [part.reshape(2, 1, side, side) for part in numbers.split(2 * side * side)]


def test_a_short_stream_is_kept_whole_in_order() -> None:
    sample = VectorSample(100, _generator())
    for maps in _stream(3):
        sample.add(maps)
    vectors, positions = sample.result()
    assert vectors[:, 0].tolist() == list(range(54))
    assert positions.tolist() == list(range(9)) * 6
    assert sample.seen == 54


@pytest.mark.parametrize("limit", [1, 7, 50])
def test_the_smallest_keys_stay(limit: int) -> None:
    sample, keys = VectorSample(limit, _generator(3)), _generator(3)
    drawn = []
    for maps in _stream(40):
        sample.add(maps)
        drawn.append(torch.rand(18, generator=keys))
    vectors, positions = sample.result()
    expected = torch.cat(drawn).argsort()[:limit].sort().values
    assert vectors[:, 0].tolist() == expected.tolist()
    assert positions.tolist() == (expected % 9).tolist()


def test_every_vector_is_equally_likely() -> None:
    counts = torch.zeros(360)
    for seed in range(400):
        sample = VectorSample(36, _generator(seed))
        for maps in _stream(20):
            sample.add(maps)
        counts[sample.result()[0][:, 0].long()] += 1
    # 400 draws of probability 0.1: chi-square with 359 degrees of freedom, scaled by 0.9.
    chi_square = float(((counts - 40) ** 2 / (40 * 0.9)).sum())
    assert 270 < chi_square < 460


def test_memory_is_bounded() -> None:
    sample = VectorSample(10, _generator())
    for maps in _stream(200):
        sample.add(maps)
        assert sum(len(v) for v in sample._vectors) <= 2 * 10 + 18
    assert sample.seen == 3600


def test_results_may_be_asked_for_midway() -> None:
    one, other = VectorSample(10, _generator(1)), VectorSample(10, _generator(1))
    for maps in _stream(20):
        one.add(maps)
        other.add(maps)
        other.result()
    assert torch.equal(one.result()[0], other.result()[0])


def test_of_equal_keys_the_first_stay() -> None:
    sample = VectorSample(5, _generator())
    sample.add(torch.arange(6.0).reshape(1, 1, 2, 3))
    sample._keys[:6] = torch.tensor([0.5, 0.1, 0.5, 0.2, 0.5, 0.3])
    vectors, positions = sample.result()
    assert vectors[:, 0].tolist() == [0, 1, 2, 3, 5]
    assert positions.tolist() == [0, 1, 2, 3, 5]
