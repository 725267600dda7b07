"""Command `export`: write a model for other runtimes."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from anomem.cli import options
from anomem.cli.output import Output, check_file
from anomem.cli.progress import bars
from anomem.cli.session import Session, pass_session
from anomem.errors import InputError
from anomem.runtime.text import number
from anomem.types import NORMAL

if TYPE_CHECKING:
    from anomem.data.samples import Dataset
    from anomem.export.exporting import Exported


@click.command(short_help="Write a model for ONNX Runtime or OpenVINO.")
@click.argument("model", type=options.PATH)
@click.option(
    "--out", type=options.PATH, metavar="FILE", required=True, help="File to write: FILE.onnx, or FILE.xml (OpenVINO)."
)
@click.option("--format", type=click.Choice(("onnx", "openvino")), help="File format.  [default: by the suffix]")
@click.option(
    "--precision",
    type=click.Choice(("fp32", "bf16", "int8")),
    default="fp32",
    show_default=True,
    help="Arithmetic used for scoring; bf16 and int8 need OpenVINO.",
)
@click.option(
    "--normals",
    type=options.PATH,
    metavar="DATA",
    help="Normal images for int8 quantisation and for the calibration of bf16 and int8.",
)
@options.normal
@click.option(
    "--check", type=options.PATH, metavar="IMAGES", help="Images on which scores are compared.  [default: textures]"
)
@click.option(
    "--eval-data",
    type=options.PATH,
    metavar="DATA",
    help="Data set whose test part measures the AUROC drop.  [default: int8 on planted defects]",
)
@click.option("--max-drop", type=click.FloatRange(0, 1), help="Maximum AUROC drop accepted.  [default: 0.01]")
@options.skip_bad
@options.max_pixels
@options.as_json
@pass_session
def export(
    session: Session,
    /,
    model: Path,
    out: Path,
    format: str | None,
    precision: str,
    normals: Path | None,
    normal: str | None,
    check: Path | None,
    eval_data: Path | None,
    max_drop: float | None,
    as_json: bool,
    **reading: Any,
) -> None:
    """Write MODEL as an ONNX or OpenVINO file that scores without torch.

    The file includes preprocessing, calibration and alpha; `score`, `evaluate` and `calibrate` accept it like any
    model. Before the file is written, its scores are compared with the model's; a failed comparison exits with code 1
    and leaves no file.
    """
    from anomem.detectors import load
    from anomem.runtime.metadata import weights_of

    output = Output(as_json)
    session.can_skip = not reading["skip_bad"]
    session.reads(model, normals, check, eval_data)
    for written in filter(None, (out, weights_of(out))):
        check_file(written, session, what="exported file")
    given, data = _normals(session, normals, normal), _data(eval_data, normal)
    detector = load(model)
    started = time.perf_counter()
    with bars(session, quiet=as_json) as progress:
        found = detector.export(
            out,
            format=format,
            precision=precision,
            normals=given,
            check=check,
            eval_data=data,
            max_drop=max_drop,
            progress=progress,
            **reading,
        )
    session.written.append(str(out))
    for text in _summary(found, detector.name, out):
        output.line(text)
    seconds = round(time.perf_counter() - started, 3)
    output.result({**vars(found), "seconds": seconds})


def _normals(session: Session, normals: Path | None, normal: str | None) -> list[Path] | None:
    """Return the normal images of `normals`; None where it is not given."""
    from anomem.data.sources import read_dataset

    if normals is None:
        return None
    given = [sample.path for sample in read_dataset(normals, normal=normal).train if sample.label == NORMAL]
    session.check_inputs(*given)
    if not given:
        raise InputError(f"{normals}: has no normal images; give a folder of normal images")
    return given


def _data(eval_data: Path | None, normal: str | None) -> Dataset | None:
    from anomem.data.sources import read_dataset

    return None if eval_data is None else read_dataset(eval_data, normal=normal)


def _summary(found: Exported, method: str, out: Path) -> list[str]:
    """Return the findings of an export as lines of text."""
    lines = [f"{method}: scores within {number(found.max_abs_diff)} of the model's; written to {out}"]
    if found.auroc_drop is not None:
        lines.append(f"{found.precision} costs {100 * found.auroc_drop:.2f} points of AUROC on {found.auroc_drop_on}")
    return [*lines, f"next: anomem score {shlex.quote(str(out))} IMAGES"]
