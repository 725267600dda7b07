"""Collapse of the memory in stage 1, and what prevents it.

Retrievals by several steps from items drawn from N(0, 0.02) all but coincide: each step shrinks the distance between
two queries by about beta * 0.02^2. So does every gradient that could separate the items, the variance loss's too:
such a start needs seeding. The variance loss separates items that still have a gradient, as the second test shows.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from anomem.detectors.anomem.loss import multi_scale_contrasted_memory_loss, variance_loss
from anomem.nn.hopfield import HopfieldMemory

N_IMAGES, DIM, N_ITEMS = 32, 16, 16


class _Batches:
    """Draws around eight planted centres."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.centres = torch.randn(8, DIM, generator=self.generator)

    def draw(self) -> Tensor:
        kinds = torch.randint(8, (N_IMAGES,), generator=self.generator)
        return self.view(self.centres[kinds])

    def view(self, features: Tensor) -> Tensor:
        return features + 0.1 * torch.randn(features.shape, generator=self.generator)


def _mean_cosine(memory: HopfieldMemory, features: Tensor) -> float:
    with torch.no_grad():
        unit = F.normalize(memory(features), dim=1)
    return float(((unit @ unit.T).sum() - len(unit)) / (len(unit) * (len(unit) - 1)))


def _trained(memory: HopfieldMemory, batches: _Batches, variance_weight: float) -> float:
    """Mean pairwise cosine of retrievals after 60 steps of Eq. 7."""
    optimiser = torch.optim.SGD(memory.parameters(), lr=0.05, momentum=0.9, nesterov=True)
    everyone = torch.ones(N_IMAGES, dtype=torch.bool)
    for _ in range(60):
        features = batches.draw()
        views = [batches.view(features)[:, :, None, None] for _ in range(2)]
        loss = multi_scale_contrasted_memory_loss(
            views[:1],
            views[1:],
            [memory],
            everyone,
            ratios=[1.0],
            generator=batches.generator,
            variance_weight=variance_weight,
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return _mean_cosine(memory, batches.draw())


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("steps", [5, None])
def test_several_steps_from_random_items_collapse_and_seeding_prevents_it(steps: int | None, seed: int) -> None:
    batches = _Batches(seed)
    random = HopfieldMemory(N_ITEMS, DIM, beta=2.0, steps=steps, association="dot", generator=batches.generator)
    assert _trained(random, batches, 0.0) > 0.99
    seeded = HopfieldMemory(N_ITEMS, DIM, beta=2.0, steps=steps, association="dot")
    seeded.seed(batches.draw(), batches.generator)
    assert _trained(seeded, batches, 0.0) < 0.5


def _trained_on_positives(seed: int, variance_weight: float) -> float:
    """Mean pairwise cosine after encoder and memory only drew the two views together, without negatives.

    The encoder starts with a large common part, as features after a ReLU have it.
    """
    batches = _Batches(seed)
    encoder = torch.nn.Linear(DIM, DIM)
    with torch.no_grad():
        encoder.weight.copy_(torch.eye(DIM))
        encoder.bias.fill_(8.0)
    memory = HopfieldMemory(N_ITEMS, DIM, beta=0.1)
    memory.seed(batches.draw(), batches.generator)
    parameters = [*memory.parameters(), *encoder.parameters()]
    optimiser = torch.optim.SGD(parameters, lr=0.1, momentum=0.9, nesterov=True)
    everyone = torch.ones(N_IMAGES, dtype=torch.bool)
    for _ in range(150):
        features = batches.draw()
        retrieved, other = memory(encoder(features)), encoder(batches.view(features))
        loss = (1 - F.cosine_similarity(retrieved, other)).mean()
        loss = loss + variance_weight * variance_loss(retrieved[None], everyone, hinge=True)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return _mean_cosine(memory, encoder(batches.draw()))


@pytest.mark.parametrize("seed", range(4))
def test_the_variance_loss_keeps_retrievals_apart(seed: int) -> None:
    assert _trained_on_positives(seed, 0.0) > 0.98
    assert _trained_on_positives(seed, 1.0) < 0.9
