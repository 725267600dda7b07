"""Tables of a report as Markdown, CSV and plain values."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from anomem.metrics.paired import Comparison
from anomem.report.benchmark.captions import METRIC_WORDS, change, figure
from anomem.report.benchmark.false_alarms import RULE
from anomem.report.benchmark.report import Report
from anomem.report.benchmark.runs import FEATURES
from anomem.report.benchmark.sets import MARK_WORDS, MeasuredSet
from anomem.report.benchmark.tables import Cell, Row, Table
from anomem.runtime.neutral import csv_text

__all__ = [
    "FEATURE_WORDS",
    "READING",
    "comparisons_csv",
    "confound_csv",
    "heading",
    "markdown",
    "md",
    "md_cell",
    "md_name",
    "md_row",
    "plain",
    "promise_lines",
    "set_lines",
    "spread_words",
    "tables_csv",
    "verdict",
]

FEATURE_WORDS = dict(zip(FEATURES, ("mean grey", "std of grey", "image size", "file size"), strict=True))

_TABLE_COLUMNS = (
    *("table", "protocol", "sweep", "setting", "figure", "trial", "method", "kind", "column", "column_kind", "set"),
    *("mean", "sd", "repetitions", "low", "high", "mark", "other_images", "categories_lacking", "confounded", "source"),
)
_VERSUS_COLUMNS = (
    *("table", "protocol", "sweep", "setting", "figure", "trial", "column", "method", "baseline", "difference"),
    *("low", "high", "wins", "ties", "losses", "error_ratio", "units", "categories", "resampled"),
)


def heading(table: Table) -> str:
    """Return setting, metric and limits of trials in one line."""
    words = [f"Sweep {table.sweep}" if table.sweep else "", table.setting, table.title]
    return ", ".join(filter(None, words)) + (f" (trial: {table.trial} at most)" if table.trial else "")


def markdown(report: Report) -> str:
    """Write all tables, comparisons and the confound check as Markdown."""
    lines = ["# Results", "", READING, ""]
    if report.notes:
        lines += [*(f"- {md(note)}" for note in report.notes), ""]
    lines += set_lines(report.sets)
    for table in report.tables:
        lines += [f"## {md(table.protocol)}: {md(heading(table))}", "", *_table_lines(table), ""]
        lines += [f"{md(note)}\n" for note in table.notes]
    if report.comparisons:
        lines += [f"## Against {md(report.baseline)}", "", *_versus_lines(report), ""]
    if report.promises:
        lines += ["## Promised false-alarm rate", "", *promise_lines(report), "", RULE, ""]
    lines += ["## Confound check: image AUROC % of trivial features alone", "", *_check_lines(report), ""]
    return "\n".join(lines)


READING = (
    "Fractions in percent; mean ± standard deviation over seeds and draws. Bold: the best of a column, and every entry "
    "whose paired difference to it has a 95 % interval that contains 0. ‡: other test images than the best, not "
    "compared. †: lacks categories of the mean, not compared. §: a trivial feature comes near the best method. "
    "Italics: published figures."
)


def set_lines(sets: Sequence[MeasuredSet]) -> list[str]:
    """Write the measured image sets as Markdown lines; none without sets."""
    if not sets:
        return []
    rows = [md_row([s.title, md(s.images), md(s.split), s.used]) for s in sets]
    return ["## Image sets", "", MARK_WORDS, "", "| set | images | split | used for |", "|---|---|---|---|", *rows, ""]


def tables_csv(report: Report) -> str:
    """Write every entry of every table as CSV, one per line, fractions from 0 to 1."""
    rows: list[Sequence[Any]] = [_TABLE_COLUMNS]
    for table in report.tables:
        for row in table.rows:
            for column in table.columns:
                cell = row.cells.get(column.key)
                if cell is not None:
                    low, high = cell.interval or ("", "")
                    rows.append(
                        (
                            *(*_about(table), row.name, row.kind, column.title, column.kind, column.family),
                            *(cell.mean, "" if cell.sd is None else cell.sd, cell.n, low, high, cell.mark),
                            *(_yes(cell.apart), cell.lacking, _yes(column.confounded), cell.note),
                        )
                    )
    return csv_text(rows)


def comparisons_csv(report: Report) -> str:
    """Write every comparison as CSV, one per line: over all categories, then within each."""
    rows: list[Sequence[Any]] = [_VERSUS_COLUMNS]
    for versus in (*report.comparisons, *report.per_column):
        found = versus.found
        bounds = ["" if bound is None else bound for bound in (found.low, found.high)]
        ratio = "" if found.error_ratio is None else found.error_ratio
        rows.append(
            (
                *(*_about(versus.table), versus.column.title, versus.row.name, versus.baseline.name),
                *(
                    found.difference,
                    *bounds,
                    found.wins,
                    found.ties,
                    found.losses,
                    ratio,
                    found.n_units,
                    found.n_categories,
                ),
                " ".join(found.basis),
            )
        )
    return csv_text(rows)


def confound_csv(report: Report) -> str:
    """Write the confound check as CSV, one line per set."""
    rows: list[Sequence[Any]] = [("protocol", "set", "trial", *FEATURES, "best_method", "confounded")]
    for checked in report.checks:
        areas = ["" if checked.check.areas[name] is None else checked.check.areas[name] for name in FEATURES]
        best = "" if checked.check.best_method is None else checked.check.best_method
        rows.append((checked.protocol, checked.where, checked.trial, *areas, best, _yes(checked.check.confounded)))
    return csv_text(rows)


def plain(report: Report) -> dict[str, Any]:
    """Return the report's figures as plain values, as ``anomem report --json`` prints them."""
    return {
        "files": list(report.runs.files),
        "n_units": len(report.runs.runs),
        "methods": list(dict.fromkeys(run.label for run in report.runs.runs)),
        "baseline": report.baseline,
        "notes": list(report.notes),
        "tables": [
            {
                **dict(zip(_TABLE_COLUMNS, _about(table), strict=False)),
                "columns": {column.key: column.title for column in table.columns},
                "rows": [
                    {
                        "method": row.name,
                        "kind": row.kind,
                        "cells": {k: _plain_cell(cell) for k, cell in row.cells.items()},
                    }
                    for row in table.rows
                ],
                "notes": list(table.notes),
            }
            for table in report.tables
        ],
        "comparisons": [
            {
                **dict(zip(_VERSUS_COLUMNS, _about(versus.table), strict=False)),
                "column": versus.column.title,
                "method": versus.row.name,
                **{name: getattr(versus.found, name) for name in Comparison.__dataclass_fields__},
            }
            for versus in (*report.comparisons, *report.per_column)
        ],
        "confound": [
            {
                "protocol": c.protocol,
                "set": c.where,
                "trial": c.trial,
                **c.check.areas,
                "confounded": c.check.confounded,
            }
            for c in report.checks
        ],
    }


def _plain_cell(cell: Cell) -> dict[str, Any]:
    return {name: getattr(cell, name) for name in ("mean", "sd", "n", "interval", "mark", "lacking", "apart")}


def _about(table: Table) -> tuple[str, ...]:
    return table.name, table.protocol, table.sweep, table.setting, table.title, table.trial


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def md(text: str) -> str:
    """Escape text for Markdown."""
    return re.sub(r"([\\`*_{}\[\]<>#|~])", r"\\\1", text)


def md_row(cells: Iterable[str]) -> str:
    """Write a row of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def _table_lines(table: Table) -> list[str]:
    titles = [md(c.title) + ("§" if c.confounded else "") for c in table.columns]
    body = [
        md_row([md_name(row), *(md_cell(row, row.cells.get(c.key), table.metric) for c in table.columns)])
        for row in table.rows
    ]
    return [md_row(["", *titles]), "|---" + "|---:" * len(titles) + "|", *body]


def md_name(row: Row) -> str:
    """Write the name of a row: published ones in italics, peers with a suffix."""
    if row.kind == "published":
        return f"*{md(row.name)} (published)*"
    return md(row.name) + (" (peer)" if row.kind == "peer" else "")


def md_cell(row: Row, cell: Cell | None, metric: str) -> str:
    """Write a cell: mean, spread and marks."""
    if cell is None:
        return "–"
    fraction = METRIC_WORDS[metric].fraction
    shown = md(figure(cell.mean, fraction=fraction))
    if row.kind == "published":
        shown = f"*{shown}*"
    elif cell.mark:
        shown = f"**{shown}**"
    spread = "" if cell.sd is None else f" ± {md(spread_words(cell.sd, fraction))}"
    return shown + spread + ("†" if cell.lacking else "") + ("‡" if cell.apart else "")


def spread_words(sd: float, fraction: bool) -> str:
    """Write a standard deviation; of fractions in percentage points."""
    return f"{100 * sd:.1f}" if fraction else f"{sd:.2g}"


def _versus_lines(report: Report) -> list[str]:
    heads = ["", "method", "difference", "95 % interval", "better / equal / worse", "error left", "units"]
    lines = [md_row(heads), "|---|---" + "|---:" * 5 + "|"]
    for versus in report.comparisons:
        found, fraction = versus.found, METRIC_WORDS[versus.table.metric].fraction
        about = f"{versus.table.protocol}: {heading(versus.table)}"
        interval = "not known"
        if found.low is not None and found.high is not None:
            interval = f"{change(found.low, fraction=fraction)} to {change(found.high, fraction=fraction)}"
        ratio = "–" if found.error_ratio is None else f"{100 * found.error_ratio:.0f} %"
        counts = f"{found.wins} / {found.ties} / {found.losses}"
        difference = change(found.difference, fraction=fraction)
        lines.append(md_row([md(about), md(versus.row.name), difference, interval, counts, ratio, str(found.n_units)]))
    return lines


def promise_lines(report: Report) -> list[str]:
    """Write the table of re-split normals as Markdown lines."""
    heads = [
        "",
        "method",
        "promised %",
        "attainable %",
        "rejected %",
        "anomalies found %",
        "splits within the quantile",
        "verdict",
    ]
    lines = [md_row(heads), "|---|---" + "|---:" * 5 + "|---|"]
    for kept in report.promises:
        shown = [
            None if value is None else f"{100 * value:.2f}" for value in (kept.expected, kept.rate, kept.detection)
        ]
        if shown[1] is not None and kept.error is not None:
            shown[1] += f" ± {100 * kept.error:.2f}"
        within = f"{kept.n_within} of {kept.n_splits}" if kept.n_splits else "–"
        cells = [md(kept.where), md(kept.method), f"{100 * kept.alpha:g}", *(text or "–" for text in shown), within]
        cells.append("–" if kept.rate is None else kept.verdict)
        lines.append(md_row(cells))
    return lines


def _check_lines(report: Report) -> list[str]:
    heads = ["", "protocol", *FEATURE_WORDS.values(), "best method", "verdict"]
    lines = [md_row(heads), "|---|---" + "|---:" * 5 + "|---|"]
    for checked in report.checks:
        areas = [checked.check.areas[name] for name in FEATURES]
        shown = ["not measured" if area is None else md(figure(area)) for area in areas]
        best = "–" if checked.check.best_method is None else md(figure(checked.check.best_method))
        lines.append(
            md_row(
                [
                    md(checked.where),
                    md(checked.protocol) + (" (trial)" if checked.trial else ""),
                    *shown,
                    best,
                    verdict(checked.check),
                ]
            )
        )
    return lines


def verdict(check: Any) -> str:
    """Return the verdict of the confound check in a few words."""
    return "possibly confounded" if check.confounded else "no shortcut found" if check.measured else "not measured"
