"""Progress bars: on terminals only."""

from __future__ import annotations

import io
import signal
from collections.abc import Iterator
from contextlib import redirect_stderr

import pytest

from anomem.cli import progress
from anomem.cli.progress import bars, counted, logged
from anomem.cli.session import Session, note
from anomem.types import Record


class Terminal(io.StringIO):
    """A stderr at which somebody looks."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "160")


def records(closed: list[str]) -> Iterator[Record]:
    try:
        yield Record("features", 1, 2)
        yield Record("features", 2, 2)
        facts = {"loss": 0.12345, "lr": 0.003, "seconds": 2.0, "effective_items_1": 41.6, "effective_items_2": 7.2}
        yield Record("[stage 1]", 10, 10, facts)
    finally:
        closed.append("closed")


def follow(steps: Iterator[Record], session: Session, *, quiet: bool) -> None:
    with bars(session, quiet=quiet) as progress:
        for record in steps:
            progress(record)


def test_every_stage_has_a_bar() -> None:
    with redirect_stderr(Terminal()) as terminal:
        follow(records([]), Session(), quiet=False)
    shown = terminal.getvalue()
    assert "features" in shown
    assert "2/2" in shown
    assert "[stage 1]" in shown
    assert "10/10" in shown
    assert "loss 0.1235, lr 0.003, items in use 42 7" in shown


def test_notes_stand_above_the_bars() -> None:
    with redirect_stderr(Terminal()) as terminal:
        for done in counted(range(3), 3, "score", Session(), quiet=False):
            if done == 1:
                note("left out a.png")
    lines = terminal.getvalue().splitlines()
    assert sum("anomem: note: left out a.png" in line for line in lines) == 1


def test_results_come_through() -> None:
    with redirect_stderr(Terminal()) as terminal:
        assert list(counted("abc", 3, "score", Session(), quiet=False)) == ["a", "b", "c"]
    assert "score" in terminal.getvalue()


@pytest.mark.parametrize("quiet", [True, False])
def test_nothing_is_drawn_where_nobody_looks(quiet: bool) -> None:
    with redirect_stderr(Terminal() if quiet else io.StringIO()) as screen:
        follow(records([]), Session(), quiet=quiet)
        assert list(counted("abc", 3, "score", Session(), quiet=quiet)) == ["a", "b", "c"]
    assert screen.getvalue() == ""


def test_a_swallowed_interrupt_ends_the_work_at_the_next_step() -> None:
    session = Session(signal=signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        follow(records([]), session, quiet=True)
    with pytest.raises(KeyboardInterrupt):
        next(counted("abc", 3, "score", session, quiet=True))


def test_a_reader_that_ends_early_closes_the_work() -> None:
    closed: list[str] = []
    reader = counted(records(closed), 3, "score", Session(), quiet=True)
    next(reader)
    assert closed == []
    del reader
    assert closed == ["closed"]


def test_a_log_gets_a_line_now_and_then() -> None:
    times = iter([0.0, 1.0, 9.0, 11.0, 12.0, 40.0, 41.0])
    with redirect_stderr(io.StringIO()) as log:
        show = logged(lambda: next(times))
        for done in (1, 100, 200, 300, 1000):
            show("score", done, 1000, "")
        show("[stage 1]", 2, 4, "loss 0.5")
    assert log.getvalue().splitlines() == [
        "anomem: progress: score 200 of 1,000, about 0:40 left",
        "anomem: progress: score 1,000 of 1,000",
    ]


def test_json_logs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0.0)
    for quiet in (False, True):
        with redirect_stderr(io.StringIO()) as log:
            follow(records([]), Session(), quiet=quiet)
        assert log.getvalue().count("anomem: progress: features") == (0 if quiet else 2)
