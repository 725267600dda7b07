"""Worker processes that attempt groups of units, and end with their parent."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Generic, TypeVar

__all__ = ["Died", "Open", "pooled"]

U = TypeVar("U")
R = TypeVar("R")
Open = Callable[[], AbstractContextManager[Callable[[Sequence[U]], Iterator[R]]]]
"""Picklable function that prepares a worker, and provides the function from units to one result each."""


@dataclass(frozen=True)
class Died(Generic[U]):
    """Unit during which its worker died, on every try.

    Parameters
    ----------
    unit : object
    code : int
        Exit code of the last worker, negative for a signal.
    """

    unit: U
    code: int

    def __str__(self) -> str:
        how = f"killed by {signal.Signals(-self.code).name}" if self.code < 0 else f"ended with code {self.code}"
        hint = ", perhaps out of memory" if self.code == -getattr(signal, "SIGKILL", 9) else ""
        return f"its worker was {how}{hint}"


@dataclass
class _Worker(Generic[U]):
    """Worker process, the pipe to it, and its unfinished units."""

    process: SpawnProcess
    pipe: Connection
    due: deque[U] = field(default_factory=deque)


def pooled(
    pending: Sequence[Sequence[U]], opened: Open[U, R], jobs: int, *, tries: int = 1
) -> Generator[R | Died[U], None, None]:
    """Attempt groups of units in several workers; a group stays in one, since its units share work.

    A worker that dies (out of memory, say) is replaced, and its current unit is tried again `tries` times in all;
    another worker takes the rest of the group.

    Parameters
    ----------
    pending : sequence of groups
    opened : callable
        See `Open`; called once in each worker.
    jobs : int
        Maximum number of workers.
    tries : int
        Number of workers that a unit may lose.

    Yields
    ------
    object or Died
        Result of each unit, in the order of completion.
    """
    waiting = deque(deque(group) for group in pending)
    lost: dict[int, int] = {}
    workers = [_started(opened) for _ in range(min(jobs, len(waiting)))]
    try:
        while waiting or any(worker.due for worker in workers):
            for worker in workers:
                if not worker.due and waiting:
                    _give(worker, waiting)
            busy = {worker.pipe: worker for worker in workers if worker.due}
            for pipe in wait(list(busy)):
                worker = busy[pipe]  # type: ignore[index]
                try:
                    result: R = worker.pipe.recv()
                except (EOFError, OSError):
                    code, unit = _ended(worker), worker.due[0]
                    lost[id(unit)] = lost.get(id(unit), 0) + 1
                    if lost[id(unit)] >= tries:
                        worker.due.popleft()
                        yield Died(unit, code)
                    if worker.due:
                        waiting.appendleft(worker.due)
                    workers.remove(worker)
                    if waiting:
                        workers.append(_started(opened))
                else:
                    worker.due.popleft()
                    yield result
    finally:
        for worker in workers:
            worker.process.kill()
        for worker in workers:
            worker.process.join()
            worker.pipe.close()


def _give(worker: _Worker[U], waiting: deque[deque[U]]) -> None:
    worker.due = waiting.popleft()
    with suppress(OSError):  # it died in the meantime; its pipe reports that
        worker.pipe.send(list(worker.due))


def _started(opened: Open[U, R]) -> _Worker[U]:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_work, args=(there, opened), daemon=True)
    process.start()
    there.close()
    return _Worker(process, here)


def _ended(worker: _Worker[U]) -> int:
    worker.process.join()
    worker.pipe.close()
    return worker.process.exitcode or 0


def _work(pipe: Connection, opened: Open[U, R]) -> None:
    """Attempt groups from the pipe until it closes."""
    # Ctrl-C reaches every process of a terminal; the parent decides when this one ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with opened() as attempt:
        while True:
            try:
                group: list[U] = pipe.recv()
            except EOFError:
                return
            for result in attempt(group):
                pipe.send(result)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
