"""Tests that share fits run on one worker."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import group_of

ROOT = Path(__file__).parents[1]

TEST = """
import os, pathlib, pytest

@pytest.mark.parametrize("i", range(6))
def test_(i):
    with open(pathlib.Path(__file__).with_suffix(".txt"), "a") as file:
        file.write(os.environ["PYTEST_XDIST_WORKER"] + "\\n")
"""


def test_groups_are_files_and_the_methods_of_the_contract() -> None:
    contract = "tests/test_contract.py"
    assert group_of("tests/cli/test_main.py::test_help[knn-1]") == group_of("tests/cli/test_main.py::test_other")
    assert group_of(f"{contract}::test_contract[knn-tiles]") == group_of(f"{contract}::test_laid_out[knn]")
    assert group_of(f"{contract}::test_contract[knn-tiles]") != group_of(f"{contract}::test_contract[padim-tiles]")
    assert group_of(f"{contract}::test_the_costly_checks_exist") == contract
    assert group_of("src/anomem/cli/group.py::anomem.cli.group") == "src/anomem/cli/group.py"


@pytest.mark.slow
def test_a_file_runs_on_one_worker(tmp_path: Path) -> None:
    pytest.importorskip("xdist")
    files = [tmp_path / f"test_{name}.py" for name in "ab"]
    for file in files:
        file.write_text(TEST)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-n",
        "2",
        "--dist",
        "loadgroup",
        "-p",
        "tests.conftest",
        *map(str, files),
    ]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    found = [file.with_suffix(".txt").read_text().split() for file in files]
    assert [len(workers) for workers in found] == [6, 6]
    assert [len(set(workers)) for workers in found] == [1, 1]
