"""Progress bars on stderr, where somebody is looking."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from typing import Any, TypeVar

from anomem.cli.session import Session
from anomem.runtime.progress import Progress
from anomem.types import Record

T = TypeVar("T")
Show = Callable[[str, int, int, str], None]
"""Takes a stage's name, steps done, steps in all, and a remark."""


@contextmanager
def bars(session: Session, *, quiet: bool) -> Iterator[Progress]:
    """Give a progress callback that draws one bar per stage.

    Parameters
    ----------
    session : Session
        Asked at every record whether to go on.
    quiet : bool
        Draw nothing; nothing is drawn either when stderr is no terminal.
    """
    with _bars(quiet) as show:

        def progress(record: Record) -> None:
            session.check()
            show(record.stage, record.step, record.total, _remark(record))

        yield progress


def counted(items: Iterable[T], total: int, stage: str, session: Session, *, quiet: bool) -> Iterator[T]:
    """Pass items on and draw how many have come; parameters as for `bars`."""
    with _closing(items), _bars(quiet) as show:
        for done, item in enumerate(items, start=1):
            session.check()
            show(stage, done, total, "")
            yield item


def _remark(record: Record) -> str:
    """Loss and learning rate of a training step, and how many items of each memory are in use."""
    facts = record.facts
    shown = [f"{name} {facts[name]:.4g}" for name in ("loss", "lr") if name in facts]
    used = [f"{value:.0f}" for name, value in facts.items() if name.startswith("effective_items")]
    return ", ".join([*shown, *([f"items in use {' '.join(used)}"] if used else [])])


@contextmanager
def _closing(items: Any) -> Iterator[None]:
    """End a generator, and the threads it holds, when its reader ends early."""
    if not hasattr(items, "close"):
        yield
        return
    with closing(items):
        yield


@contextmanager
def _bars(quiet: bool) -> Iterator[Show]:
    if quiet or not sys.stderr.isatty():
        yield lambda *_: None
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
