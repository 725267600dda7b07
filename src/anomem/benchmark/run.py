"""Run units of work, in this process or in several, and append a line per finished unit."""

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
    """Do the units that the run_file does not hold yet; each is on the disk when it is yielded.

    Parameters
    ----------
    units : sequence of Unit
    run_file : RunFile
        Entered.
    settings : Settings
    jobs : int
        1: in this process. More: that many processes, which end when this one does. The lines are the same but for
        their order and ``measured``.

    Yields
    ------
    Outcome
        In the order in which they finish. A unit that fails is not written: the next run tries it again.
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
    """Units that share a fit, together, in the order in which the first of each comes."""
    found: dict[str, list[Unit]] = {}
    for unit in units:
        found.setdefault(unit.fit_key, []).append(unit)
    return list(found.values())


def _alone(pending: Sequence[Sequence[Unit]], settings: Settings) -> Generator[Outcome, None, None]:
    with prepared(settings) as work:
        for group in pending:
            yield from attempts(group, work)
