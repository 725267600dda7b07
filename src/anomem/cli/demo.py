"""The command that shows the whole job on images that it makes itself."""

from __future__ import annotations

import json
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from anomem.cli import options
from anomem.cli.evaluating import REPORT, summary, write_page
from anomem.cli.output import Output, check_folder, filled_folder
from anomem.cli.progress import finished, follow
from anomem.cli.session import Session, pass_session
from anomem.errors import InputError
from anomem.version import __version__

if TYPE_CHECKING:
    from anomem.data.samples import Sample

MARK = ".anomem-demo.json"
MODEL = "model.safetensors"
N_TRAIN, N_TEST, SIZE = 40, 15, 160
"""Images of each texture: to learn from; normal, and as many anomalous, to test on; and their side, pixels."""
ALPHA = 0.05
_RUNNING = {"batch_size": 16, "workers": None}


@click.command(short_help="See it work: textures, defects, a report.")
@click.option(
    "--out", type=options.PATH, metavar="DIR", default="anomem-demo", show_default=True, help="Where it goes."
)
@options.as_json
@pass_session
def demo(session: Session, /, out: Path, as_json: bool) -> None:
    """Plant defects into photographs of brick, grass and gravel, learn the normal ones, find the defects.

    Writes the images, the model and a report into DIR. Nothing is downloaded.
    """
    output = Output(as_json)
    _check(out)
    started = time.perf_counter()
    with filled_folder(out, session) as folder:
        content = _run(folder, out, output, session)
    seconds = time.perf_counter() - started
    output.line(f"report: {out / REPORT} ({seconds:.0f} s in all)")
    model, images = (shlex.quote(str(out / name)) for name in (MODEL, "images/brick/test"))
    output.line(f"next: anomem score {model} {images} --heatmaps {shlex.quote(str(out / 'heatmaps'))}")
    output.result({"report": out / REPORT, "seconds": round(seconds, 3), **content})


def _check(out: Path) -> None:
    """Refuse a folder with anything in it but an earlier demo.

    Raises
    ------
    InputError
        Naming the folder.
    """
    check_folder(out)
    if out.is_dir() and any(out.iterdir()) and not (out / MARK).is_file():
        raise InputError(f"{out}: holds other files than an earlier demo's: choose a new folder with --out")


def _run(folder: Path, out: Path, output: Output, session: Session) -> dict[str, object]:
    """Do all of it in `folder`, which becomes `out`; return the figures."""
    from anomem.data.synthetic import TEXTURES, write_textures
    from anomem.detectors import get
    from anomem.protocols.evaluate import evaluate_steps

    roots = write_textures(folder / "images", n_train=N_TRAIN, n_test=N_TEST, size=SIZE, seed=0)
    output.line(
        f"{', '.join(TEXTURES)}: {N_TRAIN * len(roots)} normal images to learn from; to test on, {N_TEST * len(roots)} "
        f"normal ones and {N_TEST * len(roots)} with planted defects"
    )
    train, test = _samples(roots)
    detector = get("anomem")(size=SIZE)
    session.check()
    follow(detector.fit_steps(train, alpha=ALPHA), session, quiet=output.as_json)
    evaluation = finished(evaluate_steps(detector, test), "evaluate", session, quiet=output.as_json)
    detector.save(folder / MODEL)
    facts = {"Model file": str(out / MODEL), "Data": f"photographs of {', '.join(TEXTURES)} with planted defects"}
    write_page(evaluation, detector, folder, "Textures with planted defects", facts, _RUNNING)
    (folder / MARK).write_text(json.dumps({"version": __version__}) + "\n", encoding="utf-8")
    for text in summary(evaluation):
        output.line(text)
    pixel = evaluation.pixel
    return {
        "image": {"auroc": evaluation.image.auroc},
        "pixel": {"auroc": pixel.auroc, "aupro": pixel.aupro} if pixel else None,
        "model": str(out / MODEL),
        "n_train": len(train),
        "n_normal": evaluation.n_normal,
        "n_anomalous": evaluation.n_anomalous,
    }


def _samples(roots: tuple[Path, ...]) -> tuple[list[Sample], list[Sample]]:
    """One training and one test set of all textures: one model learns them together."""
    from anomem.data.sources import read_dataset

    datasets = [read_dataset(root) for root in roots]
    train = [sample for dataset in datasets for sample in dataset.train]
    return train, [sample for dataset in datasets for sample in dataset.test]
