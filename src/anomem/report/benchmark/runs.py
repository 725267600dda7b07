"""Run files of a report: all lines, checked for consistency."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anomem.benchmark.run_file import read_runs
from anomem.errors import InputError
from anomem.evaluation.confounds import FEATURES
from anomem.report.benchmark.line import Column, Run, Sweep, clean, finite, run_of

__all__ = ["FEATURES", "Column", "Run", "Runs", "Sweep", "clean", "finite", "read_all", "read_some"]


@dataclass(frozen=True)
class Runs:
    """Run lines of a report.

    Parameters
    ----------
    runs : tuple of Run
    files : tuple of str
    notes : tuple of str
        Remarks about the files, for the reader.
    """

    runs: tuple[Run, ...]
    files: tuple[str, ...]
    notes: tuple[str, ...] = ()


def read_all(paths: Sequence[str | Path]) -> Runs:
    """Read run files.

    Parameters
    ----------
    paths : sequence of str or Path
        Files of one format. A line that two files share is counted once.

    Returns
    -------
    Runs

    Raises
    ------
    InputError
        A file is no run file or has another format, a line lacks required values or has an impossible figure, two lines
        contradict each other about one unit, or no line exists.
    """
    runs: dict[str, Run] = {}
    by_unit: dict[str, Run] = {}
    notes: list[str] = []
    for path in dict.fromkeys(map(Path, paths)):
        doubled = 0
        for number, line in enumerate(read_runs(path), start=1):
            run = run_of(line, f"{path}: line {number}")
            earlier = runs.get(run.key) or by_unit.get(run.unit)
            if earlier is None:
                runs[run.key] = by_unit[run.unit] = run
            elif _answer(earlier) == _answer(run):
                doubled += 1
            else:
                raise InputError(f"{run.where}: same unit of work as {earlier.where}; leave one of them out")
        if doubled:
            notes.append(f"{path}: {doubled} lines are also in an earlier file; counted once.")
        if _torn(path):
            notes.append(f"{path}: incomplete last line left out; rerun its bench command to resume.")
    if not runs:
        raise InputError(f"{', '.join(map(str, paths))}: no finished unit of work; run anomem bench first")
    return Runs(
        tuple(runs.values()), tuple(clean(str(path)) for path in paths), tuple(clean(note, 500) for note in notes)
    )


def read_some(path: str | Path, keys: Collection[str]) -> list[Run]:
    """Read the runs of these keys from one file, in its order; errors as for `read_all`."""
    lines = enumerate(read_runs(path), start=1)
    return [run_of(line, f"{path}: line {number}") for number, line in lines if line["key"] in keys]


def _answer(run: Run) -> tuple[Any, ...]:
    return run.values, run.intervals, run.images, run.scores


def _torn(path: Path) -> bool:
    with path.open("rb") as stream:
        content = stream.read()
    return not content.endswith(b"\n") and bool(content)
