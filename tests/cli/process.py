"""Commands in separate processes, as users run them."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from anomem.cli.main import run

COMMAND = (sys.executable, "-m", "anomem.cli.main")
KNN = ("--method", "knn", "--set", "size=64", "--calibration", "split")
"""The fastest fit there is."""
TINY = ("--set", "size=64", "--calibration", "split")
"""The fastest fit with maps and a second stage."""


@dataclass(frozen=True)
class Ran:
    """What a finished command left: its exit code and what it said."""

    code: int
    out: str
    err: str

    @property
    def result(self) -> dict[str, Any]:
        """Stdout, which must be exactly one JSON object on one line."""
        assert self.code == 0, self.err
        (line,) = self.out.splitlines()
        content = json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
        assert isinstance(content, dict)
        return content

    @property
    def error(self) -> str:
        """The one line that an error is, after ``anomem: error:``."""
        lines = [
            line for line in self.err.splitlines() if not line.startswith(("anomem: note: ", "anomem: progress: "))
        ]
        assert len(lines) == 1, self.err
        assert lines[0].startswith("anomem: error: "), self.err
        return lines[0].removeprefix("anomem: error: ")


Command = Callable[..., Ran]
Run = Callable[..., tuple[int, str, str]]


def environment(**changes: str) -> dict[str, str]:
    """This process's environment, for a child that is to see the same package."""
    source = Path(__file__).parents[2] / "src"
    paths = [str(source), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **changes}


LIMIT = 300
"""Seconds after which a process is killed, and the test that waits for it fails."""


def completed(command: Sequence[Any], *, check: bool = False, **options: Any) -> subprocess.CompletedProcess[Any]:
    """Run a program to its end, its output as text unless `options` of `subprocess.run` say otherwise."""
    given = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "timeout": LIMIT, **options}
    return subprocess.run(command, check=check, **given)


@contextmanager
def running(command: Sequence[Any], **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """Start a program; it is killed at the end of the block, or after the time limit, unless it has ended."""
    given = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options}
    with subprocess.Popen(command, **given) as process:
        limit = threading.Timer(LIMIT, process.kill)
        limit.daemon = True
        limit.start()
        try:
            yield process
        finally:
            limit.cancel()
            process.kill()  # does nothing to a process that has been waited for


def call(arguments: Sequence[object], cwd: Path, **changes: str) -> Ran:
    """Run a command in a process of its own."""
    ran = completed([*COMMAND, *map(str, arguments)], cwd=cwd, env=environment(**changes))
    return Ran(ran.returncode, ran.stdout, ran.stderr)


def call_here(arguments: Sequence[object], cwd: Path) -> Ran:
    """Run a command in this process: fixtures need none of its own."""
    with chdir(cwd), redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        code = run([str(argument) for argument in arguments])
    return Ran(code, out.getvalue(), err.getvalue())


@dataclass(frozen=True)
class Shop:
    """A data set in MVTec layout and models fitted to it, shared by all tests: nobody writes here."""

    data: Path
    knn: Path
    anomem: Path
    fitted: dict[str, dict[str, Any]]

    @property
    def images(self) -> list[Path]:
        """The ten test images."""
        return sorted((self.data / "test").rglob("*.png"))


def files(folder: Path) -> set[str]:
    """Everything below a folder, hidden files too."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def without_notes(err: str) -> list[str]:
    """Lines of stderr that are neither notes nor progress."""
    return [line for line in err.splitlines() if not line.startswith(("anomem: note: ", "anomem: progress: "))]


FIT_KEYS = {
    "model",
    "method",
    "n_train",
    "n_labelled",
    "n_calibration",
    "alpha",
    "threshold",
    "rate_limit_95",
    "seconds",
    "peak_mb",
}


def write_labels(place: Path, rows: list[tuple[Path, int]], shop: Shop, *, masks: bool = True) -> Path:
    with place.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("path", "label", "mask", "type"))
        for path, label in rows:
            mask = shop.data / "ground_truth" / path.parent.name / f"{path.stem}_mask.png"
            known = label == 1 and masks
            writer.writerow((path, label, mask if known else "", path.parent.name if known else ""))
    return place


def defects(shop: Shop) -> list[Path]:
    return [path for path in shop.images if path.parent.name != "good"]


def goods(shop: Shop) -> list[Path]:
    return [path for path in shop.images if path.parent.name == "good"]
