"""Execution of units in this process or in several; each finished unit appends a line."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace

from anomem.benchmark.execute import Outcome, attempts, prepared
from anomem.benchmark.fits import Settings
from anomem.benchmark.run_file import RunFile
from anomem.benchmark.unit import Unit
from anomem.benchmark.workers import pooled

__all__ = ["groups", "run"]


def run(units: Sequence[Unit], run_file: RunFile, settings: Settings, *, jobs: int = 1) -> Iterator[Outcome]:
    """Execute the units that `run_file` does not hold yet; each is on disk when it is yielded.

    Parameters
    ----------
    units : sequence of Unit
    run_file : RunFile
        Open: inside its ``with`` block.
    settings : Settings
    jobs : int
        1: in this process. More: that many worker processes, which end with this one. Only the order of the lines and
        ``measured`` depend on it.

    Yields
    ------
    Outcome
        In order of completion. A failed unit is not written: the next run retries it.
    """
    pending = groups([unit for unit in units if unit.key not in run_file.keys])
    if jobs > 1 and len(pending) > 1:
        outcomes = pooled(pending, replace(settings, workers=max(1, settings.workers // jobs)), jobs)
    else:
        outcomes = _alone(pending, settings)
    try:
        for outcome in outcomes:
            if outcome.line is not None:
                run_file.append(outcome.line)
            yield outcome
    finally:
        outcomes.close()


def groups(units: Sequence[Unit]) -> list[list[Unit]]:
    """Group units that share a fit, in the order of each group's first unit."""
    found: dict[str, list[Unit]] = {}
    for unit in units:
        found.setdefault(unit.fit_key, []).append(unit)
    return list(found.values())


def _alone(pending: Sequence[Sequence[Unit]], settings: Settings) -> Generator[Outcome, None, None]:
    with prepared(settings) as work:
        for group in pending:
            yield from attempts(group, work)
