"""Commands `fit`, `label` and `calibrate`: make or change a model."""

from __future__ import annotations

import shlex
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from anomem.cli import options
from anomem.cli.configuring import configured, extended
from anomem.cli.found import read_inputs, show_found
from anomem.cli.output import Output, check_file, check_table, files_of, peak_mb
from anomem.cli.progress import bars
from anomem.cli.promising import (
    calibration_facts,
    grouped,
    promise,
    strata_rule,
    suspect_lines,
    threshold_facts,
    write_suspects,
)
from anomem.cli.resuming import forget, resumable
from anomem.cli.session import Session, note, pass_session
from anomem.cli.verdicts import normals_with_columns
from anomem.errors import AnomemError, InputError, OutputError
from anomem.runtime.calibration import KINDS
from anomem.runtime.precision import PRECISIONS
from anomem.runtime.text import count
from anomem.types import ANOMALOUS, NORMAL

if TYPE_CHECKING:
    from anomem.data.samples import Sample
    from anomem.detector import Detector

CALIBRATIONS = ("auto", *KINDS)

FITTED_IN = ("fp32", "bf16")
"""Scoring precisions available to `fit`; int8 is available to `export`."""


@click.command(short_help="Learn from normal images.")
@click.argument("data", type=options.PATH)
@click.option("--out", type=options.PATH, metavar="MODEL", required=True, help="Model file to write.")
@options.normal
@options.every
@click.option("--method", default="anomem", show_default=True, help="Method; `anomem methods` lists all.")
@click.option(
    "--set",
    "assignments",
    metavar="KEY=VALUE",
    multiple=True,
    help="Hyperparameter, repeatable; `anomem methods METHOD` lists all.",
)
@click.option(
    "--labels", type=options.PATH, metavar="CSV", help="Labelled images: path,label[,mask,type]; or an export."
)
@options.alpha("Promised false-alarm rate.  [default: 0.01, or the smallest that the number of images allows]")
@click.option("--precision", type=click.Choice(FITTED_IN), help="Arithmetic used for scoring.  [default: fp32]")
@click.option(
    "--fit-precision",
    type=click.Choice(("auto", *FITTED_IN)),
    default="auto",
    show_default=True,
    help="Arithmetic used for training features; auto uses bf16 if the processor supports it.",
)
@click.option(
    "--bits",
    type=click.Choice(("auto", "8", "10", "12", "14", "16")),
    help="Bits used by 16-bit images.  [default: auto, from the normal images]",
)
@options.group_by
@options.calibrate_by
@click.option(
    "--calibration",
    type=click.Choice(CALIBRATIONS),
    default="auto",
    show_default=True,
    help="Calibrate on normals kept aside (split), or on all, each scored by a model without its fold (cross).",
)
@click.option("--exclude", type=options.PATH, metavar="CSV", help="Normal images to leave out: column path.")
@click.option("--suspects", type=options.PATH, metavar="FILE", help="Write normal images with extreme scores.")
@click.option("--seed", type=click.IntRange(0), help="Random seed.  [default: 0]")
@click.option("--extend", type=options.PATH, metavar="MODEL", help="Refit MODEL with its normals and those of DATA.")
@click.option("--keep-store", is_flag=True, help="Write MODEL.store.csv, paths of the normals, for --extend.")
@click.option(
    "--checkpoint-every",
    type=click.FloatRange(0),
    default=10.0,
    show_default=True,
    metavar="MINUTES",
    help="Time between two checkpoints, MODEL.checkpoint; removed at the end.",
)
@click.option("--resume", is_flag=True, help="Continue an interrupted fit from its checkpoint, to the same model.")
@options.running
@options.skip_bad
@options.max_pixels
@options.as_json
@pass_session
def fit(
    session: Session,
    /,
    data: Path,
    out: Path,
    normal: str | None,
    every: int,
    method: str,
    assignments: tuple[str, ...],
    labels: Path | None,
    precision: str | None,
    fit_precision: str,
    bits: str | None,
    group_by: str | None,
    suspects: Path | None,
    seed: int | None,
    extend: Path | None,
    keep_store: bool,
    checkpoint_every: float,
    resume: bool,
    as_json: bool,
    **running: Any,
) -> None:
    """Learn from the normal images of DATA and write MODEL.

    DATA is a folder of normal images; or train/good, test/TYPE and ground_truth/TYPE as in MVTec; or train/CLASS with
    --normal CLASS; or a CSV or Parquet table with the column path and optional columns label (0 normal, 1 anomalous),
    mask, type, group and stratum; or a folder of videos. A zip is read in place, like the folder that it was made of.
    Only the training part is read. Masks are optional.

    --calibration auto takes cross below 1,000 normal images for methods that train nothing by gradient, else split;
    with --extend as the earlier model.

    --extend fits to the normals in the store of an earlier model and those of DATA, with the earlier model's method
    and hyperparameters.
    """
    from anomem.data.store import store_of

    output, session.can_skip = Output(as_json), not running["skip_bad"]
    session.reads(data, labels, running["exclude"], extend, extend and store_of(extend))
    _check_outputs(session, out, suspects, store_of(out) if keep_store else None)
    dataset, picked, found = read_inputs(
        session, output, data, labels, normal=normal, every=every, stratum=running["strata"]
    )
    detector = configured(method, assignments, precision, bits, seed) if extend is None else extended(extend, output)
    session.check_inputs(*(value for value in detector.get_params().values() if isinstance(value, (str, Path))))
    started = time.perf_counter()
    with resumable(out, checkpoint_every, resume, session) as kept, bars(session, quiet=as_json) as progress:
        detector.fit(
            list(dataset.train),
            labels=picked,
            groups=group_by,
            fit_precision=PRECISIONS.get(fit_precision, fit_precision),
            extend=extend,
            progress=progress,
            **kept,
            **running,
        )
    seconds, skipped = time.perf_counter() - started, _unreadable(detector, [*dataset.train, *(picked or ())])
    if suspects is not None:
        write_suspects(suspects, detector, session)
    _finish(detector, out, seconds, output, session, skipped=skipped, found=found, keep_store=keep_store)
    forget(out)


@click.command(short_help="Refit with labelled defects.")
@click.argument("model", type=options.PATH)
@click.option(
    "--labels",
    type=options.PATH,
    metavar="CSV",
    required=True,
    help="Labelled images: path,label[,mask,type]; or an export.",
)
@click.option("--add", is_flag=True, help="Keep earlier labels.  [default: they are replaced]")
@click.option("--out", type=options.PATH, metavar="MODEL", required=True, help="Model file to write.")
@options.running
@options.skip_bad
@options.max_pixels
@options.as_json
@pass_session
def label(session: Session, /, model: Path, labels: Path, add: bool, out: Path, as_json: bool, **running: Any) -> None:
    """Refit MODEL with labelled defects.

    The CSV has the columns path and label (1 anomalous, 0 normal) and optional columns mask and type; paths are
    relative to its folder. Exports of Label Studio (JSON, JSON-MIN, CSV) or CVAT (for images 1.1, XML) are accepted
    too. Defects alone are enough. Only the second stage is refitted, in seconds; the memory of normal images is
    unchanged. The calibration is recomputed without the labelled images. With --add, the image files of earlier labels
    are read again and must still exist.
    """
    from anomem.data.sources import read_labels

    output = Output(as_json)
    session.can_skip = not running["skip_bad"]
    session.reads(labels)
    check_file(out, session, what="model")
    samples = read_labels(labels)
    session.check_inputs(*files_of(samples))
    defects = sum(sample.label == ANOMALOUS for sample in samples)
    output.line(f"{labels}: {count(len(samples), 'labelled image')}, {defects:,} anomalous")
    detector = load(model)
    earlier = detector.counts_["n_labelled"]
    if earlier and not add:
        note(f"the {count(earlier, 'earlier label')} of {model} will be replaced; --add keeps them")
    started = time.perf_counter()
    with bars(session, quiet=as_json) as progress:
        detector.label(list(samples), add=add, progress=progress, **running)
    _finish(detector, out, time.perf_counter() - started, output, session)


@click.command(short_help="Set the false-alarm rate on fresh normals.")
@click.argument("model", type=options.PATH)
@click.argument("normals", type=options.PATH)
@options.alpha("Promised false-alarm rate.", required=True)
@options.normal
@options.every
@options.group_by
@options.calibrate_by
@click.option("--blend", is_flag=True, help="Keep the earlier scores, moved to those of few fresh normals.")
@click.option("--out", type=options.PATH, metavar="MODEL", help="Model file to write.  [default: in place]")
@options.running
@options.skip_bad
@options.max_pixels
@options.as_json
@pass_session
def calibrate(
    session: Session,
    /,
    model: Path,
    normals: Path,
    normal: str | None,
    every: int,
    group_by: str | None,
    out: Path | None,
    as_json: bool,
    **running: Any,
) -> None:
    """Set the false-alarm rate of MODEL on fresh normal images, NORMALS.

    Images used to make the model are left out. A data set with labels contributes its normal training images. --blend
    carries an alpha that few fresh normals do not: with m of them at most 1 / (m + 1) of normal images are rejected.
    """
    from anomem.data.sources import read_dataset
    from anomem.loading import load as load_any

    output = Output(as_json)
    session.can_skip = not running["skip_bad"]
    target = out or model
    session.reads(normals)
    check_file(target, session, what="model")
    detector = load_any(model)
    by = running.pop("strata")
    dataset = read_dataset(normals, normal=normal, every=every, stratum=by or strata_rule(detector))
    session.check_inputs(*files_of((*dataset.train, *dataset.test)))
    found = show_found(dataset, output)
    chosen = [sample for sample in dataset.train if sample.label == NORMAL]
    if not chosen:
        raise InputError(f"{normals}: has no normal images to calibrate on; give a folder of normal images")
    with bars(session, quiet=as_json) as progress:
        columns = normals_with_columns(detector, chosen, group_by, by)
        detector.calibrate(progress=progress, **columns, **running)
    save(detector.save, target, session)
    calibration = detector.calibration_
    output.line(f"calibrated on {count(calibration.n, 'normal image')}{grouped(calibration)}")
    for text in promise(detector):
        output.line(text)
    output.line(f"written to {target}")
    output.result(
        {
            "model": target,
            "n": calibration.n,
            **threshold_facts(calibration),
            "alpha_min": calibration.alpha_min,
            "rate_limit_95": calibration.rate_limit_95,
            "n_groups": calibration.n_groups,
            "calibration": calibration_facts(detector),
            "found": found,
        }
    )


def load(model: Path) -> Detector:
    """Load a model file."""
    from anomem.detectors import load as load_detector

    return load_detector(model)


def save(write: Callable[[Path], None], path: Path, session: Session) -> None:
    """Write a model file atomically."""
    with session.putting_in_place(path):
        write(path)


def keep(write: Callable[[Path], None], path: Path, session: Session) -> None:
    """Write a model file; on failure write it to a temporary folder, so that the fit is not lost.

    Raises
    ------
    OutputError
        Neither the file nor a temporary one can be written.
    """
    try:
        save(write, path, session)
    except OutputError as error:
        refuge = Path(tempfile.mkdtemp(prefix="anomem-")) / path.name
        try:
            save(write, refuge, session)
        except (AnomemError, OSError):
            shutil.rmtree(refuge.parent, ignore_errors=True)
            raise error from None
        raise InputError(f"{error}; the fitted model is kept in {refuge}; move it") from error


def _unreadable(detector: Detector, samples: Sequence[Sample]) -> list[dict[str, str]]:
    """Report unreadable images and return their paths and errors."""
    paths = {str(sample.path) for sample in samples}
    skipped = []
    for error in detector.skipped_:
        note(f"left out {error}")
        ends = [i for i in range(len(error)) if error.startswith(": ", i) and error[:i] in paths]
        skipped.append({"path": error[: ends[-1]] if ends else error, "error": error})
    return skipped


def _check_outputs(session: Session, out: Path, suspects: Path | None, store: Path | None) -> None:
    """Check before any work that the outputs can be written."""
    check_file(out, session, what="model")
    if suspects is not None:
        check_table(suspects, session)
    if store is not None:
        check_file(store, session, what="store")


def _finish(
    detector: Detector,
    out: Path,
    seconds: float,
    output: Output,
    session: Session,
    *,
    skipped: Sequence[dict[str, str]] = (),
    found: dict[str, Any] | None = None,
    keep_store: bool = False,
) -> None:
    """Write the model and print its summary."""
    keep(partial(detector.save, keep_store=keep_store), out, session)
    counts, calibration, excluded = detector.counts_, detector.calibration_, detector.excluded_
    output.line(
        f"{detector.name}: learnt from {count(counts['n_train'], 'normal image')}, tuned on {counts['n_tune']:,}, "
        f"calibrated on {counts['n_calibration']:,}{grouped(calibration)}; "
        f"{count(counts['n_labelled'], 'labelled image')}; {seconds:.1f} s"
    )
    if excluded:
        output.line(f"left out {count(excluded, 'normal image')} (--exclude): the rate holds for normals unlike those")
    frame = detector.frame_
    for text in (*(frame.sentences() if frame else ()), *promise(detector), *suspect_lines(detector)):
        output.line(text)
    output.line(f"written to {out}; next: anomem score {shlex.quote(str(out))} IMAGES --heatmaps heatmaps")
    output.result(
        {
            "model": out,
            "method": detector.name,
            **counts,
            **threshold_facts(calibration),
            "rate_limit_95": calibration.rate_limit_95,
            "alpha_min": calibration.alpha_min,
            "n_groups": calibration.n_groups,
            "calibration": calibration_facts(detector),
            "suspects": detector.suspects_,
            "excluded": excluded,
            "frame": frame and frame.to_dict(),
            "seconds": round(seconds, 3),
            "peak_mb": peak_mb(),
            "skipped": skipped,
            **({} if found is None else {"found": found}),
        }
    )
