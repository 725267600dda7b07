"""Command `report`: turn benchmark runs into tables, plots and one page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from anomem.cli import options
from anomem.cli.output import Output, check_file, check_folder, filled_folder
from anomem.cli.session import Session, note, pass_session
from anomem.runtime.text import count

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anomem.report.benchmark.bars import Outcome
    from anomem.report.benchmark.baseline import Versus
    from anomem.report.benchmark.measurements import Measurement
    from anomem.report.benchmark.report import Report

DEFAULT = "anomem-report"
COMPARISONS = "comparisons.csv"
SHOWN = 12
"""Maximum number of comparisons printed."""


@click.command(short_help="Turn benchmark runs into tables, plots and one page.")
@click.argument("runs", nargs=-1, required=True, type=options.PATH, metavar="RUNS.jsonl...")
@click.option("--out", type=options.PATH, default=DEFAULT, show_default=True, metavar="DIR", help="Folder to write.")
@click.option("--baseline", metavar="METHOD", help="Method that all others are compared with.  [default: anomem]")
@click.option(
    "--scores",
    type=options.PATH,
    multiple=True,
    metavar="DIR",
    help="Folder written by `bench --scores`; narrows the intervals.",
)
@click.option("--markdown", type=options.PATH, metavar="FILE", help="Write the page of results as Markdown.")
@click.option("--table", type=options.PATH, metavar="FILE", help="Write the overview table as Markdown.")
@click.option("--bars", type=options.PATH, metavar="CSV", help="Limits to check; exit code 1 if one is missed.")
@click.option("--sets", type=options.PATH, metavar="CSV", help="Facts of the image sets: size, compression, split.")
@options.as_json
@pass_session
def report(
    session: Session,
    /,
    runs: tuple[Path, ...],
    out: Path,
    baseline: str | None,
    scores: tuple[Path, ...],
    markdown: Path | None,
    table: Path | None,
    bars: Path | None,
    sets: Path | None,
    as_json: bool,
) -> None:
    """Turn RUNS, files written by `anomem bench`, into DIR/report.html, tables (Markdown, CSV) and plots.

    RUNS may include files of methods outside anomem in the same format. Results of two methods on the same test images,
    seed and draw are compared in pairs. Files of measurements (seconds, images per second) become DIR/measurements.md
    and sections of the page of results.
    """
    from anomem.report.benchmark.bars import bar_values, check_bars
    from anomem.report.benchmark.measurements import read_measurements, split
    from anomem.report.benchmark.page import write_report
    from anomem.report.benchmark.report import gather
    from anomem.report.benchmark.sets import read_sets
    from anomem.report.benchmark.text_tables import plain

    output = Output(as_json)
    session.reads(*runs, bars, sets)
    check_folder(out)
    for path in (markdown, table):
        if path is not None:
            check_file(path, session, what="file of results")
    run_files, measurement_files = split(runs)
    measured = read_measurements(measurement_files)
    found = gather(run_files, scores=scores, baseline=baseline, sets=() if sets is None else read_sets(sets))
    outcomes = [] if bars is None else check_bars(bars)
    for text in found.notes:
        note(text.rstrip("."))
    with filled_folder(out, session) as folder:
        names = [path.name for path in write_report(found, folder, measured, outcomes)]
    extra = _write_pages(found, measured, outcomes, {"page": markdown, "table": table})
    _say(output, found, outcomes, out, out / names[0])
    written = [*(out / name for name in names), *extra]
    output.result({"report": out / names[0], "written": written, **plain(found), "bars": bar_values(outcomes)})
    if any(not outcome.met for outcome in outcomes):
        click.get_current_context().exit(1)


def _say(output: Output, found: Report, outcomes: Sequence[Outcome], out: Path, page: Path) -> None:
    """Print comparisons, confounded sets, written files and missed bars."""
    compared = [versus for versus in found.comparisons if not versus.table.sweep]
    for versus in compared[:SHOWN]:
        output.line(_line(versus))
    if len(compared) > SHOWN:
        output.line(f"and {len(compared) - SHOWN} more comparisons: {out / COMPARISONS}")
    confounded = [checked.where for checked in found.checks if checked.check.confounded]
    if confounded:
        output.line(f"possibly confounded: {', '.join(dict.fromkeys(confounded))}; see the confound check")
    output.line(f"{count(len(found.runs.runs), 'unit')} of work, {count(len(found.tables), 'table')}: {page}")
    missed = [outcome for outcome in outcomes if not outcome.met]
    for outcome in missed:
        output.line(
            f"missed: {outcome.bar.name}: {outcome.value:.4g}, not {outcome.bar.direction} {outcome.bar.limit:g}"
        )
    if outcomes:
        output.line(f"{len(outcomes) - len(missed)} of {len(outcomes)} bars met, {len(missed)} missed")


def _write_pages(
    found: Report, measured: Sequence[Measurement], outcomes: Sequence[Outcome], paths: dict[str, Path | None]
) -> list[Path]:
    """Write the page of results and the overview table atomically."""
    from anomem.report.benchmark.results_page import overview, results_page
    from anomem.runtime.atomic import atomic_path

    texts = {"page": lambda: results_page(found, measured, outcomes), "table": lambda: _lines(overview(found))}
    written = []
    for name, path in paths.items():
        if path is not None:
            with atomic_path(path) as part:
                part.write_text(texts[name](), encoding="utf-8")
            written.append(path)
    return written


def _lines(lines: Sequence[str]) -> str:
    return "\n".join([*lines, ""])


def _line(versus: Versus) -> str:
    """Return one comparison as a line of text."""
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
