"""Command `score`: score images."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from anomem.cli import options, verdicts
from anomem.cli.heatmaps import Heatmaps, planned
from anomem.cli.output import Output, check_table, filled_folder, write_table
from anomem.cli.progress import counted
from anomem.cli.promising import above_threshold, threshold_facts
from anomem.cli.session import Session, note, pass_session
from anomem.cli.sharding import SHARDED, on_disk, score_in_shards, sharding
from anomem.cli.verdicts import Listed, Verdicts
from anomem.errors import AnomemWarning
from anomem.runtime.neutral import printable
from anomem.runtime.text import count, number

if TYPE_CHECKING:
    from anomem.loading import Model
    from anomem.runtime.calibration import Calibration
    from anomem.runtime.scored import Scored

COLUMNS: dict[str, type] = {"path": str, "score": float, "p_value": float, "anomalous": bool, "heatmap": str}
_ON_REQUEST: dict[str, type] = {"anomalous_fdr": bool, "stratum": str, "group": str}
"""Further columns of a table of results."""

_SHOWN_ON_A_TERMINAL = 40


@click.command(short_help="Score images; draw heatmaps.")
@click.argument("model", type=options.PATH)
@click.argument("images", type=options.SOURCE, nargs=-1, required=True)
@click.option(
    "--out",
    type=options.PATH,
    metavar="FILE|DIR",
    help="Table of results to write: .csv, .jsonl or .parquet; folder of shards for processes and ray.",
)
@click.option("--heatmaps", type=options.PATH, metavar="DIR", help="Folder for heatmaps: one PNG per image.")
@options.alpha("False-alarm rate of the verdicts.  [default: the model's]")
@click.option(
    "--engine",
    type=click.Choice(("auto", "onnxruntime", "openvino", *SHARDED)),
    default="auto",
    show_default=True,
    help="Inference engine of an exported model; processes or ray: score in shards, which a killed run continues.",
)
@sharding
@click.option(
    "--precision",
    type=click.Choice(("auto", "fp32", "bf16", "int8")),
    default="auto",
    show_default=True,
    help="Arithmetic used for scoring; refused if the file does not support it; auto: that of its calibration.",
)
@options.fdr
@options.group_by
@options.calibrate_by
@options.every
@options.running
@options.skip_bad
@options.max_pixels
@options.as_json
@pass_session
def score(
    session: Session,
    /,
    model: Path,
    images: tuple[Path | str, ...],
    out: Path | None,
    heatmaps: Path | None,
    alpha: float | None,
    engine: str,
    precision: str,
    every: int,
    as_json: bool,
    address: str | None,
    shard_images: int | None,
    **running: Any,
) -> None:
    """Score IMAGES (files, tables, videos, and folders and zips with all images below them) with MODEL.

    Prints per image the raw score (higher is more anomalous), the p-value (share of normal images with this score or a
    higher one) and the verdict: anomalous if the p-value is at most alpha. With --fdr all images are judged together,
    too; with --group-by, or a table's column group, each group by its highest score. Warns of scores unlike those of
    the calibration.

    With --engine processes or ray, IMAGES may also be Parquet lists of any length, tar files and URLs (s3://...), and
    --out is a folder of Parquet files, which the same command completes after an interruption. An unreadable image is
    a row with its error.
    """
    if engine in SHARDED:
        wanted = {"alpha": alpha, "heatmaps": heatmaps, "precision": precision, "every": every}
        score_in_shards(session, model, images, out, engine, address, shard_images, Output(as_json), wanted | running)
        return
    _score(
        session,
        model,
        on_disk(images, address, shard_images),
        out,
        heatmaps,
        alpha,
        engine,
        precision,
        every,
        Output(as_json),
        running,
    )


def _score(
    session: Session,
    model: Path,
    images: Sequence[Path],
    out: Path | None,
    heatmaps: Path | None,
    alpha: float | None,
    engine: str,
    precision: str,
    every: int,
    output: Output,
    running: dict[str, Any],
) -> None:
    """Score all images together."""
    from anomem.loading import load
    from anomem.runtime.metadata import weights_of

    session.can_skip = not running["skip_bad"]
    session.reads(model, weights_of(model), *images)
    listed, found = _listed(images, every)
    paths = [path for part in listed for path in part.paths]
    if out is not None:
        check_table(out, session)
    session.check_inputs(*paths)
    drawn = None if heatmaps is None else planned(heatmaps, images, paths)
    detector = load(model, engine=engine, precision=precision)
    if alpha is not None:
        detector.set_alpha(alpha)
    calibration = detector.calibration_
    results, skipped, judged = _judged(session, detector, listed, drawn, running, quiet=output.as_json)
    rows = _rows(results, judged, drawn, calibration)
    if out is not None:
        write_table(out, rows, _columns(judged, calibration), session)
    _show(rows, skipped, detector, out, drawn, output, list(verdicts.lines(judged, calibration, model)))
    output.result(
        {
            "model": model,
            "n": len(rows),
            "skipped": skipped,
            **threshold_facts(calibration),
            "results": rows,
            **judged.facts(),
            "found": found,
        }
    )


def _judged(
    session: Session,
    detector: Model,
    listed: Sequence[Listed],
    drawn: Heatmaps | None,
    running: dict[str, Any],
    *,
    quiet: bool,
) -> tuple[list[Scored], list[dict[str, str]], Verdicts]:
    """Score all images, draw their heatmaps and judge them together: results, unreadable images, verdicts."""
    from anomem.data.sources import PathSource

    paths = [path for part in listed for path in part.paths]
    fdr, groups = running.pop("fdr"), verdicts.groups_of(listed, running.pop("group_by"))
    strata = verdicts.strata_of(listed, running.pop("strata"), detector.calibration_)
    scored = detector.score(PathSource(paths), maps=drawn is not None, strata=strata, groups=groups, **running)
    watched = counted(scored, len(paths), "score", session, quiet=quiet)
    with nullcontext() if drawn is None else filled_folder(drawn.folder, session) as folder:
        results, skipped = _collect(watched, detector, drawn, folder, running["max_pixels"])
    return results, skipped, verdicts.judge(results, detector.calibration_, fdr, grouped=groups is not None)


def _listed(images: Sequence[Path], every: int) -> tuple[list[Listed], list[dict[str, Any]]]:
    """List the image files of the arguments, and note files left out.

    Returns
    -------
    listed : list of Listed
        Image files of each argument.
    found : list of dict
        Path, number of images and notes of each folder or table.
    """
    from anomem.data.sources import list_images
    from anomem.runtime.listing import warn_of_pages

    parts: list[Listed] = []
    found: list[dict[str, Any]] = []
    for place in images:
        with noted() as notes:
            warn_of_pages([place])
            listed = [Path(path) for path in list_images(place, among=False, every=every)]
        if listed != [place]:
            found.append({"path": place, "images": len(listed), "notes": notes})
        parts.append(Listed(place, tuple(listed)))
    return parts, found


@contextmanager
def noted() -> Iterator[list[str]]:
    """Collect the warnings of a block and show them as notes at its end."""
    lines: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", AnomemWarning)
        yield lines
    lines += [str(warning.message) for warning in caught if issubclass(warning.category, AnomemWarning)]
    for line in lines:
        note(line)


def _collect(
    scored: Iterable[Scored], detector: Model, drawn: Heatmaps | None, folder: Path | None, max_pixels: int | None
) -> tuple[list[Scored], list[dict[str, str]]]:
    """Collect results and unreadable images; draw each heatmap at once, since maps are too large to keep."""
    results: list[Scored] = []
    skipped: list[dict[str, str]] = []
    for result in scored:
        if result.error is not None:
            note(f"left out {result.error}")
            skipped.append({"path": result.name, "error": result.error})
            continue
        if drawn is not None and folder is not None:
            _draw(result, detector, folder / drawn.places[result.name], max_pixels)
        results.append(replace(result, map=None))
    return results, skipped


def _columns(judged: Verdicts, calibration: Calibration) -> dict[str, type]:
    """Return the columns of a row."""
    asked = {
        "anomalous_fdr": judged.fdr is not None,
        "stratum": calibration.strata is not None,
        "group": judged.groups is not None,
    }
    return COLUMNS | {name: kind for name, kind in _ON_REQUEST.items() if asked[name]}


def _rows(
    results: Sequence[Scored], judged: Verdicts, drawn: Heatmaps | None, calibration: Calibration
) -> list[dict[str, Any]]:
    """Return a row per image."""
    columns = _columns(judged, calibration)
    rejected = judged.rejected or (None,) * len(results)
    rows = []
    for result, at_fdr in zip(results, rejected, strict=True):
        more = {
            "anomalous_fdr": at_fdr,
            "group": None if result.group is None else str(result.group),
            "heatmap": None if drawn is None else drawn.of(result.name),
        }
        facts = {"path": result.name, **more}
        rows.append({name: facts[name] if name in facts else getattr(result, name) for name in columns})
    return rows


def _draw(result: Scored, detector: Model, place: Path, max_pixels: int | None) -> None:
    from anomem.data.official.inside import read_file
    from anomem.runtime.images import HEATMAP, decode, write_png
    from anomem.runtime.limits import MAX_PIXELS, image_bytes
    from anomem.runtime.overlay import overlay

    if result.map is None:
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    limit = max_pixels or MAX_PIXELS
    content = read_file(result.name, image_bytes(limit), max_pixels=limit)
    image = decode(content, name=result.name, bits=detector.bits_, max_pixels=limit)
    write_png(place, overlay(image, result.map, *detector.map_scale_), title=HEATMAP)


def _show(
    rows: Sequence[dict[str, Any]],
    skipped: Sequence[dict[str, str]],
    detector: Model,
    out: Path | None,
    drawn: Heatmaps | None,
    output: Output,
    further: Sequence[str],
) -> None:
    """Print one line per image unless they are written to a file, then a summary and further verdicts."""
    if out is None:
        for text in _lines(rows):
            output.line(text)
    calibration = detector.calibration_
    anomalous = sum(row["anomalous"] for row in rows)
    summary = (
        f"{count(len(rows), 'image')}: {anomalous:,} anomalous at alpha {calibration.alpha:.3g} "
        f"({above_threshold(calibration)})"
        + (f", {len(skipped):,} unreadable and left out" if skipped else "")
        + (f"; results in {out}" if out else "")
        + (f"; heatmaps in {drawn.folder}" if drawn else "")
    )
    if not output.as_json:
        # A program that reads stdout expects only the table there.
        for text in (summary, *further):
            click.echo(printable(text), err=out is None and not sys.stdout.isatty())


def _lines(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Yield tab-separated lines: all of them for a program, the most anomalous on a terminal."""
    shown = rows
    if sys.stdout.isatty() and len(rows) > _SHOWN_ON_A_TERMINAL:
        shown = sorted(rows, key=lambda row: -float(row["score"]))[:_SHOWN_ON_A_TERMINAL]
        yield f"the {len(shown)} highest scores of {len(rows):,} (--out FILE.csv writes all)"
    for row in shown:
        verdict = "anomalous" if row["anomalous"] else "normal"
        cells = [printable(row["path"]), number(row["score"]), f"{row['p_value']:.4g}", verdict]
        if "anomalous_fdr" in row:
            cells.append("anomalous at fdr" if row["anomalous_fdr"] else "normal at fdr")
        cells += [printable(str(row[name] or "")) for name in ("stratum", "group") if name in row]
        yield "\t".join(cells)
