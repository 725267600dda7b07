"""Measurement of one side: its process, timed from start to end, and our metrics of its output."""

from __future__ import annotations

import datetime
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.common import Bench, isolated, link_of, opened

if TYPE_CHECKING:
    from anomem.data.labelled_images import Images
    from anomem.types import FloatArray

DROPPED = ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE")
"""Environment variables to remove: the first finds our packages, the second disables compiled files."""
POOLS = ("OMP", "MKL", "OPENBLAS", "NUMBA")
ROC_POINTS = 200
"""Maximum number of ROC corners in a line, evenly spaced."""
KEPT = (
    *("n_train", "n_test", "threads", "versions", "coreset_items", "epochs", "steps"),
    *("fit_seconds", "score_seconds", "images_per_second", "load_average", "peak_rss_fit_mb", "peak_rss_mb"),
)


class SideError(Exception):
    """Error of a side that could not be measured, in one line."""


def measured(name: str, command: Sequence[str], images: Path, bench: Bench) -> dict[str, Any]:
    """Run one side in a separate process, then judge raw scores and maps of a peer.

    Parameters
    ----------
    name : str
        Name of the set.
    command : list of str
        Command line, without the output folder.
    images : Path
        Folder of links to read.
    bench : Bench

    Returns
    -------
    dict
        JSON-ready seconds and 2**20 bytes; for a peer also ``line``, figures of its run line.

    Raises
    ------
    SideError
        The side failed, or exceeded the time limit.
    """
    args, out = bench.args, bench.folder / "raw"
    shutil.rmtree(out, ignore_errors=True)
    started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    whole = timed([*command, "--out", str(out), "--name", "run"], args.threads, args.patience)
    facts = json.loads((out / "run.json").read_text(encoding="utf-8"))
    seconds = {"whole_seconds": round(whole[0], 2), "whole_cpu_seconds": round(whole[1], 2), "started": started}
    kept = {key: facts.get(key) for key in KEPT}
    own = (out / "run.safetensors").exists()
    judged = {} if own else isolated(judge, name, args.limit, str(images), str(out / "run.npz"))
    return {"set": name, "seed": facts["seed"], **seconds, **kept, **judged}


def timed(
    command: Sequence[str], threads: int, patience: float, environment: Mapping[str, str] | None = None
) -> tuple[float, float]:
    """Run a command; return wall-clock and processor seconds of its whole process."""
    own = {key: value for key, value in os.environ.items() if key not in DROPPED} | dict(environment or {})
    own |= {f"{pool}_NUM_THREADS": str(threads) for pool in POOLS} | {"HF_HUB_OFFLINE": "1"}
    before, started = _children(), time.perf_counter()
    # An exception ends the command, too; a signal's default action would leave it running.
    earlier = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        # Errors of a library may contain any text.
        done = subprocess.run(
            command, env=own, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=patience, check=False
        )
    except subprocess.TimeoutExpired as late:
        raise SideError(f"not done within {patience:g} s") from late
    except OSError as error:
        raise SideError(f"its interpreter does not start: {error.strerror}") from error
    finally:
        signal.signal(signal.SIGTERM, earlier)
    seconds = time.perf_counter() - started
    if done.returncode:
        said = [line.strip() for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
        ended = f"ended by {signal.Signals(-done.returncode).name}" if done.returncode < 0 else ""
        raise SideError(ended or (said[-1] if said else f"exit code {done.returncode}"))
    return seconds, _children() - before


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def judge(name: str, limit: int | None, folder: str, file: str) -> dict[str, Any]:
    """Judge a peer's output; for a separate process, as maps take memory.

    Raises
    ------
    SideError
        A score is not a number.
    """
    import numpy as np

    from anomem.benchmark.unit import images_digest, scores_digest
    from anomem.evaluation.figures import ImageRow, image_figures, roc_points, type_figures

    test = opened(name, limit).test
    names = [link_of(Path(folder), "test", test, i).relative_to(folder).as_posix() for i in range(len(test))]
    with np.load(file, allow_pickle=False) as raw:
        row = {str(path): i for i, path in enumerate(raw["paths"])}
        order = [row.pop(name) for name in names]
        scores, maps = raw["scores"][order], raw["maps"][order] if "maps" in raw else None
    if row:
        raise ValueError(f"{file}: {len(row)} more images than requested")
    if np.isnan(scores).any():
        raise SideError(f"{np.isnan(scores).sum()} of its {len(scores)} scores are no numbers")
    rows = [
        ImageRow(name, int(label), kind, float(score), 1.0, False)
        for name, label, kind, score in zip(names, test.labels, test.kinds, scores, strict=True)
    ]
    n_anomalous = int(test.labels.sum())
    line = {
        "n_test": {"normal": len(rows) - n_anomalous, "anomalous": n_anomalous, "left_out": 0},
        "image": asdict(image_figures(rows)),
        "pixel": None if maps is None else pixel_figures(test, maps),
        "types": {key: {"n": each.n, "auroc": each.auroc} for key, each in type_figures(rows).items()},
        "roc": asdict(roc_points(rows, ROC_POINTS)),
        "scores_sha256": scores_digest(scores),
        "images_sha256": images_digest([test.source.digest(i) for i in range(len(test))]),
    }
    return {"line": line}


def pixel_figures(test: Images, maps: FloatArray) -> dict[str, Any] | None:
    """Return pixel AUROC and AUPRO with intervals, from a peer's maps resized to each image's frame."""
    from anomem.evaluation.pixels import PixelTally
    from anomem.runtime.images import resize_map

    tally = PixelTally(test)
    for i, values in enumerate(maps):
        tally.add(i, resize_map(values, test.source.load(i).shape[:2]))
    found = tally.figures()
    return found and asdict(found)
