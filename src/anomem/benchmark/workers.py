"""Worker processes that execute groups of units, and end with their parent."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

from anomem.benchmark.execute import Outcome, attempts, prepared
from anomem.benchmark.fits import Settings
from anomem.benchmark.unit import Unit

__all__ = ["pooled"]


@dataclass
class _Worker:
    """Worker process, the pipe to it, and its unfinished units."""

    process: SpawnProcess
    pipe: Connection
    due: list[Unit] = field(default_factory=list)


def pooled(pending: Sequence[Sequence[Unit]], settings: Settings, jobs: int) -> Generator[Outcome, None, None]:
    """Execute groups of units in several workers; a group stays in one, since its units share a fit.

    A worker that dies (out of memory, say) loses its current unit; another worker takes the rest of the group.

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
    waiting = [list(group) for group in pending]
    workers = [_started(settings) for _ in range(min(jobs, len(waiting)))]
    try:
        while waiting or any(worker.due for worker in workers):
            for worker in workers:
                if not worker.due and waiting:
                    worker.due = waiting.pop(0)
                    worker.pipe.send(worker.due)
            busy = {worker.pipe: worker for worker in workers if worker.due}
            for pipe in wait(list(busy)):
                worker = busy[pipe]  # type: ignore[index]
                try:
                    outcome: Outcome = worker.pipe.recv()
                except (EOFError, OSError):
                    yield _lost(worker)
                    if worker.due:
                        waiting.insert(0, worker.due)
                    workers.remove(worker)
                    if waiting:
                        workers.append(_started(settings))
                else:
                    worker.due.pop(0)
                    yield outcome
    finally:
        for worker in workers:
            worker.process.kill()
        for worker in workers:
            worker.process.join()
            worker.pipe.close()


def _started(settings: Settings) -> _Worker:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_work, args=(there, settings), daemon=True)
    process.start()
    there.close()
    return _Worker(process, here)


def _lost(worker: _Worker) -> Outcome:
    """Return the outcome of the unit whose worker died."""
    worker.process.join()
    worker.pipe.close()
    code = worker.process.exitcode or 0
    how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
    hint = ", perhaps out of memory; use fewer --jobs" if code == -getattr(signal, "SIGKILL", 9) else ""
    return Outcome(worker.due.pop(0), None, f"its worker was {how}{hint}")


def _work(pipe: Connection, settings: Settings) -> None:
    """Execute groups from the pipe until it closes."""
    # Ctrl-C reaches every process of a terminal; the parent decides when this one ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with prepared(settings) as work:
        while True:
            try:
                group: list[Unit] = pipe.recv()
            except EOFError:
                return
            for outcome in attempts(group, work):
                pipe.send(outcome)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
