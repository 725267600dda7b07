"""Run files: no line lost or repeated, however the writing process ends."""

from __future__ import annotations

import json
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from anomem.benchmark.run_file import RunFile, read_runs
from anomem.benchmark.unit import FORMAT
from anomem.errors import InputError
from tests.cli.process import completed, running

WRITER = """
import sys
from anomem.benchmark.run_file import RunFile
with RunFile(sys.argv[1]) as run_file:
    for number in range(int(sys.argv[2])):
        if f"k{number}" not in run_file.keys:
            run_file.append({"format": 1, "key": f"k{number}", "text": "x" * 5000, "number": number})
"""
LIMITED = """
import resource, sys
from anomem.errors import InputError
from tests.cli.process import completed, running
from anomem.benchmark.run_file import RunFile
with RunFile(sys.argv[1]) as run_file:
    run_file.append({"format": 1, "key": "first"})
    limit = sys.argv[1]
    size = __import__("os").path.getsize(limit)
    import signal
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, size + 100))
    try:
        run_file.append({"format": 1, "key": "second", "text": "x" * 1000})
    except InputError as error:
        print(error)
    print(sorted(run_file.keys), __import__("os").path.getsize(limit) == size)
"""


def line(key: str, **more: Any) -> dict[str, Any]:
    return {"format": FORMAT, "key": key, **more}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.jsonl"


def test_lines_come_back_as_they_were_written(path: Path) -> None:
    with RunFile(path) as run_file:
        assert run_file.keys == set()
        run_file.append(line("a", value=0.1 + 0.2, nothing=float("nan"), name="Jézéquel\udcff"))
        run_file.append(line("b"))
        with pytest.raises(ValueError, match="a is there already"):
            run_file.append(line("a"))
    assert read_runs(path) == [line("a", value=0.30000000000000004, nothing=None, name="Jézéquel\udcff"), line("b")]
    with RunFile(path) as run_file:
        assert run_file.keys == {"a", "b"}
        run_file.append(line("c"))
    assert [found["key"] for found in read_runs(path)] == ["a", "b", "c"]
    with pytest.raises(ValueError, match="not open"):
        run_file.append(line("d"))


@pytest.mark.parametrize("cut", [1, 5, 12, 13, 20, 41])
def test_a_torn_last_line_is_cut_off(path: Path, cut: int) -> None:
    whole = json.dumps(line("a")) + "\n"
    torn = (json.dumps(line("b", value="long enough to be torn")) + "\n")[:cut]
    path.write_text(whole + torn)
    assert [found["key"] for found in read_runs(path)] == ["a"]
    assert path.read_text() == whole + torn, "reading changes nothing"
    with RunFile(path) as run_file:
        assert run_file.keys == {"a"}
        run_file.append(line("b"))
    assert path.read_text() == whole + json.dumps(line("b")) + "\n"


def test_zeros_of_a_power_cut_are_cut_off(path: Path) -> None:
    path.write_bytes(json.dumps(line("a")).encode() + b"\n" + bytes(4096))
    with RunFile(path):
        pass
    assert path.read_text() == json.dumps(line("a")) + "\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a diary without an end", "its last line is no run"),
        ("a diary\nof two lines\n", "line 1 is no run"),
        ('{"path": "a.png"}\n', "line 1 is no run"),
        ('{"format": 1, "key": "a"}\n[1]\n', "line 2 is no run"),
        ('{"format": 7, "key": "a"}\n', "line 1 has format 7, not 1"),
        ('{"format": 1, "key": "a"}\n{"format": 1, "key": "a"}\n', "line 2 repeats an earlier one"),
    ],
)
def test_other_files_are_refused_and_left_alone(path: Path, text: str, said: str) -> None:
    path.write_text(text)
    with pytest.raises(InputError, match=said), RunFile(path):
        pass
    assert path.read_text() == text
    if "\n" in text:
        with pytest.raises(InputError, match=said):
            read_runs(path)
    # The lock was given back.
    path.write_text("")
    with RunFile(path) as run_file:
        run_file.append(line("a"))


def test_a_second_writer_is_refused(path: Path) -> None:
    with RunFile(path) as run_file:
        run_file.append(line("a"))
        with pytest.raises(InputError, match="another run is writing to it"), RunFile(path):
            pass
        run_file.append(line("b"))
    with RunFile(path) as run_file:
        assert run_file.keys == {"a", "b"}


def test_absent_and_unwritable(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="name a file written by anomem bench"):
        read_runs(tmp_path / "absent.jsonl")
    with pytest.raises(InputError, match="choose another file for the runs"), RunFile(tmp_path / "no" / "folder"):
        pass


@pytest.mark.skipif(sys.platform == "win32", reason="limits of files are set otherwise there")
def test_a_full_disk_leaves_no_torn_line(path: Path) -> None:
    ran = completed([sys.executable, "-c", LIMITED, path], check=True)
    error, state = ran.stdout.splitlines()
    assert "rerun the command to resume" in error
    assert state == "['first'] True"
    assert [found["key"] for found in read_runs(path)] == ["first"]


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent otherwise there")
def test_writers_killed_at_random_moments(path: Path) -> None:
    """SIGKILL in the middle of writing: the next run resumes, and every line is there once."""
    command = [sys.executable, "-c", WRITER, str(path), "3000"]
    rng, kills = random.Random(0), 0
    for _ in range(8):
        before = path.stat().st_size if path.exists() else 0
        with running(command, stdout=None, stderr=None) as process:
            while process.poll() is None and (path.stat().st_size if path.exists() else 0) <= before:
                time.sleep(0.001)
            time.sleep(rng.uniform(0, 0.05))
        kills += process.returncode == -signal.SIGKILL
    assert kills >= 4, "most were killed in the middle"
    completed([*command[:-1], str(len(read_runs(path)) + 10)], check=True)
    found = read_runs(path)
    assert [entry["number"] for entry in found] == list(range(len(found)))
    assert all(entry["text"] == "x" * 5000 for entry in found)
