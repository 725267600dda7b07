"""Endless batches whose position can be stored, so that training continues where it was interrupted."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

__all__ = ["Cycle", "Endless", "FullBatches", "Mapped", "Shuffled", "Together"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
State = Mapping[str, Tensor]


class Endless(Iterator[T_co], ABC):
    """Endless iterator with a position; generators that it draws from are stored by the training loop.

    Iterators without a position of their own, which only draw from the generator of the fit, need none of this.
    """

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """Return the position."""

    @abstractmethod
    def restore(self, state: State) -> None:
        """Continue at a position that :meth:`state` returned."""


class Shuffled(Endless[Tensor]):
    """Batches of `size` row numbers: random orders of `count` rows, one after the other without a gap."""

    def __init__(self, count: int, size: int, rng: torch.Generator) -> None:
        self._count, self._size, self._rng = count, size, rng
        self._order = torch.empty(0, dtype=torch.int64)

    def __next__(self) -> Tensor:
        while len(self._order) < self._size:
            self._order = torch.cat([self._order, torch.randperm(self._count, generator=self._rng)])
        rows, self._order = self._order[: self._size], self._order[self._size :]
        return rows

    def state(self) -> dict[str, Tensor]:
        """Return the rest of the order."""
        return {"order": self._order}

    def restore(self, state: State) -> None:
        """Continue with the rest of an order."""
        self._order = state["order"]


class Cycle(Endless[T]):
    """Items in their order, again and again."""

    def __init__(self, items: Sequence[T]) -> None:
        self._items, self._next = items, 0

    def __next__(self) -> T:
        item = self._items[self._next]
        self._next = (self._next + 1) % len(self._items)
        return item

    def state(self) -> dict[str, Tensor]:
        """Return the number of the next item."""
        return {"next": torch.tensor(self._next)}

    def restore(self, state: State) -> None:
        """Continue with an item."""
        self._next = int(state["next"])


class Mapped(Endless[T], Generic[T]):
    """Results of a function of each batch."""

    def __init__(self, function: Callable[[Any], T], batches: Iterable[Any]) -> None:
        self._function, self._batches = function, iter(batches)

    def __next__(self) -> T:
        return self._function(next(self._batches))

    def state(self) -> dict[str, Tensor]:
        """Return the position of the batches."""
        return state_of(self._batches)

    def restore(self, state: State) -> None:
        """Restore the position of the batches."""
        restore(self._batches, state)


class FullBatches(Endless[Tensor]):
    """Batches of exactly `count` rows, joined in order from parts of any length."""

    def __init__(self, parts: Iterable[Tensor], count: int) -> None:
        self._parts, self._count = iter(parts), count
        self._held: Tensor | None = None

    def __next__(self) -> Tensor:
        held = self._held
        while held is None or len(held) < self._count:
            part = next(self._parts)
            held = part if held is None or not len(held) else torch.cat([held, part])
        self._held = held[self._count :]
        return held[: self._count]

    def state(self) -> dict[str, Tensor]:
        """Return the position of the parts, and the rows left over."""
        held = {} if self._held is None else {"held": self._held}
        return {**held, **{f"parts.{name}": value for name, value in state_of(self._parts).items()}}

    def restore(self, state: State) -> None:
        """Restore the position of the parts, and the rows left over."""
        self._held = state.get("held")
        restore(self._parts, _below("parts", state))


class Together(Endless[tuple[Tensor, ...]]):
    """One batch of each of several sources."""

    def __init__(self, *sources: Iterable[Tensor]) -> None:
        self._sources = [iter(source) for source in sources]

    def __next__(self) -> tuple[Tensor, ...]:
        return tuple(next(source) for source in self._sources)

    def state(self) -> dict[str, Tensor]:
        """Return the position of each source."""
        parts = [(f"{i}.{name}", v) for i, source in enumerate(self._sources) for name, v in state_of(source).items()]
        return dict(parts)

    def restore(self, state: State) -> None:
        """Restore the position of each source."""
        for i, source in enumerate(self._sources):
            restore(source, _below(str(i), state))


def state_of(batches: Iterator[object]) -> dict[str, Tensor]:
    """Return the position of an iterator; nothing where it has none of its own."""
    return batches.state() if isinstance(batches, Endless) else {}


def restore(batches: Iterator[object], state: State) -> None:
    """Restore the position of an iterator that has one."""
    if isinstance(batches, Endless):
        batches.restore(state)


def _below(prefix: str, state: State) -> dict[str, Tensor]:
    start = f"{prefix}."
    return {name.removeprefix(start): value for name, value in state.items() if name.startswith(start)}
