"""Does units of work one after the other, or several at a time, and writes a line for each that is finished."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from anomem.benchmark.environment import one_thread_count
from anomem.benchmark.execute import execute
from anomem.benchmark.fits import Settings
from anomem.benchmark.run_file import RunFile
from anomem.benchmark.unit import Unit
from anomem.benchmark.workspace import Workspace
from anomem.errors import AnomemError
from anomem.nn.map_cache import map_cache

__all__ = ["DEBUG", "Outcome", "attempts", "groups", "prepared", "run"]

DEBUG = "ANOMEM_DEBUG"


@dataclass(frozen=True)
class Outcome:
    """What became of a unit: its line, or in one line why it could not be done."""

    unit: Unit
    line: dict[str, object] | None
    error: str = ""


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
        from anomem.benchmark.workers import pooled

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


@contextmanager
def prepared(settings: Settings) -> Iterator[Workspace]:
    """A workbench, with threads and caches as the settings say."""
    with one_thread_count(settings.threads), map_cache(settings.features, settings.features_mb):
        yield Workspace(settings)


def attempts(units: Sequence[Unit], work: Workspace) -> Iterator[Outcome]:
    """Do units; what goes wrong with one is said, and the next one is done."""
    for unit in units:
        try:
            outcome = Outcome(unit, execute(unit, work))
        except AnomemError as error:
            outcome = Outcome(unit, None, str(error))
        except Exception as error:  # one broken unit must not end a run of hours
            if os.environ.get(DEBUG):
                raise
            outcome = Outcome(unit, None, f"unexpected {type(error).__name__}: {error} ({DEBUG}=1 shows where)")
        yield outcome


def _alone(pending: Sequence[Sequence[Unit]], settings: Settings) -> Generator[Outcome, None, None]:
    with prepared(settings) as work:
        for group in pending:
            yield from attempts(group, work)
