"""Command `export`: write a model for other runtimes."""

from __future__ import annotations

import shlex
import time
from pathlib import Path

import click

from anomem.cli import options
from anomem.cli.output import Output, check_file
from anomem.cli.progress import bars
from anomem.cli.session import Session, pass_session
from anomem.errors import InputError
from anomem.runtime.text import number
from anomem.types import NORMAL


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
) -> None:
    """Write MODEL as an ONNX or OpenVINO file that scores without torch.

    The file includes preprocessing, calibration and alpha; `score`, `evaluate` and `calibrate` accept it like any
    model. Before the file is written, its scores are compared with the model's; a failed comparison exits with code 1
    and leaves no file.
    """
    from anomem.data.sources import read_dataset
    from anomem.detectors import load
    from anomem.runtime.metadata import weights_of

    output = Output(as_json)
    session.reads(model, normals, check, eval_data)
    for written in filter(None, (out, weights_of(out))):
        check_file(written, session, what="exported file")
    given = None
    if normals is not None:
        given = [sample.path for sample in read_dataset(normals, normal=normal).train if sample.label == NORMAL]
        session.check_inputs(*given)
        if not given:
            raise InputError(f"{normals}: has no normal images; give a folder of normal images")
    data = None if eval_data is None else read_dataset(eval_data, normal=normal)
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
        )
    session.written.append(str(out))
    output.line(f"{detector.name}: scores within {number(found.max_abs_diff)} of the model's; written to {out}")
    if found.auroc_drop is not None:
        output.line(f"{found.precision} costs {100 * found.auroc_drop:.2f} points of AUROC on {found.auroc_drop_on}")
    output.line(f"next: anomem score {shlex.quote(str(out))} IMAGES")
    output.result(
        {
            "file": found.file,
            "format": found.format,
            "precision": found.precision,
            "max_abs_diff": found.max_abs_diff,
            "auroc_drop": found.auroc_drop,
            "auroc_drop_on": found.auroc_drop_on,
            "calibrated": found.calibrated,
            "n_calibration": found.n_calibration,
            "seconds": round(time.perf_counter() - started, 3),
        }
    )
