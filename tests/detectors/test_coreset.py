"""Farthest-first choice against a slow reference and its own guarantee."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from torch import Tensor

from anomem.detectors.anomem.seeding import farthest_first


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _slow(vectors: Tensor, k: int, first: int) -> list[int]:
    chosen = [first]
    while len(chosen) < k:
        distance = torch.stack([(vectors - vectors[c]).norm(dim=1) for c in chosen]).amin(dim=0)
        distance[chosen] = -1
        chosen.append(int(distance.argmax()))
    return chosen


def _radius(vectors: Tensor, chosen: Tensor) -> float:
    return float(torch.cdist(vectors, chosen).amin(dim=1).max())


def test_equals_a_slow_version() -> None:
    vectors = torch.randn(200, 5, generator=_generator())
    first = int(torch.randint(200, (1,), generator=_generator(4)))
    found = farthest_first(vectors, 20, _generator(4))
    assert torch.equal(found, vectors[_slow(vectors, 20, first)])


@pytest.mark.parametrize("seed", range(3))
def test_covers_at_most_twice_as_badly_as_the_best_choice(seed: int) -> None:
    vectors = torch.randn(12, 2, generator=_generator(seed))
    best = min(_radius(vectors, vectors[list(c)]) for c in combinations(range(12), 3))
    assert _radius(vectors, farthest_first(vectors, 3, _generator(seed))) <= 2 * best + 1e-6


def test_many_vectors_in_half_the_bytes_still_cover() -> None:
    centres = 10 * torch.randn(30, 16, generator=_generator())
    vectors = centres.repeat_interleave(50, dim=0) + 0.1 * torch.randn(1500, 16, generator=_generator(1))
    found = farthest_first(vectors, 30, _generator(2))
    assert sorted(torch.cdist(found, centres).argmin(dim=1).tolist()) == list(range(30))
    assert all((vectors == f).all(dim=1).any() for f in found), "real vectors, not rounded ones"


def test_rare_vectors_are_chosen_early() -> None:
    vectors = torch.randn(500, 4, generator=_generator())
    vectors[123] = 50.0
    assert (farthest_first(vectors, 2, _generator())[1] == 50).all()


def test_more_than_there_are_gives_all_once() -> None:
    vectors = torch.randn(5, 3, generator=_generator())
    assert sorted(farthest_first(vectors, 9, _generator())[:, 0].tolist()) == sorted(vectors[:, 0].tolist())
    same = torch.ones(4, 2)
    assert farthest_first(same, 3, _generator()).shape == (3, 2)


@pytest.mark.parametrize("lookahead", [1, 3, 64])
def test_looking_ahead_changes_no_choice(monkeypatch: pytest.MonkeyPatch, lookahead: int) -> None:
    vectors = torch.randn(3000, 8, generator=_generator()).square()
    usual = farthest_first(vectors, 200, _generator(1))
    monkeypatch.setattr("anomem.detectors.anomem.seeding.LOOKAHEAD", lookahead)
    assert torch.equal(farthest_first(vectors, 200, _generator(1)), usual)
