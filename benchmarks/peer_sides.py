"""One measurement of one side: its process, timed from start to end, and what our metrics say of what it wrote."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common import SETS, isolated, percent
from padim import linked

if TYPE_CHECKING:
    from anomem.data.sources import Sample
    from anomem.types import FloatArray

DROPPED = ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE")
"""Of the environment: the one leads to our packages, with the other every start would compile anew."""
POOLS = ("OMP", "MKL", "OPENBLAS", "NUMBA")
ROC_POINTS = 200
"""Corners of a ROC curve that a line keeps at most, evenly spaced."""
KEPT = (
    *("n_train", "n_test", "threads", "versions", "coreset_items", "epochs", "steps"),
    *("fit_seconds", "score_seconds", "images_per_second", "load_average", "peak_rss_fit_mb", "peak_rss_mb"),
)


class SideError(Exception):
    """A side could not be measured; says why in one line."""


def part_of(name: str, limit: int | None, root: Path) -> Path:
    """A folder of links to the images of a set that are learnt from and scored; the same for every side."""
    from scoring import read_set

    train, test = read_set(name, limit)
    return linked(root / name, SETS[name].path, names_of(name, [*train, *test]))


def names_of(name: str, samples: Sequence[Sample]) -> list[str]:
    """Paths of a set's images, relative to its folder."""
    return [sample.path.relative_to(SETS[name].path).as_posix() for sample in samples]


def measured(name: str, command: Sequence[str], folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Run one side in a process of its own, then judge its raw scores and maps.

    Parameters
    ----------
    name : str
        The set.
    command : list of str
        Command line, but for where it writes.
    folder : Path
        In which a folder for its output is made anew.
    args : argparse.Namespace
        ``threads``, ``patience`` and ``limit``.

    Returns
    -------
    dict
        JSON-ready figures, percent, seconds and 2**20 bytes; under ``line`` those of a run line.

    Raises
    ------
    SideError
        It failed, or was not done in time.
    """
    out = folder / "raw"
    shutil.rmtree(out, ignore_errors=True)
    started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    whole = timed([*command, "--out", str(out), "--name", "run"], args.threads, args.patience)
    facts = json.loads((out / "run.json").read_text(encoding="utf-8"))
    seconds = {"whole_seconds": round(whole[0], 2), "whole_cpu_seconds": round(whole[1], 2), "started": started}
    kept = {key: facts.get(key) for key in KEPT}
    judged = isolated(judge, name, args.limit, str(out / "run"))
    return {"set": name, "seed": facts["seed"], **seconds, **kept, **judged}


def timed(command: Sequence[str], threads: int, patience: float) -> tuple[float, float]:
    """Run a command; return the seconds of its whole process, by the clock and of processor time."""
    own = {key: value for key, value in os.environ.items() if key not in DROPPED}
    own |= {f"{pool}_NUM_THREADS": str(threads) for pool in POOLS} | {"HF_HUB_OFFLINE": "1"}
    before, started = _children(), time.perf_counter()
    try:
        # The errors of a library are text of its own choosing.
        done = subprocess.run(
            command, env=own, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=patience, check=False
        )
    except subprocess.TimeoutExpired as late:
        raise SideError(f"not done within {patience:g} s") from late
    except OSError as error:
        raise SideError(f"its interpreter does not start: {error.strerror}") from error
    seconds = time.perf_counter() - started
    if done.returncode:
        said = [line.strip() for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
        ended = f"ended by {signal.Signals(-done.returncode).name}" if done.returncode < 0 else ""
        raise SideError(ended or (said[-1] if said else f"exit code {done.returncode}"))
    return seconds, _children() - before


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def judge(name: str, limit: int | None, stem: str) -> dict[str, Any]:
    """Measure what a side wrote; meant for a process of its own, for maps take memory.

    Raises
    ------
    SideError
        It gave scores that are no numbers.
    """
    import numpy as np
    from scoring import pixel_tally, read_set

    from anomem.benchmark.unit import images_digest, scores_digest
    from anomem.data.sources import PathSource
    from anomem.evaluation.figures import ImageRow, image_figures, roc_points, type_figures

    test = read_set(name, limit)[1]
    with np.load(f"{stem}.npz", allow_pickle=False) as raw:
        row = {str(path): i for i, path in enumerate(raw["paths"])}
        order = [row.pop(path) for path in names_of(name, test)]
        scores = raw["scores"][order]
        small = raw["maps"][order] if "maps" in raw else None
    if row:
        raise ValueError(f"{stem}: {len(row)} images more than were to be scored")
    if np.isnan(scores).any():
        raise SideError(f"{np.isnan(scores).sum()} of its {len(scores)} scores are no numbers")
    rows = [
        ImageRow(str(s.path), int(s.label), s.type, float(v), 1.0, False) for s, v in zip(test, scores, strict=True)
    ]
    image, types, roc = image_figures(rows), type_figures(rows), roc_points(rows, ROC_POINTS)
    pixel = None
    if any(sample.mask is not None for sample in test):
        maps = _own_maps(stem, test, scores) if small is None else _resized(test, small)
        if maps is not None:
            found = pixel_tally(test, maps).figures()
            pixel = found and asdict(found)
    source = PathSource([sample.path for sample in test])
    n_anomalous = sum(r.label for r in rows)
    line = {
        "n_test": {"normal": len(rows) - n_anomalous, "anomalous": n_anomalous, "left_out": 0},
        "image": asdict(image),
        "pixel": pixel,
        "types": {key: {"n": each.n, "auroc": each.auroc} for key, each in types.items()},
        "roc": asdict(roc),
        "scores_sha256": scores_digest(scores),
        "images_sha256": images_digest([source.digest(i) for i in range(len(source))]),
    }
    return {
        "image_auroc": percent(image.auroc),
        "image_low": percent(image.auroc_ci[0]),
        "image_high": percent(image.auroc_ci[1]),
        "pixel_auroc": pixel and percent(pixel["auroc"]),
        "aupro": pixel and percent(pixel["aupro"]),
        "line": line,
    }


def _resized(test: Sequence[Sample], maps: FloatArray) -> Iterator[FloatArray]:
    """A peer's maps in each image's own frame."""
    from anomem.runtime.images import decode, resize_map

    for sample, values in zip(test, maps, strict=True):
        yield resize_map(values, decode(sample.path).shape[:2])


def _own_maps(stem: str, test: Sequence[Sample], scores: FloatArray) -> Iterator[FloatArray] | None:
    """Our maps, drawn again by the fitted model; None where the side keeps no model, or the method draws no maps."""
    import anomem

    file = Path(f"{stem}.safetensors")
    detector = anomem.load(file) if file.exists() else None
    if detector is None or not detector.localizes:
        return None

    def drawn() -> Iterator[FloatArray]:
        for result, score in zip(detector.score(list(test), maps=True), scores, strict=True):
            if score != result.score or result.map is None:
                raise ValueError(f"{file}: scores {test[result.index].path} {result.score}, not {score}")
            yield result.map

    return drawn()
