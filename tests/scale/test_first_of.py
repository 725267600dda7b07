"""Results of shards: from Ray's rows, or from the files of shards whose rows never come."""

from __future__ import annotations

import dataclasses
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from anomem.scale import score_shards
from anomem.scale.on_ray import first_of
from anomem.scale.shard import Job, ShardError, shard_file
from tests.scale.images import model, write_images

SHARDS = range(3)


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """A run of three shards, all of them finished."""
    fitted = model(tmp_path)
    write_images(tmp_path / "in", 6)
    run = tmp_path / "run"
    score_shards(fitted, [tmp_path / "in"], run, workers=0, shard_images=2)
    plan = json.loads((run / "manifest.json").read_text())["plan"]
    return Job(str(fitted), str(run), plan, alpha=0.3)


def rows(*shards: int, error: str = "") -> Iterator[dict[str, Any]]:
    yield from ({"shard": shard, "error": error} for shard in shards)


def cut_off(*shards: int) -> Iterator[dict[str, Any]]:
    """Rows of some shards, and then none for ever."""
    yield from rows(*shards)
    threading.Event().wait()


def failing(*shards: int) -> Iterator[dict[str, Any]]:
    yield from rows(*shards)
    raise OSError("the node is dead")


def test_rows_are_results(job: Job) -> None:
    assert list(first_of(rows(2, 0, 1), SHARDS, job)) == [2, 0, 1]
    assert list(first_of(rows(*SHARDS, error="bad"), SHARDS, job)) == [ShardError(shard, "bad") for shard in SHARDS]


def test_files_are_results_where_rows_never_come(job: Job) -> None:
    assert set(first_of(cut_off(1), SHARDS, job, pause=0.1)) == set(SHARDS)
    assert list(first_of(failing(1), SHARDS, job)) == [1, 0, 2]


def test_no_row_is_taken_after_the_end(job: Job) -> None:
    taken = []

    def counted() -> Iterator[dict[str, Any]]:
        for row in rows(*range(20)):
            taken.append(row)
            yield row
            time.sleep(0.05)

    found = first_of(counted(), range(20), job)
    assert next(found) == 0
    found.close()
    time.sleep(0.3)
    assert len(taken) < 5


def test_files_of_another_plan_or_shard_are_none(job: Job) -> None:
    other = dataclasses.replace(job, plan="other")
    with pytest.raises(OSError, match="the node is dead"):
        list(first_of(failing(1), SHARDS, other))
    shard_file(Path(job.folder), 2).write_bytes(shard_file(Path(job.folder), 1).read_bytes())
    with pytest.raises(OSError, match="the node is dead"):
        list(first_of(failing(1), SHARDS, job))
    shard_file(Path(job.folder), 0).unlink()
    assert list(first_of(rows(1), SHARDS, job)) == [1]
