"""Results page for a repository: an overview, a table per protocol, measurements and bars."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from anomem.report.benchmark.bars import SEPARATOR, Outcome
from anomem.report.benchmark.captions import METRIC_WORDS, PROTOCOLS, ProtocolWords, figure
from anomem.report.benchmark.false_alarms import RULE
from anomem.report.benchmark.measurements import Measurement, circumstances, sections
from anomem.report.benchmark.rejected import Rejected, rejected_normals
from anomem.report.benchmark.report import Report
from anomem.report.benchmark.runs import Column, clean
from anomem.report.benchmark.tables import Cell, Row, Table
from anomem.report.benchmark.text_tables import (
    READING,
    md,
    md_cell,
    md_name,
    md_row,
    promise_lines,
    set_lines,
)

__all__ = ["bar_lines", "overview", "results_page"]

LOCATING = "localisation"
OVERVIEW = ("image_auroc", "aupro")
DECISIONS = (
    "Decisions at the alpha of each fit; nothing is re-split. Attainable: found by the lowest threshold that rejects "
    "at most alpha of these normals. It is chosen on them, so that no calibration can be expected to reach it."
)
_SINGLE, _GROUPS = "one", ("mean", "group")


@dataclass(frozen=True)
class _Merged:
    """Row merged from one or several tables, with its cells by column title."""

    name: str
    row: Row
    cells: dict[str, Cell]


def results_page(
    report: Report, measurements: Sequence[Measurement] = (), bars: Sequence[Outcome] = (), *, command: str = ""
) -> str:
    """Write the results page as Markdown.

    Parameters
    ----------
    report : Report
    measurements : sequence of Measurement
        A section per script, with the tables that a bar checks, or all without bars. Of earlier scripts, titles and
        circumstances.
    bars : sequence of Outcome
    command : str
        Command that writes the page; shown in its first lines.
    """
    lines = ["# Results", "", *([f"Made by `{command}`.", ""] if command else []), READING, ""]
    lines += [*(f"- {md(note)}" for note in report.notes), ""] if report.notes else []
    lines += set_lines(report.sets)
    lines += ["## Overview", "", *overview(report), ""]
    for protocol in dict.fromkeys(table.protocol for table in report.tables if _is_result(table)):
        lines += _protocol_lines(protocol, [t for t in report.tables if t.protocol == protocol and _is_result(t)])
    lines += _rate_lines(report)
    lines += sections([m for m in measurements if _belongs(m, bars)])
    lines += bar_lines(bars)
    lines += _earlier_lines([m for m in measurements if m.earlier])
    return "\n".join([*lines, *_maker_lines(report)])


def overview(report: Report) -> list[str]:
    """Write one table: methods that localize, on sets that define their normals, with trivial features.

    Methods with image AUROC on less than half of the sets are left out.
    """
    of_metric = {
        metric: [t for t in report.tables if t.protocol == LOCATING and _is_result(t) and t.metric == metric]
        for metric in OVERVIEW
    }
    columns = [c for tables in of_metric.values() for table in tables for c in table.columns if c.kind == _SINGLE]
    titles, flags = {c.title: c.members[0] for c in columns}, {c.title for c in columns if c.confounded}
    if not titles:
        return ["No method was judged on defects without labels."]
    merged = {metric: _merged(tables) for metric, tables in of_metric.items()}
    drawing = {m.name for m in merged["aupro"] if m.row.kind != "published"}
    wide = [m for m in merged["image_auroc"] if 2 * sum(title in m.cells for title in titles) >= len(titles)]
    names = [m.name for m in wide if m.name in drawing]
    lines = [md_row(["", "", *(md(t) + ("§" if t in flags else "") for t in titles)])]
    lines.append("|---|---" + "|---:" * len(titles) + "|")
    for metric, found in merged.items():
        about = f"{METRIC_WORDS[metric].title} %"
        shown = [m for m in found if m.name in names]
        lines += [md_row([about, m.name, *(md_cell(m.row, m.cells.get(t), metric) for t in titles)]) for m in shown]
        if metric == "image_auroc":
            lines.append(md_row([about, "*best trivial feature alone*", *_trivial(report, titles)]))
    return lines + _decision_lines(report, names, list(titles))


def _decision_lines(report: Report, names: Sequence[str], titles: Sequence[str]) -> list[str]:
    """Write what verdicts at the fits' alpha find and reject, for methods that give verdicts."""
    decided = {name: {r.where: r for r in rejected_normals(report.runs.runs, name, report.sets)} for name in names}
    about: dict[str, Callable[[Rejected], str]] = {
        "promised false alarms, alpha %": lambda r: f"{100 * r.alpha:.3g}",
        "false alarms at alpha %": lambda r: figure(r.rate),
        "defects found at alpha %": lambda r: figure(r.detection),
    }
    return [
        md_row([title, md(name), *(words(found[t]) if t in found else "–" for t in titles)])
        for title, words in about.items()
        for name, found in decided.items()
        if found
    ]


def _trivial(report: Report, titles: Mapping[str, Column]) -> list[str]:
    best: dict[Column, float] = {}
    for checked in report.checks:
        areas = [area for area in checked.check.areas.values() if area is not None]
        if checked.protocol == PROTOCOLS[LOCATING].title and not checked.trial and areas:
            best[checked.column] = max(areas)
    return [f"*{figure(best[column])}*" if column in best else "–" for column in titles.values()]


def bar_lines(bars: Sequence[Outcome]) -> list[str]:
    """Write the number of bars met, and a table of missed ones."""
    if not bars:
        return []
    missed = [outcome for outcome in bars if not outcome.met]
    lines = ["## Bars", "", f"{len(bars) - len(missed)} of {len(bars)} are met, {len(missed)} missed.", ""]
    lines += ["| missed | found | limit | note |", "|---|---:|---:|---|"] if missed else []
    for outcome in missed:
        bar = outcome.bar
        limit = f"{'≥' if bar.direction == '>=' else '≤'} {bar.limit:g}"
        lines.append(md_row([md(clean(bar.name, 200)), f"{outcome.value:.4g}", limit, md(clean(bar.note, 200))]))
    return [*lines, ""]


def _is_result(table: Table) -> bool:
    return not table.sweep and not table.trial


def _protocol_lines(protocol: str, tables: Sequence[Table]) -> list[str]:
    """Write a section: per figure, a table of all settings of the same sets."""
    words = PROTOCOLS.get(protocol, ProtocolWords(protocol, ""))
    lines = [f"## {md(words.title)}", "", *([words.text, ""] if words.text else [])]
    parts: dict[tuple[str, tuple[str, ...]], list[Table]] = {}
    for table in tables:
        parts.setdefault((table.metric, _families(table)), []).append(table)
    for (metric, _), part in parts.items():
        titles = list(dict.fromkeys(c.title for t in part for c in t.columns if c.kind in (_SINGLE, *_GROUPS)))
        flags = {c.title for t in part for c in t.columns if c.confounded}
        unit = " %" if METRIC_WORDS[metric].fraction else ""
        lines += [
            md_row([f"{METRIC_WORDS[metric].title}{unit}", *(md(t) + ("§" if t in flags else "") for t in titles)])
        ]
        lines += ["|---" + "|---:" * len(titles) + "|"]
        for merged in _merged(part):
            cells = [md_cell(merged.row, merged.cells.get(title), metric) for title in titles]
            lines.append(md_row([merged.name, *cells]))
        lines += ["", *(f"{md(note)}\n" for note in dict.fromkeys(note for t in part for note in t.notes))]
    return lines


def _families(table: Table) -> tuple[str, ...]:
    several = table.whole.family == ""
    return () if several else (table.whole.family,)


def _merged(tables: Sequence[Table]) -> list[_Merged]:
    """Return the rows of tables, named by their setting too where the tables differ in it."""
    several = len({table.setting for table in tables}) > 1
    found: dict[tuple[str, str, str], _Merged] = {}
    for table in tables:
        titles = {column.key: column.title for column in table.columns}
        for row in table.rows:
            prefix = f"{md(table.setting)}: " if several and table.setting else ""
            merged = found.setdefault((table.setting, row.kind, row.name), _Merged(prefix + md_name(row), row, {}))
            merged.cells.update({titles[key]: cell for key, cell in row.cells.items()})
    return list(found.values())


def _rate_lines(report: Report) -> list[str]:
    rejected = rejected_normals(report.runs.runs, report.baseline, report.sets)
    lines: list[str] = []
    if rejected:
        lines += ["## False alarms on test normals", "", DECISIONS, ""]
        heads = ["", "alpha %", "normals rejected", "of", "%", "anomalies found %", "attainable %", "fits"]
        lines += [md_row(heads), "|---" + "|---:" * 7 + "|"]
        for r in rejected:
            figures = [f"{100 * r.alpha:.3g}", f"{r.n_false:,}", f"{r.n_normal:,}", f"{100 * r.rate:.2f}"]
            found = ["–" if share is None else f"{100 * share:.1f}" for share in (r.detection, r.attainable)]
            lines.append(md_row([md(f"{r.where}, {r.method}"), *figures, *found, str(r.n_fits)]))
        lines.append("")
    if report.promises:
        words = PROTOCOLS["promise"]
        lines += [f"## {words.title}", "", words.text, "", *promise_lines(report), "", RULE, ""]
    return lines


def _belongs(measurement: Measurement, bars: Sequence[Outcome]) -> bool:
    """Return True where a measurement's table is on the page."""
    barred = {tuple(outcome.bar.key.split(SEPARATOR)[:2]) for outcome in bars}
    return not measurement.earlier and (not bars or (measurement.protocol, measurement.table) in barred)


def _earlier_lines(measurements: Sequence[Measurement]) -> list[str]:
    if not measurements:
        return []
    firsts = {m.protocol: m for m in reversed(measurements)}
    lines = [
        "## Figures of earlier scripts",
        "",
        "As measured then; in full in `measurements.md` of the report.",
        "",
    ]
    lines += [f"- {m.title}: {circumstances(m)}" for m in reversed(firsts.values())]
    return [*lines, ""]


def _maker_lines(report: Report) -> list[str]:
    lines = ["## Software and machines", "", "| lines | software | machine |", "|---:|---|---|"]
    lines += [md_row([str(made.n), md(made.software), md(made.machine)]) for made in report.makers]
    return [*lines, ""]
