"""Training as a generator of records, over Accelerate."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from anomem.errors import ParameterError
from anomem.nn.inference import autocast
from anomem.types import Record

T = TypeVar("T")
Loss = Callable[[Any], tuple[Tensor, Mapping[str, float]]]
"""From one batch to the loss (a scalar) and figures worth a line."""


@dataclass(frozen=True)
class Recipe:
    """How to optimise.

    Parameters
    ----------
    steps : int
        Optimiser steps; the budget of a run, whatever the size of the data.
    lr : float
        Peak learning rate.
    optimiser : {"sgd", "adamw"}
        Stochastic gradient descent with Nesterov momentum 0.9 (the AnoMem paper's), or AdamW.
    weight_decay : float
        Decoupled for AdamW, L2 for SGD.
    warmup : float
        Share of the steps over which the rate rises linearly; then it falls along one cosine to 0.
    clip : float or None
        Largest norm of the gradient.
    """

    steps: int
    lr: float
    optimiser: str = "sgd"
    weight_decay: float = 0.0
    warmup: float = 0.05
    clip: float | None = None


def train(
    module: nn.Module,
    loss: Loss,
    batches: Iterable[Any],
    recipe: Recipe,
    *,
    device: torch.device,
    precision: str = "float32",
    stage: str = "train",
    every: int = 10,
) -> Generator[Record, None, None]:
    """Optimise the trainable parameters of `module` and yield what happens.

    Parameters
    ----------
    module : Module
        Trained in place; parameters that do not require a gradient stay.
    loss : callable
        From a batch to (scalar loss, figures).
    batches : iterable
        At least `recipe.steps` batches.
    recipe : Recipe
        Steps, rates, optimiser.
    device : torch.device
        Where the module is.
    precision : {"float32", "bfloat16"}
        Of the forward pass; parameters stay float32.
    stage : str
        Name on the records.
    every : int
        Records are yielded every so many steps, and after the last.

    Yields
    ------
    Record
        With ``loss`` (mean since the last record), ``lr``, ``seconds`` and the loss's own figures.

    Raises
    ------
    ParameterError
        When there is nothing to train, or the loss is no longer finite.
    """
    accelerator = _accelerator(device)
    trainable = [p for p in module.parameters() if p.requires_grad]
    if not trainable:
        raise ParameterError(f"{stage} has nothing to train; set train_steps=0, or let something be trained")
    optimiser = accelerator.prepare(_optimiser(trainable, recipe))
    started, losses = time.perf_counter(), []
    for step, batch in enumerate(_first(batches, recipe.steps), start=1):
        rate = learning_rate(step, recipe)
        for group in optimiser.param_groups:
            group["lr"] = rate
        with torch.enable_grad():  # the caller may have it off, and has it as it was at every yield
            with autocast(device, precision):
                value, figures = loss(batch)
            if not torch.isfinite(value):
                raise ParameterError(f"the loss of {stage} is {float(value.detach())} at step {step}; lower lr")
            optimiser.zero_grad()
            accelerator.backward(value)
            if recipe.clip is not None:
                accelerator.clip_grad_norm_(trainable, recipe.clip)
            optimiser.step()
        losses.append(float(value.detach()))
        if step % every == 0 or step == recipe.steps:
            facts = {
                "loss": sum(losses) / len(losses),
                "lr": rate,
                "seconds": time.perf_counter() - started,
                **figures,
            }
            losses.clear()
            yield Record(stage, step, recipe.steps, facts)


def _accelerator(device: torch.device) -> Any:
    """Accelerate keeps one state a process: one that has trained on a GPU must not ask for the CPU any more."""
    from accelerate import Accelerator
    from accelerate.state import is_initialized

    return Accelerator(cpu=device.type == "cpu" and not is_initialized(), device_placement=False)


def learning_rate(step: int, recipe: Recipe) -> float:
    """Rate of the `step`-th step (from 1): a linear rise, then one cosine (Loshchilov and Hutter 2017) to 0."""
    rise = max(1, round(recipe.warmup * recipe.steps))
    if step <= rise:
        return recipe.lr * step / rise
    done = (step - rise) / max(1, recipe.steps - rise)
    return recipe.lr * 0.5 * (1 + math.cos(math.pi * done))


def _optimiser(parameters: list[nn.Parameter], recipe: Recipe) -> torch.optim.Optimizer:
    if recipe.optimiser == "adamw":
        return torch.optim.AdamW(parameters, lr=recipe.lr, weight_decay=recipe.weight_decay)
    return torch.optim.SGD(parameters, lr=recipe.lr, momentum=0.9, nesterov=True, weight_decay=recipe.weight_decay)


def _first(batches: Iterable[T], count: int) -> Iterator[T]:
    """Yield exactly `count` batches, and stop without asking for another."""
    if count == 0:
        return
    for done, batch in enumerate(batches, start=1):
        yield batch
        if done == count:
            return


def isolated_rng(steps: Generator[Record, None, T], seed: int) -> Generator[Record, None, T]:
    """Run a generator on seeded random state of its own; the caller's is as it was at every yield."""
    inner = _seeded_state(seed)
    while True:
        outer = torch.get_rng_state()
        torch.set_rng_state(inner)
        try:
            record = next(steps)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        finally:
            inner = torch.get_rng_state()
            torch.set_rng_state(outer)
        yield record


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


def exhaust(steps: Generator[Any, None, T]) -> T:
    """Run a generator to its end and return what it returns."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
