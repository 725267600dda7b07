"""Command `bench`: run benchmarks as resumable units, one result line per unit."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from anomem.cli import options
from anomem.cli.output import Output, check_file, check_folder
from anomem.cli.progress import counted
from anomem.cli.session import Session, note, pass_session
from anomem.errors import InputError
from anomem.runtime.neutral import printable
from anomem.runtime.text import count

if TYPE_CHECKING:
    from anomem.benchmark.execute import Outcome
    from anomem.benchmark.plan import Plan
    from anomem.benchmark.run_file import RunFile
    from anomem.report.benchmark.means import Mean

RUNS = "anomem-runs.jsonl"
_UNSHOWN = ("image_ap", "distance_variance_scale_free")
"""Metrics left out of the printed summary."""
_WORDS = {"SIGTERM": "terminated", "SIGHUP": "hung up"}


def _split(value: Sequence[str]) -> tuple[str, ...]:
    """Split list values at commas; the option may also be repeated."""
    return tuple(entry for text in value for entry in text.split(",") if entry)


def _listed(_: click.Context, __: click.Parameter, value: Sequence[str]) -> tuple[str, ...]:
    return _split(value)


def _numbers(_: click.Context, __: click.Parameter, value: Sequence[str]) -> tuple[int, ...]:
    try:
        return tuple(int(entry) for entry in _split(value))
    except ValueError:
        raise click.BadParameter(f"{','.join(value)}; expected whole numbers, for example 0,1,2") from None


@click.command(short_help="Run benchmarks; finished units are skipped.")
@click.argument("what", nargs=-1, required=True, metavar="SUITE|PROTOCOL...")
@click.option("--methods", multiple=True, callback=_listed, metavar="A,B", help="Methods to run.")
@click.option(
    "--data", multiple=True, callback=_listed, metavar="NAME,...", help="Image sets: mvtec_ad/bottle, or a folder."
)
@click.option("--set", "settings", multiple=True, metavar="NAME.KEY=VALUE", help="Parameter of a method or protocol.")
@click.option("--seeds", multiple=True, callback=_numbers, metavar="0,1,2", help="Random seeds of the fits.")
@click.option(
    "--out", type=options.PATH, default=RUNS, show_default=True, metavar="FILE", help="File of results, appended to."
)
@click.option("--jobs", type=click.IntRange(1), default=1, show_default=True, help="Number of parallel processes.")
@click.option("--limit", type=click.IntRange(1), help="Maximum number of images of each kind, for trial runs.")
@click.option("--dry-steps", type=click.IntRange(1), help="Maximum number of optimiser steps, for trial runs.")
@click.option("--root", type=options.PATH, metavar="DIR", help="Folder of the image sets.  [default: $ANOMEM_DATA]")
@click.option("--scores", type=options.PATH, metavar="DIR", help="Folder for the scores of every unit.")
@click.option("--features", type=options.PATH, metavar="DIR", help="Folder for cached features of frozen backbones.")
@click.option(
    "--features-mb", type=click.IntRange(1), default=4096, show_default=True, help="Cache size limit, megabytes."
)
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="Threads per process.")
@options.running
@options.as_json
@pass_session
def bench(session: Session, /, what: tuple[str, ...], out: Path, jobs: int, as_json: bool, **given: Any) -> None:
    """Run benchmarks: SUITE (smoke, cpu, report, paper, ...), PROTOCOL (one-vs-rest, ...) or sweep:NAME.

    Every finished unit (task, method, seed) appends one JSON line to FILE. Finished units are skipped: rerun the same
    command to resume.

    A protocol needs --data; a suite has its own image sets, and missing sets are skipped.
    """
    output = Output(as_json)
    _check(out, given, session)
    plan = _planned(what, given)
    for line in plan.left_out:
        note(f"left out: {line}")
    started = time.perf_counter()
    done: list[str] = []
    failed: list[dict[str, str]] = []
    try:
        for outcome in _outcomes(plan, out, jobs, given, session, quiet=as_json):
            if outcome.line is None:
                note(f"failed: {outcome.unit}: {outcome.error}")
                failed.append({"unit": str(outcome.unit), "error": outcome.error})
            else:
                done.append(outcome.unit.key)
                for line in _not_falling(outcome.line):
                    note(f"loss does not fall: {outcome.unit}, {line}")
    except KeyboardInterrupt:
        _exit_interrupted(session, plan, out)
    seconds = time.perf_counter() - started
    rows = _summary(plan, out, output)
    before = len(plan.units) - len(done) - len(failed)
    output.line(
        f"{out}: {count(len(plan.units), 'unit')} of work, {before:,} done before, {len(done):,} now ({seconds:.0f} s)"
        + (f", {len(failed):,} failed; rerun the same command to retry" if failed else "")
    )
    output.result(
        {
            "out": out,
            "n_units": len(plan.units),
            "n_before": before,
            "n_done": len(done),
            "failed": failed,
            "left_out": plan.left_out,
            "seconds": round(seconds, 3),
            "means": rows,
        }
    )
    if failed:
        click.get_current_context().exit(1)


def _check(out: Path, given: dict[str, Any], session: Session) -> None:
    """Check paths before anything is computed."""
    session.reads(*given["data"])
    check_file(out, session, what="file of runs")
    for name in ("scores", "features"):
        if given[name] is not None:
            check_folder(given[name])
    if given["root"] is not None and not given["root"].is_dir():
        raise InputError(f"{given['root']}: no such folder; name the folder of the image sets")


def _planned(what: Sequence[str], given: dict[str, Any]) -> Plan:
    from anomem.benchmark.plan import Wanted, parse_settings, parts_of, plan
    from anomem.benchmark.suites import SUITES

    assigned = parse_settings(given["settings"])
    parts = parts_of(what, methods=given["methods"], data=given["data"], assigned=assigned)
    wanted = Wanted(
        root=given["root"],
        seeds=given["seeds"],
        limit=given["limit"],
        dry_steps=given["dry_steps"],
        data=given["data"],
        narrow=any(name in SUITES for name in what),
    )
    return plan(parts, wanted)


def _outcomes(
    plan: Plan, out: Path, jobs: int, given: dict[str, Any], session: Session, *, quiet: bool
) -> Iterator[Outcome]:
    """Run the unfinished units with a progress bar and the remaining time."""
    from anomem.benchmark.fits import Settings
    from anomem.benchmark.run import run
    from anomem.benchmark.run_file import RunFile

    names = ("root", "device", "threads", "batch_size", "scores", "features", "features_mb")
    workers = given["workers"] if given["workers"] is not None else min(8, os.cpu_count() or 1)
    settings = Settings(**{name: given[name] for name in names}, workers=workers)
    with RunFile(out) as run_file:
        left = _left(plan, run_file)
        outcomes = run(plan.units, run_file, settings, jobs=jobs)
        yield from counted(outcomes, left, "units", session, quiet=quiet)


def _left(plan: Plan, run_file: RunFile) -> int:
    return sum(unit.key not in run_file.keys for unit in plan.units)


def _not_falling(line: Mapping[str, Any]) -> Iterator[str]:
    """Yield the stages of a dry run whose last loss is not below the first, with both."""
    for stage, losses in line.get("losses", {}).items():
        if len(losses) > 1 and losses[-1] >= losses[0]:
            yield f"{stage}: {losses[0]:.4g} to {losses[-1]:.4g}"


def _exit_interrupted(session: Session, plan: Plan, out: Path) -> None:
    """Exit with the code of an interrupted command and report the contents of the run file."""
    from anomem.benchmark.run_file import read_runs

    finished = {line["key"] for line in read_runs(out)} if out.exists() else set()
    held = sum(unit.key in finished for unit in plan.units)
    number = session.signal or signal.SIGINT
    word = _WORDS.get(signal.Signals(number).name, "interrupted")
    text = f"{word}; {out} holds {held} of {count(len(plan.units), 'unit')}; rerun the same command to resume"
    click.echo(f"anomem: {printable(text)}", err=True)
    click.get_current_context().exit(128 + number)


def _summary(plan: Plan, out: Path, output: Output) -> list[dict[str, Any]]:
    """Print and return mean metrics of the finished units."""
    from anomem.report.benchmark.means import means
    from anomem.report.benchmark.runs import read_some

    rows = means(read_some(out, {unit.key for unit in plan.units}))
    for row in rows:
        output.line(_row(row))
    return [
        {
            **{
                name: getattr(row, name)
                for name in ("protocol", "set", "method", "group", "setting", "categories", "n")
            },
            **{metric: {"mean": value, "sd": spread} for metric, (value, spread) in row.values.items()},
        }
        for row in rows
    ]


def _row(row: Mean) -> str:
    """Return one line of the summary."""
    from anomem.report.benchmark.figures import METRICS

    setting = ", ".join(f"{name} {value}" for name, value in row.setting.items() if not isinstance(value, bool))
    where = row.set if len(row.categories) > 1 or row.categories == (row.set,) else f"{row.set} {row.categories[0]}"
    of = (
        f" ({count(len(row.categories), 'category').replace('categorys', 'categories')})"
        if len(row.categories) > 1
        else ""
    )
    kind = "" if row.group == "all" else f", {row.group}s"
    figures = []
    for name, (mean, spread) in row.values.items():
        metric = METRICS[name]
        if name not in _UNSHOWN:
            level = f"{100 * mean:.2f} %" if metric.fraction else f"{mean:.3g}"
            wide = "" if row.n < 2 else f" ± {100 * spread:.2f}" if metric.fraction else f" ± {spread:.2g}"
            figures.append(f"{metric.title} {level}{wide}")
    middle = ", ".join(filter(None, [row.method, setting]))
    return f"{row.protocol}: {where}{of}{kind}, {middle}: {', '.join(figures) or 'no figures'}"
