"""Progress on stderr: bars on a terminal, occasional lines in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from typing import Any, TypeVar

from anomem.cli.session import Session
from anomem.runtime.progress import Progress
from anomem.types import Record

LINE_EVERY_S = 10.0
"""Minimum time between two lines in a log, seconds."""

T = TypeVar("T")
Show = Callable[[str, int, int, str], None]
"""Callback with a stage's name, finished steps, total steps and a remark."""


@contextmanager
def bars(session: Session, *, quiet: bool) -> Iterator[Progress]:
    """Provide a progress callback that draws one bar per stage.

    Parameters
    ----------
    session : Session
        Session checked for interrupts at every record.
    quiet : bool
        Draw nothing. Without a terminal, a line is written every `LINE_EVERY_S` seconds.
    """
    with _bars(quiet) as show:

        def progress(record: Record) -> None:
            session.check()
            show(record.stage, record.step, record.total, _remark(record))

        yield progress


def counted(items: Iterable[T], total: int, stage: str, session: Session, *, quiet: bool) -> Iterator[T]:
    """Yield items and draw their count; parameters as for `bars`."""
    with _closing(items), _bars(quiet) as show:
        for done, item in enumerate(items, start=1):
            session.check()
            show(stage, done, total, "")
            yield item


def _remark(record: Record) -> str:
    """Return loss, learning rate and number of memory items in use of a training step as text."""
    facts = record.facts
    shown = [f"{name} {facts[name]:.4g}" for name in ("loss", "lr") if name in facts]
    used = [f"{value:.0f}" for name, value in facts.items() if name.startswith("effective_items")]
    return ", ".join([*shown, *([f"items in use {' '.join(used)}"] if used else [])])


@contextmanager
def _closing(items: Any) -> Iterator[None]:
    """Close a generator, and its threads, when its reader stops early."""
    if not hasattr(items, "close"):
        yield
        return
    with closing(items):
        yield


def logged(clock: Callable[[], float] = time.monotonic) -> Show:
    """Return a callback that logs progress: at most one line per `LINE_EVERY_S` seconds, none for short stages.

    Parameters
    ----------
    clock : callable
        Monotonic clock, seconds.
    """
    stages: dict[str, float] = {}
    last = clock()

    def show(stage: str, done: int, total: int, remark: str) -> None:
        nonlocal last
        now = clock()
        started = stages.setdefault(stage, now)
        if now - last < LINE_EVERY_S:
            return
        last = now
        parts = [f"{stage} {done:,} of {total:,}"]
        if 0 < done < total and now > started:
            parts.append(f"about {_duration((now - started) / done * (total - done))} left")
        sys.stderr.write(f"anomem: progress: {', '.join(filter(None, [*parts, remark]))}\n")
        sys.stderr.flush()

    return show


def _duration(seconds: float) -> str:
    """Return a duration as hours, minutes and seconds.

    Examples
    --------
    >>> _duration(42.3), _duration(3723)
    ('0:42', '1:02:03')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


@contextmanager
def _bars(quiet: bool) -> Iterator[Show]:
    if quiet:
        yield lambda *_: None
        return
    if not sys.stderr.isatty():
        yield logged()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
        TextColumn("{task.fields[remark]}", markup=False),
    )
    stages: dict[str, TaskID] = {}
    with Progress(*columns, console=Console(stderr=True)) as progress:

        def show(stage: str, done: int, total: int, remark: str) -> None:
            if stage not in stages:
                stages[stage] = progress.add_task(stage, total=total, remark=remark)
            progress.update(stages[stage], completed=done, total=total, remark=remark)

        yield show
