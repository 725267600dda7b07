"""Content of a report: tables, comparisons, checks and plots from run files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from anomem.report.benchmark.baseline import Versus, choose_baseline, per_column, versus
from anomem.report.benchmark.captions import PROTOCOLS, set_title, trial_words
from anomem.report.benchmark.charts import MOST_CHARTS, Chart, memory_chart, promise_chart, roc_charts, type_charts
from anomem.report.benchmark.comparison import StoredScores
from anomem.report.benchmark.confounds import Check, Confounds, column_runs
from anomem.report.benchmark.costs import Cost, costs
from anomem.report.benchmark.curves import Panel, few_label_panels, gamma_panels, sweep_panels
from anomem.report.benchmark.false_alarms import FalseAlarms, promises
from anomem.report.benchmark.published import with_published
from anomem.report.benchmark.runs import Column, Run, Runs, read_all
from anomem.report.benchmark.sets import MARK, MeasuredSet, marked, with_marks
from anomem.report.benchmark.tables import Table, make_tables
from anomem.report.drawing import PAGE

__all__ = ["Checked", "Maker", "Plots", "Report", "colour_numbers", "gather"]


@dataclass(frozen=True)
class Checked:
    """Confound check of one column of one protocol."""

    where: str
    protocol: str
    trial: str
    check: Check
    column: Column


@dataclass(frozen=True)
class Maker:
    """Software and machine that made some lines, with their number and methods."""

    software: str
    machine: str
    methods: tuple[str, ...]
    n: int


@dataclass(frozen=True)
class Plots:
    """Plots of a report; empty where the lines have no data for them."""

    few_labels: tuple[Panel, ...]
    gamma: tuple[Panel, ...]
    sweeps: dict[str, tuple[Panel, ...]]
    roc: tuple[Chart, ...]
    types: tuple[Chart, ...]
    memory: Chart | None
    promise: Chart | None

    def together(self) -> list[list[str]]:
        """Return the labels that plots show together; plots with a common legend count as one."""
        panels = [*self.few_labels, *self.gamma, *(panel for found in self.sweeps.values() for panel in found)]
        groups = [[series.label for series in panel.series] for panel in panels]
        single = [[chart] for chart in (self.memory, self.promise) if chart is not None]
        legends = (
            {line.label: None for chart in charts for line in chart.lines} for charts in (self.roc, self.types, *single)
        )
        return [*groups, *(list(labels) for labels in legends)]


@dataclass(frozen=True)
class Report:
    """Content of a report.

    Parameters
    ----------
    runs : Runs
    tables : tuple of Table
    baseline : str
        Label of the method that others are compared with; empty without tables.
    comparisons, per_column : tuple of Versus
        Over all categories of a table; within each.
    promises : tuple of FalseAlarms
    costs : tuple of Cost
    checks : tuple of Checked
    plots : Plots
    makers : tuple of Maker
    colours : dict
        Label -> number of its colour.
    notes : tuple of str
    sets : tuple of MeasuredSet
        Measured image sets, where described.
    """

    runs: Runs
    tables: tuple[Table, ...]
    baseline: str
    comparisons: tuple[Versus, ...]
    per_column: tuple[Versus, ...]
    promises: tuple[FalseAlarms, ...]
    costs: tuple[Cost, ...]
    checks: tuple[Checked, ...]
    plots: Plots
    makers: tuple[Maker, ...]
    colours: dict[str, int]
    notes: tuple[str, ...]
    sets: tuple[MeasuredSet, ...] = ()


def gather(
    paths: Sequence[str | Path],
    *,
    scores: Sequence[Path] = (),
    baseline: str | None = None,
    sets: Sequence[MeasuredSet] = (),
) -> Report:
    """Read run files and compute a report's content.

    Parameters
    ----------
    paths : sequence of str or Path
    scores : sequence of Path
        Folders of stored scores.
    baseline : str or None
        Label of the method that others are compared with; see `anomem.report.benchmark.baseline.choose_baseline`.
    sets : sequence of MeasuredSet
        Measured image sets; unofficial ones are marked.

    Returns
    -------
    Report

    Raises
    ------
    InputError
        A file cannot be used, or no line has the baseline's label or can be compared with it.
    """
    kept = StoredScores(scores)
    read = read_all(paths)
    confounds = Confounds(read.runs)
    tables = tuple(with_marks(with_published(table), sets) for table in make_tables(read.runs, kept, confounds))
    label = choose_baseline(tables, baseline)
    false_alarm_rates = tuple(promises(read.runs, sets))
    plots = _plots(read.runs, tables, false_alarm_rates, label)
    return Report(
        runs=read,
        tables=tables,
        baseline=label,
        comparisons=tuple(versus(tables, label, kept, demanded=baseline is not None)),
        per_column=tuple(per_column(tables, label, kept)),
        promises=false_alarm_rates,
        costs=tuple(costs(read.runs, sets)),
        checks=tuple(_checks(read.runs, confounds, sets)),
        plots=plots,
        makers=tuple(_makers(read.runs)),
        colours=colour_numbers(plots.together(), label),
        notes=(*read.notes, *_notes(read.runs)),
        sets=tuple(sets),
    )


def _plots(runs: Sequence[Run], tables: Sequence[Table], kept: Sequence[FalseAlarms], first: str) -> Plots:
    return Plots(
        few_labels=tuple(few_label_panels(tables, first)),
        gamma=tuple(gamma_panels(tables, first)),
        sweeps={name: tuple(panels) for name, panels in sweep_panels(tables, first).items()},
        roc=tuple(roc_charts(tables, first)[:MOST_CHARTS]),
        types=tuple(type_charts(tables, first)[:MOST_CHARTS]),
        memory=memory_chart(runs),
        promise=promise_chart(kept, first),
    )


def colour_numbers(groups: Iterable[Sequence[str]], first: str) -> dict[str, int]:
    """Assign colour numbers to methods: equal in all plots, distinct within each while colours last.

    Parameters
    ----------
    groups : iterable of sequence of str
        Labels that are shown together.
    first : str
        The label that has colour 0.

    Examples
    --------
    >>> colour_numbers([["a", "b"], ["c", "b"]], "c")
    {'c': 0, 'b': 1, 'a': 0}
    """
    neighbours: dict[str, set[str]] = {first: set()}
    for group in groups:
        for label in group:
            neighbours.setdefault(label, set()).update(group)
    found: dict[str, int] = {}
    # Labels shown with most others come first.
    for label in sorted(neighbours, key=lambda name: (name != first, -len(neighbours[name]))):
        taken = {found[other] for other in neighbours[label] if other in found}
        free = (number for number in range(len(PAGE.series)) if number not in taken)
        found[label] = next(free, len(found) % len(PAGE.series))
    return found


def _checks(runs: Sequence[Run], confounds: Confounds, sets: Sequence[MeasuredSet]) -> list[Checked]:
    found = []
    for part in column_runs(run for run in runs if "image_auroc" in run.values):
        protocol, (data, category, apart) = part[0].protocol, part[0].column
        title = set_title(part[0].family)
        where = title if category == part[0].family.partition(":")[0] else f"{title} {category}"
        if apart and apart == category:
            where = f"{data} against {apart}"
        elif apart:
            where = f"{where}: {apart}"
        words = PROTOCOLS[protocol].title if protocol in PROTOCOLS else protocol
        where = where + (MARK if marked(data, sets) else "")
        found.append(Checked(where, words, trial_words(part[0]), confounds.check(part), part[0].column))
    return found


def _makers(runs: Sequence[Run]) -> list[Maker]:
    found: dict[tuple[str, str], dict[str, int]] = {}
    for run in runs:
        counts = found.setdefault((_software(run), _machine(run)), {})
        counts[run.label] = counts.get(run.label, 0) + 1
    return [Maker(*key, tuple(counts), sum(counts.values())) for key, counts in found.items()]


def _software(run: Run) -> str:
    own = "" if run.peer else "anomem"
    names = {own: "version", "revision": "revision", "source": "source", "torch": "torch", "timm": "timm"}
    return _said(run, names)


def _machine(run: Run) -> str:
    return _said(run, {"": "cpu", "cores": "cores", "GPU": "gpu", "threads": "threads", "batches of": "batch_size"})


def _said(run: Run, names: dict[str, str]) -> str:
    words = [f"{title} {run.made_by[name]}".strip() for title, name in names.items() if name in run.made_by]
    return ", ".join(words) or "not recorded"


def _notes(runs: Sequence[Run]) -> list[str]:
    notes = []
    tries = [run for run in runs if run.trial != (None, None)]
    if tries:
        words = ", ".join(dict.fromkeys(trial_words(run) for run in tries))
        notes.append(f"{len(tries):,} of {len(runs):,} lines are trials ({words} at most), not results.")
    if any(run.made_by.get("revision", "").endswith("+") for run in runs):
        notes.append("Some lines were made with files that differ from their revision (marked +).")
    return notes
