"""Benchmark report files: one self-contained HTML page, with tables and plots beside it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anomem.report.benchmark import captions
from anomem.report.benchmark import text_tables as export
from anomem.report.benchmark.bars import Outcome, bars_csv
from anomem.report.benchmark.baseline import Versus
from anomem.report.benchmark.charts import Chart, Line, chart_figure, chart_svg
from anomem.report.benchmark.columns import TableColumn
from anomem.report.benchmark.curves import Panel, curve_figure, curve_svg
from anomem.report.benchmark.false_alarms import RULE, FalseAlarms
from anomem.report.benchmark.measurements import Measurement, sections
from anomem.report.benchmark.report import Report
from anomem.report.benchmark.sets import MARK_WORDS
from anomem.report.benchmark.tables import Table
from anomem.report.drawing import write_png
from anomem.report.evaluation.page import read_resource, safe
from anomem.runtime.neutral import plain_only

if TYPE_CHECKING:
    from jinja2 import Template

__all__ = ["REPORT", "report_page", "slugs", "write_report"]

REPORT = "report.html"
_BANDS = "Lines: means; bands: their standard error over seeds and draws."
_ROC = "Several fits are averaged at equal false-alarm rates."
_TYPES = "Each type against all normal test images."


@dataclass(frozen=True)
class Section:
    """Section of the page: one protocol, or one sweep."""

    id: str
    title: str
    text: str
    tables: tuple[Table, ...] = ()
    comparisons: tuple[Versus, ...] = ()
    panels: tuple[tuple[Panel, Any], ...] = ()
    panel_caption: str = _BANDS
    charts: tuple[tuple[str, str, tuple[tuple[Chart, Any], ...]], ...] = ()
    promises: tuple[FalseAlarms, ...] = ()


def write_report(
    report: Report, folder: Path, measurements: Sequence[Measurement] = (), bars: Sequence[Outcome] = ()
) -> list[Path]:
    """Write page, tables and plots, and measurements and bars if any, into an existing folder.

    Returns
    -------
    list of Path
        The page first.
    """
    texts = {
        REPORT: report_page(report),
        "tables.md": export.markdown(report),
        "tables.csv": export.tables_csv(report),
        "comparisons.csv": export.comparisons_csv(report),
        "confound.csv": export.confound_csv(report),
    }
    if measurements:
        texts["measurements.md"] = "\n".join(["# Measurements", "", *sections(measurements)])
    if bars:
        texts["bars.csv"] = bars_csv(bars)
    written = []
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8", errors="backslashreplace")
        written.append(folder / name)
    return [*written, *_write_plots(report, folder)]


def report_page(report: Report) -> str:
    """Render the page, without scripts, fonts or network access."""
    plots, colours = report.plots, report.colours

    def drawn(chart: Chart | None, name: str) -> tuple[Chart, Any] | None:
        return None if chart is None else (chart, safe(chart_svg(chart, colours, name)))

    return _template().render(
        report=report,
        baseline=report.baseline,
        summary=_summary(report),
        sections=_sections(report),
        plots={"memory": drawn(plots.memory, "memory"), "promise": drawn(plots.promise, "promise")},
        colours=colours,
        metrics=captions.METRIC_WORDS,
        features=export.FEATURE_WORDS,
        heading=export.heading,
        caption=_caption,
        verdict=export.verdict,
        promise_rule=RULE,
        mark_words=MARK_WORDS,
        judged=_judged,
        lines_of=_lines_of,
        is_last_mean=_is_last_mean,
        style=safe(read_resource("style.css") + read_resource("runs.css")),
    )


def _write_plots(report: Report, folder: Path) -> list[Path]:
    plots, colours = report.plots, report.colours
    curves = {"few-labels": plots.few_labels, "gamma": plots.gamma}
    curves |= {slug: plots.sweeps[name] for name, slug in slugs(plots.sweeps, "sweep-").items()}
    charts: dict[str, Sequence[Chart]] = {"roc": plots.roc, "types": plots.types}
    charts |= {name: [chart] for name, chart in (("memory", plots.memory), ("promise", plots.promise)) if chart}
    written = []
    made: list[tuple[str, Callable[[], Any]]] = [
        *((name, lambda p=panels: curve_figure(p, colours)) for name, panels in curves.items() if panels),
        *((name, lambda c=found: chart_figure(c, colours)) for name, found in charts.items() if found),
    ]
    for name, figure in made:
        write_png(figure(), folder / f"{name}.png")
        written.append(folder / f"{name}.png")
    return written


def _sections(report: Report) -> list[Section]:
    """Return the sections: protocols in their order, then sweeps."""
    by_protocol: dict[str, list[Table]] = {}
    by_sweep: dict[str, list[Table]] = {}
    for table in report.tables:
        (by_sweep if table.sweep else by_protocol).setdefault(table.sweep or table.protocol, []).append(table)
    names = [name for name in captions.PROTOCOLS if name in by_protocol or (name == "promise" and report.promises)]
    names += [name for name in by_protocol if name not in names]
    ids = slugs(names, "p-")
    sections = [_protocol_section(report, name, ids[name], by_protocol.get(name, [])) for name in names]
    ids = slugs(report.plots.sweeps, "sweep-")
    for name, tables in by_sweep.items():
        svgs = _drawn(report, report.plots.sweeps[name], ids[name])
        text = "One hyperparameter at several values, all else equal."
        sections.append(Section(ids[name], f"Sweep: {name}", text, tuple(tables), _of(report, tables), svgs))
    return sections


def _protocol_section(report: Report, name: str, slug: str, tables: Sequence[Table]) -> Section:
    words = captions.PROTOCOLS.get(name, captions.ProtocolWords(name, ""))
    panels = {"few-labels": report.plots.few_labels, "one-vs-rest": report.plots.gamma}.get(name, ())
    charts = []
    if name == "localisation":
        for title, text, found, prefix in (
            ("ROC curves", _ROC, report.plots.roc, "roc"),
            ("By type of defect", _TYPES, report.plots.types, "types"),
        ):
            if found:
                drawn = [(c, safe(chart_svg(c, report.colours, f"{prefix}-{i}"))) for i, c in enumerate(found)]
                charts.append((title, text, tuple(drawn)))
    return Section(
        id=slug,
        title=words.title,
        text=words.text,
        tables=tuple(tables),
        comparisons=_of(report, tables),
        panels=_drawn(report, panels, slug),
        charts=tuple(charts),
        promises=report.promises if name == "promise" else (),
    )


def _of(report: Report, tables: Sequence[Table]) -> tuple[Versus, ...]:
    names = {table.name for table in tables}
    return tuple(versus for versus in report.comparisons if versus.table.name in names)


def _drawn(report: Report, panels: Sequence[Panel], prefix: str) -> tuple[tuple[Panel, Any], ...]:
    return tuple((p, safe(curve_svg(p, report.colours, f"{prefix}-plot-{i}"))) for i, p in enumerate(panels))


def _lines_of(charts: Sequence[tuple[Chart, Any]]) -> list[Line]:
    """Return one line per method of some charts, for their legend."""
    return list({line.label: line for chart, _ in charts for line in chart.lines}.values())


def _summary(report: Report) -> str:
    runs = report.runs.runs
    peers = dict.fromkeys(run.label for run in runs if run.peer)
    own = dict.fromkeys(run.label for run in runs if not run.peer)
    sets = {run.column[0] for run in runs}
    words = [
        f"{len(runs):,} finished units of work",
        f"{_count(len(own), 'method')}" + (f" and {_count(len(peers), 'peer')}" if peers else ""),
        _count(len(sets), "image set"),
    ]
    return ", ".join(words) + "."


def _caption(table: Table) -> str:
    """Return a table's caption: repetitions, and the reason where marks are absent."""
    words = captions.METRIC_WORDS[table.metric]
    counts = sorted({cell.n for row in table.measured for cell in row.cells.values()})
    repeats = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    parts = [f"{'Percent' if words.fraction else 'Smaller is better'}; {repeats} repetition{'s' * (counts[-1] > 1)}."]
    if len(table.measured) > 1 and not any(cell.mark for row in table.measured for cell in row.cells.values()):
        parts.append("No marks: no two rows were judged on the same test images, seed and draw.")
    return " ".join(parts)


def _is_last_mean(table: Table, column: TableColumn) -> bool:
    """Return True for the last column of means."""
    means = [other for other in table.columns if other.kind != "one"]
    return bool(means) and means[-1] is column


def _judged(versus: Versus) -> Any:
    """Return a comparison's verdict as markup."""
    higher = captions.METRIC_WORDS[versus.table.metric].higher
    sign = versus.found.verdict * (1 if higher else -1)
    if versus.found.low is None:
        return safe('<span class="even">–</span>')
    word, tone = {1: ("better", "better"), -1: ("worse", "worse"), 0: ("no clear difference", "even")}[sign]
    return safe(f'<span class="{tone}">{word}</span>')


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def slugs(names: Iterable[str], prefix: str) -> dict[str, str]:
    """Return a unique short name, for files and anchors, per name.

    Examples
    --------
    >>> slugs(["Memory size", "memory/size"], "sweep-")
    {'Memory size': 'sweep-memory-size', 'memory/size': 'sweep-memory-size-2'}
    """
    found: dict[str, str] = {}
    for name in names:
        stem = prefix + (re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:60] or "other")
        number = 1
        while (slug := stem if number == 1 else f"{stem}-{number}") in found.values():
            number += 1
        found[name] = slug
    return found


def _breakable(text: str) -> Any:
    """Allow line breaks between the words of long column names."""
    from markupsafe import escape

    words = [str(escape(word)) for word in text.split(" ")]
    return safe(" ".join(re.sub(r"([_/:,-])", r"\1<wbr>", word) if len(word) > 14 else word for word in words))


@cache
def _template() -> Template:
    from jinja2 import Environment, StrictUndefined

    options: dict[str, Any] = {"undefined": StrictUndefined, "trim_blocks": True, "lstrip_blocks": True}
    environment = Environment(autoescape=True, finalize=plain_only, **options)
    environment.filters["figure"] = lambda value, fraction=True: captions.figure(value, fraction=fraction)
    environment.filters["change"] = lambda value, fraction=True: captions.change(value, fraction=fraction)
    environment.filters["deviation"] = export.spread_words
    environment.filters["breakable"] = _breakable
    return environment.from_string(read_resource("runs.html.j2"))
