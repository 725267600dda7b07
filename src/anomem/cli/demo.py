"""Command `demo`: fit, score and evaluate on generated images."""

from __future__ import annotations

import json
import shlex
import time
from pathlib import Path

import click

from anomem.cli import options
from anomem.cli.evaluating import REPORT, summary, write_page
from anomem.cli.output import Output, check_folder, filled_folder
from anomem.cli.progress import bars
from anomem.cli.session import Session, pass_session
from anomem.errors import InputError
from anomem.version import __version__

MARK = ".anomem-demo.json"
MODEL = "model.safetensors"
TEXTURE, SIZE = "brick", 224
N_TRAIN, N_TEST, N_FRESH = 100, 30, 60
"""Number of normal training images; of normal, and of anomalous, test images; of calibration images."""
ALPHA = 0.05
_RUNNING = {"batch_size": 16, "workers": None}


@click.command(short_help="Run an example: textures, defects, a report.")
@click.option(
    "--out", type=options.PATH, metavar="DIR", default="anomem-demo", show_default=True, help="Folder to write."
)
@options.as_json
@pass_session
def demo(session: Session, /, out: Path, as_json: bool) -> None:
    """Run an example: plant defects into photographs of bricks, fit on normal images, find the defects.

    Writes the images, the model and a report into DIR. Nothing is downloaded.
    """
    output = Output(as_json)
    _check(out)
    started = time.perf_counter()
    with filled_folder(out, session) as folder:
        content = _run(folder, out, output, session)
    seconds = time.perf_counter() - started
    output.line(f"report: {out / REPORT} ({seconds:.0f} s in all)")
    model, images = (shlex.quote(str(out / name)) for name in (MODEL, f"images/{TEXTURE}/test"))
    output.line(f"next: anomem score {model} {images} --heatmaps {shlex.quote(str(out / 'heatmaps'))}")
    output.result({"report": out / REPORT, "seconds": round(seconds, 3), **content})


def _check(out: Path) -> None:
    """Refuse a folder with other contents than an earlier demo.

    Raises
    ------
    InputError
        The folder has other contents.
    """
    check_folder(out)
    if out.is_dir() and any(out.iterdir()) and not (out / MARK).is_file():
        raise InputError(f"{out}: contains files that are not of an earlier demo; choose a new folder with --out")


def _run(folder: Path, out: Path, output: Output, session: Session) -> dict[str, object]:
    """Run the example in `folder`, which becomes `out`; return the metrics."""
    from anomem.data.sources import read_dataset
    from anomem.data.synthetic import write_textures
    from anomem.detectors import get
    from anomem.evaluation.evaluate import evaluate

    images = folder / "images"
    (root,) = write_textures(images, n_train=N_TRAIN, n_test=N_TEST, size=SIZE, seed=0, textures=[TEXTURE])
    data, fresh = read_dataset(root), _write_fresh(images / "fresh")
    output.line(
        f"{TEXTURE}: {N_TRAIN} normal images to learn from; {N_TEST} normal ones and {N_TEST} with planted defects "
        "from another part of the photograph to test on"
    )
    detector = get("anomem")(size=SIZE)
    session.check()
    with bars(session, quiet=output.as_json) as progress:
        detector.fit(list(data.train), alpha=ALPHA, progress=progress)
    detector.calibrate(fresh, ALPHA)
    with bars(session, quiet=output.as_json) as progress:
        evaluation = evaluate(detector, data.test, progress=progress)
    detector.save(folder / MODEL)
    facts = {"Model file": str(out / MODEL), "Data": f"photograph of {TEXTURE}, planted defects"}
    write_page(evaluation, detector, folder, f"{TEXTURE.capitalize()} with planted defects", facts, _RUNNING)
    (folder / MARK).write_text(json.dumps({"version": __version__}) + "\n", encoding="utf-8")
    for text in summary(evaluation):
        output.line(text)
    pixel = evaluation.pixel
    return {
        "image": {"auroc": evaluation.image.auroc},
        "pixel": {"auroc": pixel.auroc, "aupro": pixel.aupro} if pixel else None,
        "model": str(out / MODEL),
        "n_train": len(data.train),
        "n_normal": evaluation.n_normal,
        "n_anomalous": evaluation.n_anomalous,
    }


def _write_fresh(folder: Path) -> list[Path]:
    """Write normal images from the test half of the photograph.

    Crops of the training half overlap: held-out ones are too similar to the training images to calibrate on.
    """
    import numpy as np

    from anomem.data.synthetic import crops
    from anomem.runtime.images import write_png

    folder.mkdir(parents=True)
    paths = [folder / f"{i:03d}.png" for i in range(N_FRESH)]
    rng = np.random.default_rng(1)
    for path, image in zip(paths, crops(TEXTURE, N_FRESH, size=SIZE, half="test", rng=rng), strict=True):
        write_png(path, image)
    return paths
