"""One shard: its images scored, and the rows written to its file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from anomem.data.result_table import write_parquet
from anomem.errors import AnomemError, one_line
from anomem.loading import Model, load
from anomem.runtime.atomic import atomic_path, stage
from anomem.runtime.images import HEATMAP, write_png
from anomem.runtime.limits import MAX_PIXELS
from anomem.runtime.metadata import is_exported
from anomem.runtime.overlay import overlay
from anomem.runtime.pixels import Reading
from anomem.runtime.plain import plain
from anomem.runtime.scored import Scored
from anomem.runtime.session import Session
from anomem.runtime.sources import FileSource
from anomem.scale.plan import read_shard
from anomem.scale.sources import open_shard

__all__ = ["PLAN", "Job", "ShardError", "opened", "read_finished", "shard_file"]

PLAN = "plan.parquet"
"""File of the plan in the folder of a run."""

_FACTS = "anomem.shard"
"""Key of a shard's facts in the footer of its file."""

_COLUMNS: dict[str, type] = {
    "path": str,
    "score": float,
    "p_value": float,
    "anomalous": bool,
    "stratum": str,
    "heatmap": str,
    "error": str,
}


@dataclass(frozen=True)
class Job:
    """Facts shared by all shards of a run.

    Parameters
    ----------
    model : str
        Model file.
    folder : str
        Folder of the run.
    plan : str
        Digest of the plan.
    alpha : float
        False-alarm rate of the verdicts.
    strata : str or None
        Rule of the strata, "folder" or a regular expression; None for the calibration's.
    batch_size : int
        Images per forward pass.
    device : str
        Device of a model in torch.
    precision : str
        Arithmetic; "auto" for the calibration's.
    max_pixels : int or None
        Maximum number of pixels per image.
    heatmaps : str or None
        Folder of heatmaps; None for none.
    """

    model: str
    folder: str
    plan: str
    alpha: float
    strata: str | None = None
    batch_size: int = 16
    device: str = "cpu"
    precision: str = "auto"
    max_pixels: int | None = None
    heatmaps: str | None = None


@dataclass(frozen=True)
class ShardError:
    """Shard that cannot be computed, and the reason in one line."""

    shard: int
    error: str


def shard_file(folder: Path, shard: int) -> Path:
    """Return the result file of a shard."""
    return folder / "shards" / f"{shard:06d}.parquet"


@dataclass(frozen=True)
class Finished:
    """Facts in the footer of a shard's file: digest of its plan, number of rows, of errors and of rejected images."""

    plan: str
    shard: int
    rows: int
    errors: int
    anomalous: int


def read_finished(path: Path) -> Finished | None:
    """Return the facts of a shard's file; None for a missing or unreadable one."""
    import pyarrow.parquet as pq

    if not path.is_file():
        return None
    try:
        with pq.ParquetFile(path) as file:
            facts = Finished(**json.loads((file.schema_arrow.metadata or {})[_FACTS.encode()]))
    except Exception:  # noqa: BLE001 - pyarrow raises nearly everything on damaged files
        return None
    return facts if all(isinstance(value, int) for value in (facts.rows, facts.errors, facts.anomalous)) else None


@contextmanager
def opened(job: Job) -> Iterator[Callable[[Sequence[int]], Iterator[int | ShardError]]]:
    """Load the model once, and provide the function from shards to their numbers or errors.

    It computes with one thread, so that scores do not depend on the number of workers.
    """
    if is_exported(job.model):
        model: Model = Session.open(job.model, threads=1).set_alpha(job.alpha)
        yield lambda shards: _attempts(shards, job, model)
        return
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        model = load(job.model, precision=job.precision).set_alpha(job.alpha)
        yield lambda shards: _attempts(shards, job, model)
    finally:
        torch.set_num_threads(threads)


def _attempts(shards: Sequence[int], job: Job, model: Model) -> Iterator[int | ShardError]:
    """Compute shards one by one; a shard that is there is not computed again."""
    for shard in shards:
        try:
            _compute(shard, job, model)
        except (AnomemError, OSError, MemoryError) as error:
            yield ShardError(shard, one_line(error))
        except Exception as error:  # noqa: BLE001 - one shard must not end the worker
            yield ShardError(shard, f"unexpected {type(error).__name__}: {one_line(error)}")
        else:
            yield shard


def _compute(shard: int, job: Job, model: Model) -> None:
    target = shard_file(Path(job.folder), shard)
    done = read_finished(target)
    if done is not None and done.plan == job.plan:
        return
    names = read_shard(Path(job.folder) / PLAN, shard)
    with open_shard(names, Reading(job.max_pixels or MAX_PIXELS)) as source:
        rows = _rows(shard, source, job, model)
    errors, anomalous = (sum(bool(row[name]) for row in rows) for name in ("error", "anomalous"))
    facts = asdict(Finished(job.plan, shard, len(rows), errors, anomalous))
    with atomic_path(target) as part:
        write_parquet(part, rows, _COLUMNS, {_FACTS: json.dumps(facts)})


def _rows(shard: int, source: FileSource, job: Job, model: Model) -> list[dict[str, Any]]:
    """Score the images of a shard, and draw its heatmaps, whose folder is complete or missing."""
    if job.heatmaps is None:
        return [_row(result, None) for result in _scored(source, job, model, maps=False)]
    target = Path(job.heatmaps) / f"{shard:06d}"
    rows: list[dict[str, Any]] = []
    with stage(target.parent, target.name, private=False) as room:
        for result in _scored(source, job, model, maps=True):
            drawn = None
            if result.map is not None:
                drawn = f"{result.index:06d}.png"
                image = source.with_bits(model.bits_).load(result.index)
                write_png(room / drawn, overlay(image, result.map, *model.map_scale_), title=HEATMAP)
            rows.append(_row(replace(result, map=None), None if drawn is None else str(target / drawn)))
        shutil.rmtree(target, ignore_errors=True)  # of a run that was killed before the shard's file was there
        room.rename(target)
    return rows


def _scored(source: FileSource, job: Job, model: Model, *, maps: bool) -> Iterator[Scored]:
    return model.score(
        source,
        maps=maps,
        strata=job.strata,
        batch_size=job.batch_size,
        workers=1,
        skip_bad=True,
        device=job.device,
    )


def _row(result: Scored, heatmap: str | None) -> dict[str, Any]:
    readable = result.error is None
    return {
        "path": result.name,
        "score": plain(result.score) if readable else None,
        "p_value": plain(result.p_value) if readable else None,
        "anomalous": result.anomalous if readable else None,
        "stratum": result.stratum,
        "heatmap": heatmap,
        "error": result.error,
    }
