"""Learning rates: one cycle as torch has it, and the range test that finds its peak."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from anomem.errors import ParameterError
from anomem.training import LOWEST_RATE, Recipe, learning_rate, range_test, run_to_end, train

CPU = torch.device("cpu")


@pytest.mark.parametrize(("steps", "warmup"), [(100, 0.3), (37, 0.3), (10, 0.25)])
def test_one_cycle_is_torchs(steps: int, warmup: float) -> None:
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=0.4, total_steps=steps, pct_start=warmup, cycle_momentum=False
    )
    recipe, wanted = Recipe(steps, 0.4, warmup=warmup, schedule="one_cycle"), []
    for _ in range(steps):
        wanted.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        schedule.step()
    assert [learning_rate(step, recipe) for step in range(1, steps + 1)] == pytest.approx(wanted, rel=1e-9)


def test_one_step_has_a_rate() -> None:
    for steps in (1, 2, 3):
        rates = [learning_rate(s, Recipe(steps, 0.4, warmup=0.3, schedule="one_cycle")) for s in range(1, steps + 1)]
        assert all(0 < rate <= 0.4 for rate in rates)


def test_a_range_test_rises_by_the_same_factor() -> None:
    recipe = Recipe(7, 0.5, schedule="rising")
    rates = [learning_rate(step, recipe) for step in range(1, 8)]
    assert rates[0] == pytest.approx(0.5 * LOWEST_RATE)
    assert rates[-1] == pytest.approx(0.5)
    assert [b / a for a, b in itertools.pairwise(rates)] == pytest.approx([10.0] * 6)


class _Line(nn.Module):
    """y = a x + b, and how often it was looked at."""

    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)
        self.register_buffer("seen", torch.zeros(()))

    def loss(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, dict[str, float]]:
        x, y = batch
        self.seen += 1
        return (self.layer(x) - y).square().mean(), {}


def _batches() -> Iterator[tuple[Tensor, Tensor]]:
    x = torch.linspace(-2, 2, 32)[:, None]
    return itertools.repeat((x, 3 * x - 1))


@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
def test_a_range_test_finds_a_rate_that_learns(optimiser: str) -> None:
    torch.manual_seed(0)
    line = _Line()
    before = {name: tensor.clone() for name, tensor in line.state_dict().items()}
    records = []
    steps = range_test(line, line.loss, _batches(), Recipe(100, 10.0, optimiser), device=CPU)
    while True:
        try:
            records.append(next(steps))
        except StopIteration as end:
            found = end.value
            break
    assert records[-1].facts == {"lr": found}
    assert not any(record.facts for record in records[:-1])
    for name, tensor in line.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    for factor, learns in ((1.0, True), (1e-4, False)):
        fresh = _Line()
        fresh.load_state_dict(before)
        recipe = Recipe(100, found * factor, optimiser, warmup=0.3, schedule="one_cycle")
        losses = [r.facts["loss"] for r in train(fresh, fresh.loss, _batches(), recipe, device=CPU)]
        assert (losses[-1] < 0.2 * losses[0]) == learns


def test_a_range_test_ends_where_the_loss_is_no_longer_finite() -> None:
    line = _Line()
    poisoned = itertools.chain(itertools.islice(_batches(), 5), [(torch.ones(2, 1), torch.full((2, 1), torch.inf))])
    found = run_to_end(range_test(line, line.loss, poisoned, Recipe(100, 1.0, "adamw"), device=CPU))
    assert LOWEST_RATE <= found < 1e-5


def test_a_range_test_says_when_it_cannot_begin() -> None:
    line = _Line()
    poisoned = [(torch.ones(2, 1), torch.full((2, 1), torch.inf))]
    with pytest.raises(ParameterError, match="range test: the loss is inf at step 1; lower lr"):
        run_to_end(range_test(line, line.loss, poisoned, Recipe(100, 1.0, "adamw"), device=CPU))
