"""Training as a generator of records, based on Accelerate."""

from __future__ import annotations

import copy
import dataclasses
import math
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from threading import RLock
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from anomem.checkpoints import Training, active
from anomem.data.ranks import average_gradients, divided
from anomem.errors import ParameterError
from anomem.nn.precision import autocast
from anomem.runtime.progress import run_to_end as run_to_end
from anomem.types import Record

T = TypeVar("T")
Loss = Callable[[Any], tuple[Tensor, Mapping[str, float]]]
"""Function from one batch to the loss (a scalar) and the figures of a record."""


@dataclass(frozen=True)
class Recipe:
    """Settings of the optimisation.

    Parameters
    ----------
    steps : int
        Number of optimiser steps; the budget of a run, whatever the size of the data.
    lr : float
        Peak learning rate.
    optimiser : {"sgd", "adamw"}
        SGD with Nesterov momentum 0.9 (the AnoMem paper's), or AdamW.
    weight_decay : float
        Decoupled for AdamW, L2 for SGD.
    warmup : float
        Share of the steps over which the rate rises.
    clip : float or None
        Largest norm of the gradient.
    schedule : {"cosine", "one_cycle", "rising"}
        A linear rise, then one cosine to 0; Smith and Topin's one cycle, whose rise and fall are both cosines, from
        lr / 25 to lr and on to lr / 250,000 (the momentum stays); or the exponential rise of :func:`range_test`.
    nesterov : bool
        Use Nesterov momentum for SGD, or the plain one.
    rates : mapping of str to float
        Peak rates for parameters whose name in the module begins with the key, with the same schedule.
    """

    steps: int
    lr: float
    optimiser: str = "sgd"
    weight_decay: float = 0.0
    warmup: float = 0.05
    clip: float | None = None
    schedule: str = "cosine"
    nesterov: bool = True
    rates: Mapping[str, float] = field(default_factory=dict)


def train(
    module: nn.Module,
    loss: Loss,
    batches: Iterable[object],
    recipe: Recipe,
    *,
    device: torch.device,
    precision: str = "float32",
    stage: str = "train",
    every: int = 10,
    rng: torch.Generator | None = None,
    checkpointed: bool = True,
) -> Generator[Record, None, None]:
    """Optimise the trainable parameters of `module` and yield records of the progress.

    Parameters
    ----------
    module : Module
        Module trained in place; parameters that do not require a gradient are unchanged.
    loss : callable
        Function from a batch to (scalar loss, figures).
    batches : iterable
        Batches, at least `recipe.steps`.
    recipe : Recipe
        Steps, rates and optimiser.
    device : torch.device
        Device of the module.
    precision : {"float32", "bfloat16"}
        Arithmetic of the forward pass; parameters stay float32.
    stage : str
        Name of the stage on the records.
    every : int
        Number of steps between records; the last step has one too.
    rng : Generator, optional
        Generator that batches and loss draw from; part of checkpoints.
    checkpointed : bool
        Write and resume checkpoints where the fit has them, see :mod:`anomem.checkpoints`.

    Yields
    ------
    Record
        Record with ``loss`` (mean since the last record), ``lr``, ``seconds`` and the loss's own figures.

    Raises
    ------
    ParameterError
        If there is nothing to train, or the loss is no longer finite.
    """
    checkpoints = active() if checkpointed else None
    accelerator = _accelerator(device)
    trainable = [p for p in module.parameters() if p.requires_grad]
    groups = _groups(module, recipe)
    if not trainable:
        raise ParameterError(f"{stage}: nothing to train; switch its training off, or train layers of the backbone")
    optimiser = accelerator.prepare(_optimiser(groups, recipe))
    state = Training(stage, module, optimiser, iter(batches), rng)
    if checkpoints is not None:
        checkpoints.take(state)
    earlier = state.records[-1].facts.get("seconds", 0.0) if state.records else 0.0
    yield from tuple(state.records)
    started = time.perf_counter() - earlier
    step = partial(_step, loss=loss, recipe=recipe, accelerator=accelerator, trainable=trainable)
    while state.step < recipe.steps:
        with nullcontext() if checkpoints is None else checkpoints.step(state):
            figures = step(state, device=device, precision=precision)
            if figures is None:
                break
            due = state.step % every == 0 or state.step == recipe.steps
            if due:
                rate = learning_rate(state.step, recipe)
                facts = {"loss": sum(state.losses) / len(state.losses), "lr": rate}
                facts["seconds"] = time.perf_counter() - started
                state.records.append(Record(stage, state.step, recipe.steps, {**facts, **figures}))
                state.losses.clear()
        if due:
            yield state.records[-1]
    if checkpoints is not None:
        checkpoints.finish(state)


def _step(
    state: Training,
    *,
    loss: Loss,
    recipe: Recipe,
    accelerator: Any,
    trainable: list[nn.Parameter],
    device: torch.device,
    precision: str,
) -> Mapping[str, float] | None:
    """Take the next step and return the figures of its loss; None where the batches have ended."""
    batch = next(state.batches, None)
    if batch is None:
        return None
    step, optimiser = state.step + 1, state.optimiser
    rate = learning_rate(step, recipe)
    for group in optimiser.param_groups:
        group["lr"] = rate * group["factor"]
    with torch.enable_grad():  # The caller may have gradients off, and finds them so at every yield.
        with autocast(device, precision):
            value, figures = loss(batch)
        if not torch.isfinite(value):
            raise ParameterError(f"{state.stage}: the loss is {float(value.detach())} at step {step}; lower lr")
        optimiser.zero_grad()
        accelerator.backward(value)
        if divided():
            average_gradients(trainable)
        if recipe.clip is not None:
            accelerator.clip_grad_norm_(trainable, recipe.clip)
        optimiser.step()
    state.losses.append(float(value.detach()))
    state.step = step
    return figures


def _accelerator(device: torch.device) -> Any:
    """Return an Accelerator; its state per process would otherwise refuse the CPU after training on a GPU."""
    from accelerate import Accelerator
    from accelerate.state import is_initialized

    return Accelerator(cpu=device.type == "cpu" and not is_initialized(), device_placement=False)


def learning_rate(step: int, recipe: Recipe) -> float:
    """Return the rate of the `step`-th step (from 1), by the recipe's schedule."""
    if recipe.schedule == "rising":
        return float(recipe.lr * LOWEST_RATE ** (1 - (step - 1) / max(1, recipe.steps - 1)))
    if recipe.schedule == "one_cycle":
        top = max(1.0, recipe.warmup * recipe.steps)
        if step <= top:
            return _cosine(recipe.lr / 25, recipe.lr, (step - 1) / max(1.0, top - 1))
        return _cosine(recipe.lr, recipe.lr / 250_000, (step - top) / (recipe.steps - top))
    rise = max(1, round(recipe.warmup * recipe.steps))
    if step <= rise:
        return recipe.lr * step / rise
    return _cosine(recipe.lr, 0.0, (step - rise) / max(1, recipe.steps - rise))


def _cosine(start: float, end: float, done: float) -> float:
    """Return the value along half a cosine (Loshchilov and Hutter 2017) from `start` to `end`."""
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * done))


LOWEST_RATE = 1e-6
"""Lowest rate that a range test tries, relative to the highest."""


def range_test(
    module: nn.Module,
    loss: Loss,
    batches: Iterable[object],
    recipe: Recipe,
    *,
    device: torch.device,
    precision: str = "float32",
    stage: str = "range test",
    rng: torch.Generator | None = None,
) -> Generator[Record, None, float]:
    """Find a peak rate on the training data (Smith, "Cyclical Learning Rates", 2017), and restore the module.

    The rate rises exponentially from a millionth of `recipe.lr` to it. The result is the rate around which the loss
    falls most, the mean of a tenth of the trial against that of the tenth before. The trial ends early where that mean
    has grown fourfold.

    Parameters
    ----------
    module, loss, batches, device, precision, stage, rng
        As for :func:`train`.
    recipe : Recipe
        Steps of the trial, the highest rate tried, optimiser.

    Yields
    ------
    Record
        Progress; the last record holds the rate found as ``lr``.
    """
    checkpoints, state = active(), Training(stage, module, None, iter(batches), rng)
    if checkpoints is not None and checkpoints.take(state):
        yield from state.records
        return float(state.records[-1].facts["lr"])
    before = copy.deepcopy(module.state_dict())
    rising = dataclasses.replace(recipe, schedule="rising")
    rates: list[float] = []
    losses: list[float] = []
    window = max(1, recipe.steps // 10)
    try:
        options: dict[str, Any] = {"device": device, "precision": precision, "stage": stage, "every": 1}
        for record in train(module, loss, state.batches, rising, **options, checkpointed=False):
            rates.append(record.facts["lr"])
            losses.append(record.facts["loss"])
            state.records.append(Record(stage, record.step, record.total))
            yield state.records[-1]
            means = _moving_means(losses, window)
            if means[-1] > 4 * min(means):
                break
    except ParameterError:  # No longer finite: the range ends here.
        if not rates:
            raise
    finally:
        module.load_state_dict(before)
    means = _moving_means(losses, window)
    falls = [after - earlier for earlier, after in zip(means, means[window:], strict=False)]
    found = rates[falls.index(min(falls)) + window] if falls else rates[0]
    state.records.append(Record(stage, recipe.steps, recipe.steps, {"lr": found}))
    if checkpoints is not None:
        checkpoints.finish(state)
    yield state.records[-1]
    return found


def _moving_means(values: list[float], window: int) -> list[float]:
    """Return the mean of every `window` consecutive values; of all where there are fewer."""
    count = max(1, len(values) - window + 1)
    return [sum(values[i : i + window]) / len(values[i : i + window]) for i in range(count)]


def _groups(module: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """Return trainable parameters grouped by their peak rate, a ``factor`` of the recipe's general one."""
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            rate = next((rate for start, rate in recipe.rates.items() if name.startswith(start)), recipe.lr)
            groups.setdefault(rate / recipe.lr, []).append(parameter)
    return [{"params": parameters, "factor": factor} for factor, parameters in groups.items()]


def _optimiser(groups: list[dict[str, Any]], recipe: Recipe) -> torch.optim.Optimizer:
    if recipe.optimiser == "adamw":
        return torch.optim.AdamW(groups, lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True)
    return torch.optim.SGD(
        groups, lr=recipe.lr, momentum=0.9, nesterov=recipe.nesterov, weight_decay=recipe.weight_decay
    )


_rng = RLock()


def isolated_rng(steps: Generator[Record, None, T], seed: int) -> Generator[Record, None, T]:
    """Run a generator on its own seeded random state; the caller's is restored at every yield.

    Threads take turns at every step: torch has one random state per process.
    """
    inner = _seeded_state(seed)
    while True:
        with own_rng():
            torch.set_rng_state(inner)
            try:
                record = next(steps)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
            finally:
                inner = torch.get_rng_state()
        yield record


@contextmanager
def own_rng() -> Iterator[None]:
    """Give one thread torch's random state of this process, and restore it afterwards."""
    with _rng:
        outer = torch.get_rng_state()
        try:
            yield
        finally:
            torch.set_rng_state(outer)


def _seeded_state(seed: int) -> Tensor:
    return torch.Generator().manual_seed(seed).get_state()


def recorded(steps: Generator[Record, None, Any], history: list[Record]) -> Generator[Record, None, Any]:
    """Pass records on and keep the last of each stage's run of counts, so that the history stays short."""
    while True:
        try:
            record = next(steps)
        except StopIteration as end:
            return end.value
        if history and history[-1].stage == record.stage and not record.facts:
            history.pop()
        history.append(record)
        yield record
