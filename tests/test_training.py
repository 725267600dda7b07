"""Training: optimised parameters, records, untouched parameters."""

from __future__ import annotations

import itertools
import math
from collections.abc import Generator, Iterator
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState, PartialState
from torch import Tensor, nn

from anomem.errors import ParameterError
from anomem.training import Recipe, isolated_rng, learning_rate, train
from anomem.types import Record

CPU = torch.device("cpu")


class _Line(nn.Module):
    """y = a x + b, with something that stays frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.zeros(1))
        self.shift = nn.Parameter(torch.zeros(1))
        self.frozen = nn.Parameter(torch.ones(1), requires_grad=False)

    def loss(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, dict[str, float]]:
        x, y = batch
        return (self.slope * x + self.shift * self.frozen - y).square().mean(), {"slope": float(self.slope.detach())}


def _batches() -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    while True:
        x = torch.randn(32, generator=generator)
        yield x, 3 * x - 1


def _run(line: _Line, recipe: Recipe, **options: Any) -> list[Record]:
    return list(train(line, line.loss, _batches(), recipe, device=CPU, **options))


@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
def test_a_line_is_found(optimiser: str) -> None:
    line = _Line()
    records = _run(line, Recipe(150, 0.1, optimiser))
    assert float(line.slope.detach()) == pytest.approx(3, abs=0.05)
    assert float(line.shift.detach()) == pytest.approx(-1, abs=0.05)
    assert float(line.frozen) == 1
    assert records[-1].facts["loss"] < 1e-2 * records[0].facts["loss"]


def test_records_say_how_far_and_how_well() -> None:
    records = _run(_Line(), Recipe(25, 0.1), stage="stage 1", every=10)
    assert [(r.stage, r.step, r.total) for r in records] == [("stage 1", s, 25) for s in (10, 20, 25)]
    for record in records:
        assert set(record.facts) == {"loss", "lr", "seconds", "slope"}
    assert records[0].facts["seconds"] <= records[-1].facts["seconds"]


def test_a_step_is_nesterovs() -> None:
    line, reference = _Line(), _Line()
    recipe = Recipe(5, 0.1, weight_decay=0.01)
    _run(line, recipe)
    optimiser = torch.optim.SGD(
        [reference.slope, reference.shift], lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01
    )
    for step, batch in enumerate(itertools.islice(_batches(), 5), start=1):
        optimiser.param_groups[0]["lr"] = learning_rate(step, recipe)
        optimiser.zero_grad()
        reference.loss(batch)[0].backward()
        optimiser.step()
    torch.testing.assert_close(line.slope, reference.slope)
    torch.testing.assert_close(line.shift, reference.shift)


def test_gradients_are_clipped() -> None:
    line = _Line()
    _run(line, Recipe(1, 1.0, clip=1e-3))
    assert math.hypot(float(line.slope.detach()), float(line.shift.detach())) <= 1.9e-3 + 1e-9


def test_the_rate_rises_and_falls() -> None:
    recipe = Recipe(100, 0.4, warmup=0.1)
    rates = [learning_rate(step, recipe) for step in range(1, 101)]
    assert rates[:10] == pytest.approx([0.04 * s for s in range(1, 11)])
    assert rates[9] == max(rates) == pytest.approx(0.4)
    assert all(a > b for a, b in itertools.pairwise(rates[9:]))
    assert rates[54] == pytest.approx(0.2)
    assert rates[-1] == pytest.approx(0, abs=1e-9)
    assert learning_rate(1, Recipe(1, 0.4)) == 0.4


def test_no_step_asks_for_no_batch_and_the_last_for_no_more() -> None:
    line = _Line()
    assert _run(line, Recipe(0, 0.1)) == []
    taken = itertools.islice(_batches(), 3)
    assert len(list(train(line, line.loss, taken, Recipe(3, 0.1), device=CPU, every=1))) == 3
    with pytest.raises(StopIteration):
        next(taken)


def test_a_loss_that_is_not_finite_is_said() -> None:
    line = _Line()
    poisoned = iter([(torch.ones(2), torch.ones(2)), (torch.ones(2), torch.full((2,), torch.inf))])
    with pytest.raises(ParameterError, match="stage 1: the loss is inf at step 2; lower lr"):
        list(train(line, line.loss, poisoned, Recipe(2, 0.1), device=CPU, stage="stage 1"))


def test_nothing_to_train_is_said() -> None:
    line = _Line().requires_grad_(False)
    with pytest.raises(ParameterError, match="stage 1: nothing to train"):
        _run(line, Recipe(3, 0.1), stage="stage 1")


def test_the_callers_gradient_mode_is_its_own() -> None:
    line = _Line()
    with torch.no_grad():
        for _ in train(line, line.loss, _batches(), Recipe(4, 0.1), device=CPU, every=1):
            assert not torch.is_grad_enabled()
    assert float(line.slope.detach()) != 0


def test_the_cpu_trains_after_a_gpu_did(monkeypatch: pytest.MonkeyPatch) -> None:
    _run(_Line(), Recipe(1, 0.1))
    monkeypatch.setitem(PartialState._shared_state, "device", torch.device("cuda"))
    assert AcceleratorState().device.type == "cuda"
    line = _Line()
    _run(line, Recipe(2, 0.1))
    assert float(line.slope.detach()) != 0


def test_parameters_stay_float32_in_bfloat16() -> None:
    layer, seen = nn.Linear(4, 1), []

    def loss(batch: Tensor) -> tuple[Tensor, dict[str, float]]:
        out = layer(batch)
        seen.append(out.dtype)
        return out.float().square().mean(), {}

    list(train(layer, loss, itertools.repeat(torch.ones(2, 4)), Recipe(2, 0.1), device=CPU, precision="bfloat16"))
    assert seen == [torch.bfloat16] * 2
    assert layer.weight.dtype == torch.float32


def _drawing(log: list[float]) -> Generator[Record, None, str]:
    for step in range(3):
        log.append(float(torch.rand(1)))
        yield Record("draw", step + 1, 3)
    log.append(float(torch.rand(1)))
    return "done"


def test_random_state_is_the_runs_own() -> None:
    logs: list[list[float]] = [[], []]
    for seed, log in zip((1, 2), logs, strict=True):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        steps = isolated_rng(_drawing(log), 7)
        for _ in range(3):
            next(steps)
            assert torch.equal(torch.get_rng_state(), before)
            torch.rand(5)
            before = torch.get_rng_state()
        with pytest.raises(StopIteration) as end:
            next(steps)
        assert end.value.value == "done"
        assert torch.equal(torch.get_rng_state(), before)
    generator = torch.Generator().manual_seed(7)
    expected = [float(torch.rand(1, generator=generator)) for _ in range(4)]
    assert logs == [expected, expected]


def test_random_state_survives_a_failure() -> None:
    def failing() -> Generator[Record, None, None]:
        torch.rand(3)
        yield Record("a", 1, 2)
        torch.rand(3)
        raise RuntimeError("broken")

    before = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="broken"):
        list(isolated_rng(failing(), 0))
    assert torch.equal(torch.get_rng_state(), before)
