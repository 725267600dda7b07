"""Atomic output files; the three kinds of tables."""

from __future__ import annotations

import csv
import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest

from anomem.cli.output import (
    Output,
    check_file,
    check_folder,
    check_table,
    filled_folder,
    peak_mb,
    plain,
    write_table,
    write_text,
)
from anomem.cli.scoring import COLUMNS
from anomem.cli.session import Session
from anomem.errors import InputError
from tests.cli.process import completed, environment, files

ROWS = [
    {"path": 'a,"b".png', "score": 1.25, "p_value": 0.5, "anomalous": False, "heatmap": None},
    {"path": "ü\n.png", "score": 1e-9, "p_value": 0.01, "anomalous": True, "heatmap": "h/ü.png"},
]


@pytest.fixture
def session() -> Session:
    return Session()


# --- tables -----------------------------------------------------------------------------------


def test_csv_reads_back(tmp_path: Path, session: Session) -> None:
    place = tmp_path / "r.csv"
    write_table(place, ROWS, COLUMNS, session)
    with place.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == list(COLUMNS)
    assert [row["path"] for row in rows] == [row["path"] for row in ROWS]
    assert [float(row["score"]) for row in rows] == [1.25, 1e-9]
    assert [row["anomalous"] for row in rows] == ["false", "true"]
    assert [row["heatmap"] for row in rows] == ["", "h/ü.png"]
    assert session.written == [str(place)]


def test_jsonl_reads_back(tmp_path: Path, session: Session) -> None:
    place = tmp_path / "r.JSONL"
    write_table(place, ROWS, COLUMNS, session)
    assert [json.loads(line) for line in place.read_text(encoding="utf-8").splitlines()] == ROWS


def test_parquet_reads_back(tmp_path: Path, session: Session) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    place = tmp_path / "r.parquet"
    odd = {**ROWS[0], "path": os.fsdecode(b"caf\xe9")}
    write_table(place, [*ROWS, odd], COLUMNS, session)
    table = pq.read_table(place)
    assert table.to_pylist()[:2] == ROWS
    assert table.column("path")[2].as_py() == "caf\\udce9"
    assert [str(field.type) for field in table.schema] == ["string", "double", "double", "bool", "string"]


def test_empty_tables_have_their_columns(tmp_path: Path, session: Session) -> None:
    write_table(tmp_path / "r.csv", [], COLUMNS, session)
    assert (tmp_path / "r.csv").read_text() == "path,score,p_value,anomalous,heatmap\n"


def test_failing_write_leaves_the_old_file(tmp_path: Path, session: Session) -> None:
    place = tmp_path / "r.csv"
    place.write_text("old")
    with pytest.raises(KeyError):
        write_table(place, [{"path": "a"}], COLUMNS, session)
    with pytest.raises(UnicodeEncodeError):
        write_text(place, "\ud800", session)
    assert place.read_text() == "old"
    assert files(tmp_path) == {"r.csv"}
    assert session.written == []


# --- checks before the work --------------------------------------------------------------------


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="does not exist; create it first"):
        check_file(tmp_path / "no" / "m", Session())
    with pytest.raises(InputError, match="is a folder; name the model inside it"):
        check_file(tmp_path / "folder", Session(), what="model")
    with pytest.raises(InputError, match="does not exist"):
        check_file(tmp_path / "file" / "m", Session())
    with pytest.raises(InputError, match="not a regular file"):
        check_file(Path(os.devnull), Session())
    with pytest.raises(InputError, match="is a file; name a folder"):
        check_folder(tmp_path / "file")
    with pytest.raises(InputError, match="does not exist; create it first"):
        check_folder(tmp_path / "no" / "folder")
    with pytest.raises(InputError, match=r"\.csv, \.jsonl, \.parquet"):
        check_table(tmp_path / "r.xlsx", Session())
    check_file(tmp_path / "file", Session())
    check_folder(tmp_path / "folder")
    check_folder(tmp_path / "new")
    check_table(tmp_path / "r.csv", Session())
    assert files(tmp_path) == {"file", "folder"}


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may write everywhere")
def test_folder_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="cannot be written"):
        check_file(tmp_path / "m", Session())
    with pytest.raises(InputError, match="permission denied"):
        check_folder(tmp_path / "d")


# --- folders ----------------------------------------------------------------------------------


@pytest.mark.parametrize("exists", [False, True])
def test_folder_appears_when_it_is_full(tmp_path: Path, session: Session, exists: bool) -> None:
    target = tmp_path / "out"
    if exists:
        (target / "sub").mkdir(parents=True)
        (target / "sub" / "mine").write_text("mine")
        (target / "sub" / "a").write_text("old")
    with filled_folder(target, session) as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "a").write_text("new")
        (folder / "b").write_text("b")
        assert (target / "b").exists() is False
    kept = {"out/sub/mine"} if exists else set()
    assert files(tmp_path) == {"out", "out/sub", "out/sub/a", "out/b", *kept}
    assert (target / "sub" / "a").read_text() == "new"
    assert session.written == [str(target)]


@pytest.mark.parametrize("exists", [False, True])
def test_interrupted_folder_leaves_nothing(tmp_path: Path, session: Session, exists: bool) -> None:
    target = tmp_path / "out"
    if exists:
        target.mkdir()
    before = files(tmp_path)

    def fill() -> None:
        with filled_folder(target, session) as folder:
            (folder / "a").write_text("a")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fill()
    assert files(tmp_path) == before
    assert session.written == []


def test_folder_has_ordinary_permissions(tmp_path: Path, session: Session) -> None:
    (tmp_path / "other").mkdir()
    with filled_folder(tmp_path / "out", session):
        pass
    assert (tmp_path / "out").stat().st_mode == (tmp_path / "other").stat().st_mode


# --- signals ----------------------------------------------------------------------------------


def probe(body: str) -> list[str]:
    """Run statements on a `session` in a process of its own, which a signal may end; return the lines they print."""
    ran = completed([sys.executable, "-c", _SIGNALLED + body], env=environment())
    assert (ran.returncode, ran.stderr) == (0, "")
    return ran.stdout.splitlines()


_SIGNALLED = """
import signal
from anomem.cli.session import Session, catch_signals

session = Session()
"""


def test_signal_waits_until_files_are_in_place() -> None:
    body = """
try:
    with catch_signals(session):
        with session.putting_in_place("model"):
            signal.raise_signal(signal.SIGTERM)
            print("end of the block")
        print("after it")
except KeyboardInterrupt:
    print(session.farewell())
"""
    assert probe(body) == ["end of the block", "terminated; model is complete"]


def test_signal_before_files_are_put_in_place_stops_it(session: Session) -> None:
    session.signal = signal.SIGINT
    with pytest.raises(KeyboardInterrupt), session.putting_in_place("model"):
        pytest.fail("entered")
    assert session.farewell() == "interrupted; nothing was written"


def test_second_signal_does_not_disturb_the_cleaning_up() -> None:
    body = """
try:
    with catch_signals(session):
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            signal.raise_signal(signal.SIGINT)
            print("cleaned")
except KeyboardInterrupt:
    print(session.farewell())
"""
    assert probe(body) == ["cleaned", "interrupted; nothing was written"]


def test_ignored_signal_stays_ignored() -> None:
    body = """
signal.signal(signal.SIGINT, signal.SIG_IGN)
with catch_signals(session):
    signal.raise_signal(signal.SIGINT)
print(session.signal, signal.getsignal(signal.SIGINT) is signal.SIG_IGN)
"""
    assert probe(body) == ["0 True"]


# --- stdout -----------------------------------------------------------------------------------


def test_json_or_lines_never_both(capsys: pytest.CaptureFixture[str]) -> None:
    for as_json in (False, True):
        output = Output(as_json)
        output.line("a line")
        output.result({"path": Path("a"), "score": np.float32(0.5), "bad": [float("nan"), np.inf], "n": (1, True)})
        shown = capsys.readouterr().out
        expected = '{"path": "a", "score": 0.5, "bad": [null, null], "n": [1, true]}\n'
        assert shown == (expected if as_json else "a line\n")


def test_plain_keeps_what_json_knows() -> None:
    content = {"a": [1, 2.5, "x", None, True], "b": {"c": "ü"}}
    assert plain(content) == content


def test_peak_is_in_megabytes() -> None:
    before = peak_mb()
    block = np.ones(200_000_000 // 8)
    after = peak_mb()
    assert block.all()
    assert after >= max(before, 200)
    assert after < 100_000
