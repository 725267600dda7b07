"""Benchmark units in worker processes."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from anomem.benchmark.execute import Outcome, attempts, prepared
from anomem.benchmark.fits import Settings
from anomem.benchmark.unit import Unit
from anomem.scale.processes import Died
from anomem.scale.processes import pooled as attempted

__all__ = ["pooled"]


def pooled(pending: Sequence[Sequence[Unit]], settings: Settings, jobs: int) -> Generator[Outcome, None, None]:
    """Execute groups of units in several workers; a group stays in one, since its units share a fit.

    A worker that dies loses its current unit; another worker takes the rest of the group.

    Parameters
    ----------
    pending : sequence of groups
    settings : Settings
    jobs : int
        Maximum number of workers.

    Yields
    ------
    Outcome
    """
    for outcome in attempted(pending, partial(_opened, settings), jobs):
        yield outcome if isinstance(outcome, Outcome) else _lost(outcome)


@contextmanager
def _opened(settings: Settings) -> Iterator[Callable[[Sequence[Unit]], Iterator[Outcome]]]:
    with prepared(settings) as work:
        yield lambda group: attempts(group, work)


def _lost(died: Died[Unit]) -> Outcome:
    """Return the outcome of the unit whose worker died."""
    hint = "; use fewer --jobs" if "memory" in str(died) else ""
    return Outcome(died.unit, None, f"{died}{hint}")
