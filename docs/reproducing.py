"""Write reproducing.md, the papers' tables and what committed lines say of them: python docs/reproducing.py [--check].

Figures come from ``benchmarks/results``; a verdict follows from the figure, its interval and the paper's figure.
"""

from __future__ import annotations

import csv
import statistics
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from scipy.stats import t

from anomem.benchmark.run_file import read_runs
from anomem.errors import InputError
from anomem.report.benchmark.bars import find_figure

FOLDER = Path(__file__).parent
RESULTS = FOLDER.parent / "benchmarks" / "results"
PAGE, ENTRIES = FOLDER / "reproducing.md", RESULTS / "reproducing.csv"
CLOSE = 0.5
"""Points by which a level may fall short of the paper's and still be called reproduced."""

HEAD = """# Reproducing the papers

Written by `python docs/reproducing.py` from the lines in [benchmarks/results](../benchmarks/results/) and the list
[reproducing.csv](../benchmarks/results/reproducing.csv); edit those. Figures of image sets with ° are of reduced copies
or other splits, so they are not comparable with the paper's.

- **level**: the figure of the claim itself, by the paper's recipe. Reproduced: at most half a point below the paper's.
- **order**: a difference between two arms, in points, at the size that was run here. Reproduced: its 95 % interval (t,
  over seeds, or over classes and seeds) lies above 0. Direction holds: the mean is above 0, the interval contains it.
  Not reproduced: the mean is not above 0. One seed has no interval, and no verdict but its direction.
- **beside**: what other settings give on the same set; no verdict about the paper's recipe. **void**: run, but its arms
  say nothing.
- Costs are estimates for one H200 from steps and operations, not measured. The commands run on a CPU, too; for a trial
  add `--dry-steps 50 --limit 20`, which also names every recipe whose loss does not fall.
"""

TITLES = {"AnoMem": "AnoMem", "PLUME": "PLUME", "FYD": "FYD", "PMB": "PMB"}


@dataclass(frozen=True)
class Entry:
    """Row of the page: a claim of a paper, its command, and the figure here."""

    paper: str
    place: str
    claim: str
    command: str
    cost: str
    ran: str
    file: str
    key: str
    against: str
    kind: str
    published: str

    def figure(self) -> Figure | None:
        """Return the figure of the committed lines; None where nothing was run."""
        if not self.key:
            return None
        lines = _lines(self.file)
        if not self.against:
            return _spread(lines, self.key)
        paired = _paired(lines, self.key, self.against)
        return paired or Figure(_spread(lines, self.key).mean - _spread(lines, self.against).mean)


@dataclass(frozen=True)
class Figure:
    """Figure in the unit of the claim: a mean, and over n repeats the half width of its interval."""

    mean: float
    half: float | None = None
    n: int = 1

    def words(self) -> str:
        """Return the mean with its interval."""
        return f"{round(self.mean, 1) + 0.0:.1f}" + (
            f" ± {self.half:.1f} (n = {self.n})" if self.half is not None else ""
        )


def main(check: bool) -> int:
    """Write the page, or (check) return 1 where it is out of date."""
    text = written(entries())
    if check:
        return int(PAGE.read_text(encoding="utf-8") != text)
    PAGE.write_text(text, encoding="utf-8")
    return 0


def entries() -> list[Entry]:
    """Read the list of claims."""
    with ENTRIES.open(encoding="utf-8", newline="") as stream:
        return [Entry(**row) for row in csv.DictReader(stream)]


def written(found: Sequence[Entry]) -> str:
    """Return the page."""
    parts = [HEAD]
    for paper in TITLES:
        rows = ["| of the paper | claim | command | cost | run here | figure | paper | verdict |"]
        rows.append("|---|---|---|---|---|---:|---:|---|")
        rows += [_row(entry) for entry in found if entry.paper == paper]
        parts.append(f"## {paper}\n\n" + "\n".join(rows) + "\n")
    return "\n".join(parts)


def _row(entry: Entry) -> str:
    figure = entry.figure()
    cells = [
        *(entry.place, entry.claim, f"`{entry.command}`", entry.cost, entry.ran or "–"),
        *("–" if figure is None else figure.words(), entry.published or "–", verdict(entry, figure)),
    ]
    return "| " + " | ".join(cells) + " |"


def verdict(entry: Entry, figure: Figure | None) -> str:
    """Return what the figure says of the claim."""
    if figure is None:
        return "not run: needs a GPU"
    if entry.kind == "beside":
        return "not run: needs a GPU; other settings beside"
    if entry.kind == "void":
        return "no evidence"
    if entry.kind == "level":
        return "reproduced" if figure.mean >= float(entry.published.split()[0]) - CLOSE else "not reproduced"
    if figure.mean <= 0:
        return "not reproduced" if figure.half is not None else "opposite direction, one seed"
    if figure.half is None:
        return "direction, one seed"
    return "reproduced" if figure.mean > figure.half else "direction holds"


def _case(line: Mapping[str, Any], task: Mapping[str, Any]) -> list[Any]:
    return [line["protocol"], task.get("table"), task.get("case")]


@cache
def _lines(files: str) -> list[Mapping[str, Any]]:
    return [line for name in files.split() for line in read_runs(RESULTS / name)]


def _paired(lines: Sequence[Mapping[str, Any]], key: str, against: str) -> Figure | None:
    """Return the difference of two figures of run lines, paired by seed and draw; None with fewer than two pairs.

    Where only one of both figures has draws, the other belongs to each of them.
    """
    found = _differences(lines, key, against) or _differences(lines, key, against, without_draw=True)
    if len(found) < 2:
        return None
    return Figure(statistics.fmean(found), _half(statistics.stdev(found), len(found)), len(found))


def _differences(
    lines: Sequence[Mapping[str, Any]], key: str, against: str, *, without_draw: bool = False
) -> list[float]:
    """Return a difference per seed and draw; lines without a draw take part in each if `without_draw` is set."""
    found, runs = [], [line for line in lines if "seed" in line]
    for seed, draw in {_repeat(line) for line in runs}:
        repeats = ((seed, draw), (seed, None)) if without_draw else ((seed, draw),)
        part = [line for line in runs if _repeat(line) in repeats]
        with suppress(InputError):
            found.append(100 * (find_figure(part, key) - find_figure(part, against)))
    return found


def _repeat(line: Mapping[str, Any]) -> tuple[Any, Any]:
    return line["seed"], (line.get("task") or {}).get("draw")


def _half(deviation: float, n: int) -> float:
    """Return the half width of a 95 % interval (t) of a mean of n."""
    return float(t.ppf(0.975, n - 1)) * deviation / float(n**0.5)


def _spread(lines: Sequence[Mapping[str, Any]], key: str) -> Figure:
    """Return a figure; fractions of run lines become percent."""
    parts = key.split(" | ")
    for line in lines:
        task = line.get("task") or {}
        if "figures" in line and parts[:-1] in (_case(line, task), [f"@{task.get('reading')}"]):
            value = line["figures"].get(parts[-1])
            if isinstance(value, Mapping) and value.get("n", 1) > 1:
                return Figure(float(value["mean"]), _half(value["sd"], value["n"]), int(value["n"]))
            if isinstance(value, Mapping):
                return Figure(float(value["mean"]))
            if value is not None:
                return Figure(float(value) * (100 if parts[0].startswith("@") else 1))
    try:
        return Figure(100 * find_figure(lines, key))
    except InputError as error:
        raise InputError(f"{ENTRIES.name}: {error}") from error


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
