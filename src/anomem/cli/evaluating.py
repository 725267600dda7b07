"""Command `evaluate`: measure a model on labelled images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from anomem.cli import options
from anomem.cli.found import show_found
from anomem.cli.output import Output, check_file, check_folder, files_of, filled_folder, write_text
from anomem.cli.progress import bars
from anomem.cli.promising import strata_rule, threshold_facts
from anomem.cli.session import Session, note, pass_session
from anomem.cli.verdicts import shift_line
from anomem.errors import InputError
from anomem.runtime.plain import plain
from anomem.runtime.text import count, number, percent
from anomem.types import NORMAL, UNKNOWN

if TYPE_CHECKING:
    from anomem.data.samples import Sample
    from anomem.evaluation.figures import Evaluation, NormalsEvaluation
    from anomem.loading import Model

REPORT = "report.html"


@click.command(short_help="Measure a model on labelled images.")
@click.argument("model", type=options.PATH)
@click.argument("data", type=options.PATH)
@options.normal
@options.every
@click.option("--out", type=options.PATH, metavar="FILE", help="Write all metrics and results as JSON.")
@click.option("--report", type=options.PATH, metavar="DIR", help=f"Write DIR/{REPORT}, a self-contained page.")
@options.alpha("False-alarm rate of the verdicts.  [default: the model's]")
@options.fdr
@options.calibrate_by
@options.running
@options.skip_bad
@options.max_pixels
@options.as_json
@pass_session
def evaluate(
    session: Session,
    /,
    model: Path,
    data: Path,
    normal: str | None,
    every: int,
    out: Path | None,
    report: Path | None,
    alpha: float | None,
    as_json: bool,
    **running: Any,
) -> None:
    """Measure MODEL on the test part of DATA.

    DATA is as for `fit`. Images used to make the model are recognised by their content and left out. Masks are
    optional and add pixel metrics. Without anomalous images, only the false-alarm rate is measured.
    """
    import json

    from anomem.data.sources import read_dataset
    from anomem.evaluation.figures import Evaluation
    from anomem.loading import load
    from anomem.runtime.metadata import weights_of

    output = Output(as_json)
    session.can_skip = not running["skip_bad"]
    session.reads(model, weights_of(model), data)
    _check_outputs(session, out, report)
    detector = load(model) if alpha is None else load(model).set_alpha(alpha)
    dataset = read_dataset(data, normal=normal, every=every, stratum=running["strata"] or strata_rule(detector))
    session.check_inputs(*files_of((*dataset.train, *dataset.test)))
    found = show_found(dataset, output)
    samples = dataset.for_evaluation()
    alone = {sample.label for sample in samples} <= {NORMAL, UNKNOWN}
    if alone and report is not None:
        raise InputError(f"{data}: has no anomalous images, which a report needs; leave out --report")
    evaluation = _measure(session, detector, samples, alone=alone, quiet=as_json, running=running)
    strata = threshold_facts(detector.calibration_).get("strata")
    content = {"model": str(model), "data": str(data), **plain(evaluation.to_dict()), "found": found}
    content |= {} if strata is None else {"strata": plain(strata)}
    if report is not None and isinstance(evaluation, Evaluation):
        facts = {"Model file": str(model), "Data": str(data)}
        with filled_folder(report, session) as folder:
            write_page(evaluation, detector, folder, dataset.root.name, facts, running)
        content["report"] = str(report / REPORT)
    if out is not None:
        write_text(out, json.dumps(content, indent=1, allow_nan=False) + "\n", session)
    for text in (*_lines(evaluation, model), *([] if report is None else [f"report: {report / REPORT}"])):
        output.line(text)
    output.result(content)


def _check_outputs(session: Session, out: Path | None, report: Path | None) -> None:
    """Check before any work that the outputs can be written."""
    if out is not None:
        check_file(out, session)
    if report is not None:
        check_folder(report)
        session.plan(report / REPORT)


def _measure(
    session: Session, detector: Model, samples: Sequence[Sample], *, alone: bool, quiet: bool, running: dict[str, Any]
) -> Evaluation | NormalsEvaluation:
    """Evaluate a model, on normals alone where `alone`, and note the images left out."""
    from anomem.evaluation.evaluate import evaluate, evaluate_normals

    with bars(session, quiet=quiet) as progress:
        evaluation = (evaluate_normals if alone else evaluate)(detector, samples, progress=progress, **running)
    for image in evaluation.skipped:
        note(f"left out {image.error}")
    return evaluation


def write_page(
    evaluation: Evaluation,
    detector: Model,
    folder: Path,
    title: str,
    facts: dict[str, str],
    running: dict[str, Any],
) -> None:
    """Write the report of an evaluation to a folder."""
    from anomem.report.evaluation.page import write_evaluation_page

    write_evaluation_page(
        evaluation,
        detector,
        folder / REPORT,
        title=title,
        facts=facts,
        batch_size=running["batch_size"],
        workers=running["workers"],
    )


def _lines(evaluation: Evaluation | NormalsEvaluation, model: Path) -> list[str]:
    """Return the results of an evaluation as lines of text."""
    from anomem.evaluation.figures import Evaluation

    shown = summary(evaluation) if isinstance(evaluation, Evaluation) else normals_summary(evaluation)
    return [*shown, *_further(evaluation, str(model))]


def summary(evaluation: Evaluation) -> list[str]:
    """Return the results of an evaluation as lines of text."""
    from anomem.report.evaluation import text as words

    image, decided, pixel = evaluation.image, evaluation.at_alpha, evaluation.pixel
    lines = [
        f"{count(evaluation.n_normal, 'normal image')}, {evaluation.n_anomalous:,} anomalous",
        f"image AUROC {percent(image.auroc)} ({_interval(image.auroc_ci)}), average precision {percent(image.ap)}",
        f"F1 max {percent(image.f1_max)} (an oracle: its threshold is chosen on these labels)",
        f"false-alarm rate where 95 % of the anomalous are found {percent(image.fpr95)}",
    ]
    if evaluation.n_left_out:
        lines[0] += f"; {evaluation.n_left_out:,} left out because they were used to make the model"
    if pixel is None:
        lines.append("no pixel figures: there are no masks, or the method draws no maps")
    else:
        found_pixels = f"pixel AUROC {percent(pixel.auroc)} ({_interval(pixel.auroc_ci)})"
        lines.append(f"{found_pixels}, AUPRO {percent(pixel.aupro)} ({_interval(pixel.aupro_ci)})")
    found = evaluation.n_anomalous - decided.n_missed
    lines.append(
        f"at alpha {decided.alpha:.3g}{_above(evaluation)}: "
        f"{decided.n_false:,} of {evaluation.n_normal:,} normal images rejected, "
        f"{found:,} of {evaluation.n_anomalous:,} anomalous ones found, {decided.n_missed:,} missed"
    )
    lines += [
        f"  {name}: AUROC {percent(figures.auroc)}, {figures.n_missed:,} of {figures.n:,} missed"
        for name, figures in evaluation.types.items()
    ]
    doubts = (
        verdict for verdict in (words.promise(evaluation), words.confound(evaluation)[1]) if verdict.tone != "good"
    )
    return [*lines, *(f"{verdict.short}: {verdict.text}" for verdict in doubts)]


def normals_summary(evaluation: NormalsEvaluation) -> list[str]:
    """Return the results of an evaluation of normal images alone as lines of text."""
    from anomem.report.evaluation import text as words

    decided, kept = evaluation.at_alpha, words.promise(evaluation)
    left_out = f"; {evaluation.n_left_out:,} left out because they were used to make the model"
    rejected = f"{decided.n_false:,} of {evaluation.n_normal:,} normal images rejected"
    return [
        f"{count(evaluation.n_normal, 'normal image')}, 0 anomalous" + (left_out if evaluation.n_left_out else ""),
        f"at alpha {decided.alpha:.3g}{_above(evaluation)}: {rejected}, {percent(decided.false_alarm_rate)}",
        f"{kept.short}: {kept.text}",
    ]


def _above(evaluation: Evaluation | NormalsEvaluation) -> str:
    """Return the threshold in words; nothing with strata, each of which has its own."""
    threshold = evaluation.promise.threshold
    return "" if math.isnan(threshold) else f" (score above {number(threshold)})"


def _further(evaluation: Evaluation | NormalsEvaluation, model: str) -> list[str]:
    """Return the verdicts about all images together, and the shift of the normals, as lines of text."""
    found, shift, lines = evaluation.at_fdr, evaluation.shift, []
    if found is not None:
        lines.append(
            f"at fdr {found.fdr:.3g}: {found.n_rejected:,} rejected, {found.n_false:,} of them normal "
            f"({percent(found.false_discovery_share)}), {found.n_missed:,} anomalous missed; at least "
            f"{found.least_rejected:,} are rejected together, or none"
        )
    if shift is not None and shift.shifted:
        lines.append(shift_line(shift, evaluation.at_alpha.alpha, model))
    return lines


def _interval(bounds: tuple[float, float]) -> str:
    return f"95 % interval {percent(bounds[0])} to {percent(bounds[1])}"
