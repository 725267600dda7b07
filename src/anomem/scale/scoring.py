"""Sharded scoring: plan, compute what is missing, sum up."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from anomem.errors import InputError, MissingExtraError
from anomem.loading import load
from anomem.runtime.dependencies import installed
from anomem.runtime.machine import cores
from anomem.runtime.metadata import weights_of
from anomem.runtime.progress import Progress
from anomem.scale.ledger import Ledger, locked
from anomem.scale.on_ray import ray_attempts
from anomem.scale.plan import write_plan
from anomem.scale.processes import pooled
from anomem.scale.shard import PLAN, Job, ShardError, opened
from anomem.types import Record
from anomem.version import __version__

__all__ = ["SHARD_IMAGES", "ShardedRun", "score_shards"]

SHARD_IMAGES = 1000
"""Default number of images per shard."""

_TRIES = 3
_MAX_FAILED = 3
"""Number of failed shards that end a run early: the cause is unlikely to be a single image."""

Engine = Literal["processes", "ray"]


@dataclass(frozen=True)
class ShardedRun:
    """Complete sharded run.

    Parameters
    ----------
    folder : Path
        Folder with ``manifest.json``, ``plan.parquet`` and ``shards``.
    n : int
        Number of rows: images, and tar files that cannot be read to their end.
    errors : int
        Number of rows with an error.
    anomalous : int
        Number of rejected images.
    shards : int
        Number of shards.
    alpha : float
        False-alarm rate of the verdicts.
    computed : int
        Number of shards computed by this call; the others were there.
    """

    folder: Path
    n: int
    errors: int
    anomalous: int
    shards: int
    alpha: float
    computed: int


def score_shards(
    model: str | Path,
    sources: Sequence[str | Path],
    out: str | Path,
    *,
    engine: Engine = "processes",
    workers: int | None = None,
    address: str | None = None,
    shard_images: int = SHARD_IMAGES,
    alpha: float | None = None,
    strata: str | None = None,
    batch_size: int = 16,
    device: str = "cpu",
    precision: str = "auto",
    max_pixels: int | None = None,
    heatmaps: str | Path | None = None,
    every: int = 10,
    progress: Progress | None = None,
) -> ShardedRun:
    """Score images in shards: one Parquet file of rows each, in the order of the sources.

    A shard that is there is not computed again, whichever engine made it. A killed call leaves complete shards only;
    the same call continues. An image that cannot be read is a row with its error. Each worker holds the model once and
    computes with one thread, so scores do not depend on their number.

    Parameters
    ----------
    model : path
        Model file, or an exported one.
    sources : sequence of paths and URLs
        See `anomem.scale.plan.write_plan`.
    out : path
        Folder of the run.
    engine : {"processes", "ray"}
        Processes of this machine, or a Ray cluster.
    workers : int, optional
        Number of workers; by default one per core. With 0, processes are not used: this one computes.
    address : str, optional
        Address of a Ray cluster; by default one is started on this machine.
    shard_images : int
        Images per shard.
    alpha : float, optional
        False-alarm rate of the verdicts; the model's by default.
    strata : str, optional
        "folder" or a regular expression, for a model with strata.
    batch_size, device, precision, max_pixels
        As for `Model.score` and `anomem.loading.load`.
    heatmaps : path, optional
        Folder of heatmaps, with a folder per shard.
    every : int
        Interval of the frames used of a video.
    progress : callable, optional
        Called with a Record per shard; on Ray, what it prints goes to standard error.

    Returns
    -------
    ShardedRun

    Raises
    ------
    InputError
        Sources that cannot be read, a folder of another run or in use, or shards that failed; complete shards stay.
    MissingExtraError
        Without pyarrow, or Ray where it is wanted.
    """
    if not installed("pyarrow"):
        raise MissingExtraError("pyarrow", "tables")
    opening = load(model, precision=precision)
    if alpha is not None:
        opening.set_alpha(alpha)
    settings: dict[str, Any] = {
        "alpha": opening.calibration_.alpha,
        "strata": strata,
        "batch_size": batch_size,
        "device": device,
        "precision": precision,
        "max_pixels": max_pixels,
        "heatmaps": None if heatmaps is None else str(Path(heatmaps).absolute()),
    }
    made = {"anomem": __version__, "method": opening.name, "model": _digest(model), "shard_images": shard_images}
    del opening
    folder = Path(out).absolute()
    with locked(folder):
        ledger = _planned(folder, sources, {**made, **settings}, shard_images, every)
        job = Job(str(Path(model).absolute()), str(folder), ledger.facts["plan"], **settings)
        pending = ledger.pending()
        execute = partial(ray_attempts, address=address) if engine == "ray" else _by_processes
        with closing(execute(pending, job, workers)) as results:
            _run_all(results, ledger.facts["shards"], len(pending), folder, progress)
        counts = ledger.finish()
    return ShardedRun(folder, *counts, ledger.facts["shards"], job.alpha, computed=len(pending))


def _digest(model: str | Path) -> str:
    digest = hashlib.sha256()
    for file in (Path(model), weights_of(model)):
        if file is not None:
            digest.update(file.read_bytes())
    return digest.hexdigest()


def _planned(
    folder: Path, sources: Sequence[str | Path], facts: dict[str, Any], shard_images: int, every: int
) -> Ledger:
    """Plan the run; the plan of an earlier one stays where this one is refused."""
    fresh = folder / "plan.new.parquet"
    plan = write_plan([str(source) for source in sources], fresh, shard_images, every)
    ledger = Ledger(folder, {"plan": plan.digest, "names": plan.names, "shards": plan.shards, **facts})
    fresh.replace(folder / PLAN)
    if facts["heatmaps"] is not None:
        Path(facts["heatmaps"]).mkdir(exist_ok=True)
    return ledger


def _by_processes(pending: Sequence[int], job: Job, workers: int | None) -> Generator[int | ShardError, None, None]:
    if workers == 0:
        with opened(job) as attempt:
            yield from attempt(pending)
        return
    count = cores() if workers is None else workers
    for result in pooled([[shard] for shard in pending], partial(opened, job), count, tries=_TRIES):
        if isinstance(result, (int, ShardError)):
            yield result
        else:
            yield ShardError(result.unit, f"{result} {_TRIES} times; use fewer --workers")


def _run_all(
    results: Iterator[int | ShardError], shards: int, pending: int, folder: Path, progress: Progress | None
) -> None:
    """Wait for all shards; InputError with the first failed one."""
    failed: list[ShardError] = []
    for done, result in enumerate(results, start=shards - pending + 1):
        if isinstance(result, ShardError):
            failed.append(result)
            if len(failed) == _MAX_FAILED:
                break
        if progress is not None:
            progress(Record("shards", done, shards))
    if failed:
        more = f" ({len(failed)} shards failed)" if len(failed) > 1 else ""
        problem = f"{folder}: shard {failed[0].shard}: {failed[0].error}{more}"
        raise InputError(f"{problem}; the finished shards are complete: run the command again to continue")
