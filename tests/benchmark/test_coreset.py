"""Picks of the pruned k-centre selection against the picks by all distances."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from benchmarks.peers.coreset import farthest_points


def by_all_distances(features: Tensor, count: int, first: int) -> list[int]:
    chosen = [first]
    while len(chosen) < count:
        far = [min(float((row - features[c]).norm()) for c in chosen) for row in features]
        chosen.append(max(range(len(features)), key=far.__getitem__))
    return chosen


@pytest.mark.parametrize("seed", range(4))
def test_pruned_picks_are_those_by_all_distances(seed: int) -> None:
    """Clusters of unlike width: some rows are pruned by the triangle inequality, others are not."""
    rng = torch.Generator().manual_seed(seed)
    centres = 5 * torch.randn(6, 8, generator=rng)
    spread = torch.rand(120, 1, generator=rng)
    features = centres[torch.randint(6, (120,), generator=rng)] + spread * torch.randn(120, 8, generator=rng)
    assert farthest_points(features, 40, seed) == by_all_distances(features, 40, seed)


def test_as_many_picks_as_rows_are_all_rows() -> None:
    features = torch.arange(7.0)[:, None] ** 2
    assert sorted(farthest_points(features, 7, 3)) == list(range(7))
