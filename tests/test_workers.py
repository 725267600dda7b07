"""Tests that share fits run on one worker, and one that dies takes no other test with it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.cli.process import completed
from tests.scheduling import Groups, group_of

ROOT = Path(__file__).parents[1]

TEST = """
import os, pathlib, pytest

@pytest.mark.parametrize("i", range({count}))
def test_(i):
    with open(pathlib.Path(__file__).with_suffix(".txt"), "a") as file:
        file.write(os.environ["PYTEST_XDIST_WORKER"] + "\\n")
    if i == {fatal}:
        os.kill(os.getpid(), 9)
"""


def test_groups_are_files_and_the_methods_of_the_contract() -> None:
    contract = "tests/test_contract.py"
    assert group_of("tests/cli/test_main.py::test_help[knn-1]") == group_of("tests/cli/test_main.py::test_other")
    assert group_of(f"{contract}::test_contract[knn-tiles]") == group_of(f"{contract}::test_laid_out[knn]")
    assert group_of(f"{contract}::test_contract[knn-tiles]") != group_of(f"{contract}::test_contract[padim-tiles]")
    assert group_of(f"{contract}::test_the_costly_checks_exist") == contract
    assert group_of("src/anomem/cli/group.py::anomem.cli.group") == "src/anomem/cli/group.py"


class Worker:
    """Stand-in for xdist's connection to a worker: one whose pipe is broken raises as its channel does."""

    def __init__(self, broken: bool = False) -> None:
        self.broken = broken
        self.shutting_down = False
        self.sent: list[int] = []

    def send_runtest_some(self, indices: list[int]) -> None:
        if self.broken:
            raise OSError("cannot send (already closed?)")
        self.sent += indices

    def shutdown(self) -> None:
        self.shutting_down = True


def test_a_worker_that_died_unnoticed_gives_its_tests_back() -> None:
    tests = [f"test_{name}.py::test_{i}" for name in "abcd" for i in range(3)]
    options = SimpleNamespace(loadscopereorder=False)
    config = SimpleNamespace(option=options, getvalue={"tx": ["popen"]}.__getitem__)
    groups, dead, replacement = Groups(config), Worker(broken=True), Worker()
    for worker in (dead, replacement):
        groups.add_node(worker)
        groups.add_node_collection(worker, tests)
        groups.schedule()
        if worker is dead:
            assert groups.remove_node(dead) == tests[0]
    for done in range(11):
        groups.mark_test_complete(replacement, replacement.sent[done])
    assert replacement.sent == [3, 4, 5, 6, 7, 8, 9, 10, 11, 1, 2]
    assert replacement.shutting_down


def on_two_workers(
    folder: Path, tests: dict[str, str]
) -> tuple[subprocess.CompletedProcess[str], dict[str, list[str]]]:
    """Run test files on two workers; also return the worker of each test that began, per file."""
    for name, text in tests.items():
        (folder / f"test_{name}.py").write_text(text)
    command = [sys.executable, "-m", "pytest", "-n", "2", "--dist", "loadgroup", "-p", "tests.conftest", *tests]
    command[-len(tests) :] = [f"test_{name}.py" for name in tests]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    ran = completed(command, cwd=folder, env=environment, timeout=120)
    return ran, {name: workers_of(folder / f"test_{name}.txt") for name in tests}


def workers_of(file: Path) -> list[str]:
    """Return the worker per test that began, none where the file's tests never did."""
    return file.read_text().split() if file.exists() else []


@pytest.mark.slow
def test_a_file_runs_on_one_worker(tmp_path: Path) -> None:
    ran, found = on_two_workers(tmp_path, {name: TEST.format(count=6, fatal=-1) for name in "ab"})
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert [len(workers) for workers in found.values()] == [6, 6]
    assert [len(set(workers)) for workers in found.values()] == [1, 1]


@pytest.mark.slow
@pytest.mark.ci_sample
def test_a_worker_that_dies_fails_one_test(tmp_path: Path) -> None:
    counts = {"a": 9, "b": 8, "c": 6, "d": 2, "e": 1, "f": 1, "g": 1}
    fatal = {"c": 3, "f": 0}
    tests = {name: TEST.format(count=count, fatal=fatal.get(name, -1)) for name, count in counts.items()}
    ran, found = on_two_workers(tmp_path, tests)
    assert ran.returncode == 1, ran.stdout + ran.stderr
    assert "2 failed, 26 passed" in ran.stdout
    assert {name: len(workers) for name, workers in found.items()} == counts
