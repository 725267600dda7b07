"""The command that turns benchmark runs into tables, plots and one page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from anomem.cli import options
from anomem.cli.output import Output, check_folder, filled_folder
from anomem.cli.session import Session, note, pass_session
from anomem.runtime.text import count

if TYPE_CHECKING:
    from anomem.report.benchmark.baseline import Versus

DEFAULT = "anomem-report"
COMPARISONS = "comparisons.csv"
SHOWN = 12
"""Comparisons on the screen at most."""


@click.command(short_help="Turn benchmark runs into tables, plots and one page.")
@click.argument("runs", nargs=-1, required=True, type=options.PATH, metavar="RUNS.jsonl...")
@click.option(
    "--out", type=options.PATH, default=DEFAULT, show_default=True, metavar="DIR", help="Where it is written."
)
@click.option("--baseline", metavar="METHOD", help="Compare all others with this one.  [default: anomem]")
@click.option(
    "--scores",
    type=options.PATH,
    multiple=True,
    metavar="DIR",
    help="Scores kept by bench --scores: narrower intervals.",
)
@options.as_json
@pass_session
def report(
    session: Session,
    /,
    runs: tuple[Path, ...],
    out: Path,
    baseline: str | None,
    scores: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Turn RUNS, files that `anomem bench` has written, into DIR/report.html, tables (Markdown, CSV) and plots.

    Several files may be named, also those of peers: lines of the same form whose method is none of anomem's. What two
    methods have both done, on the same test images with the same seed and draw, is compared in pairs.
    """
    from anomem.report.benchmark.page import write_report
    from anomem.report.benchmark.report import gather
    from anomem.report.benchmark.text_tables import plain

    output = Output(as_json)
    session.reads(*runs)
    check_folder(out)
    found = gather(runs, scores=scores, baseline=baseline)
    for text in found.notes:
        note(text.rstrip("."))
    with filled_folder(out, session) as folder:
        names = [path.name for path in write_report(found, folder)]
    compared = [versus for versus in found.comparisons if not versus.table.sweep]
    for versus in compared[:SHOWN]:
        output.line(_line(versus))
    if len(compared) > SHOWN:
        output.line(f"and {len(compared) - SHOWN} more comparisons: {out / COMPARISONS}")
    confounded = [checked.where for checked in found.checks if checked.check.confounded]
    if confounded:
        output.line(f"possibly confounded: {', '.join(dict.fromkeys(confounded))}: see the confound check")
    output.line(f"{count(len(found.runs.runs), 'unit')} of work, {count(len(found.tables), 'table')}: {out / names[0]}")
    output.result({"report": out / names[0], "written": [out / name for name in names], **plain(found)})


def _line(versus: Versus) -> str:
    """One comparison in a line."""
    from anomem.report.benchmark.captions import METRIC_WORDS, change
    from anomem.report.benchmark.text_tables import heading

    found, fraction = versus.found, METRIC_WORDS[versus.table.metric].fraction
    about = f"{versus.table.protocol}: {heading(versus.table)}"
    interval = "no interval"
    if found.low is not None and found.high is not None:
        interval = f"{change(found.low, fraction=fraction)} to {change(found.high, fraction=fraction)}"
    difference = f"{change(found.difference, fraction=fraction)} ({interval})"
    counts = f"{found.wins} better, {found.ties} equal, {found.losses} worse"
    return f"{about}: {versus.row.name} against {versus.baseline.name} {difference}, {counts}"
