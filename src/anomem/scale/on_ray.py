"""Shards computed by a Ray cluster: Ray Data runs the tasks, files on disk say which are finished.

A shard is a task, not a call of an actor: a pool of actors whose members die can wait for ever, while a task whose
worker or node dies is started elsewhere, at most three times, and then fails. The model is loaded once per worker
process. Objects that Ray stores hold shard numbers only, so nothing is spilled.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import threading
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, redirect_stdout, suppress
from functools import lru_cache
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from anomem.errors import InputError, MissingExtraError, one_line
from anomem.runtime.dependencies import installed
from anomem.scale.shard import Job, ShardError, opened, read_finished, shard_file

__all__ = ["first_of", "ray_attempts"]

_ending = ExitStack()
"""Model of a worker process, open until the process ends."""

_SHARDS_PER_TASK = 8
"""Maximum number of shards of a task; a repeated task skips those that are there."""

_RETRIES = 3
"""Number of times that a task is started elsewhere."""

_LOOK_S = 10
"""Seconds without a row after which files are looked at."""

_END_S = 3
"""Seconds that Ray has to end the rows."""

_CONNECT_S = 10
"""Seconds that a cluster has to take a connection."""


def ray_attempts(
    shards: Sequence[int], job: Job, workers: int | None, address: str | None
) -> Generator[int | ShardError, None, None]:
    """Compute shards on a Ray cluster, and yield their numbers or errors in the order of completion.

    Until the end, standard output is standard error.

    Parameters
    ----------
    shards : sequence of int
    job : Job
        Its folder and model are readable at the same paths on every node.
    workers : int, optional
        Maximum number of tasks at a time; the cluster's processors by default.
    address : str, optional
        Address of a running cluster; by default Ray is started on this machine.

    Raises
    ------
    MissingExtraError
        Ray is not installed.
    InputError
        No cluster at the address, or a task has failed on every try.
    """
    if not installed("ray"):
        raise MissingExtraError("ray", "ray")
    if not shards:
        return
    with ExitStack() as ending:
        ending.enter_context(redirect_stdout(sys.stderr))  # Ray prints messages there, between a command's results
        _connect(workers, address, ending)
        import ray.data

        logging.getLogger("ray.data").setLevel(logging.ERROR)  # its import sets another level
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        per_task = max(1, min(_SHARDS_PER_TASK, len(shards) // (4 * (workers or 1))))
        found = ray.data.from_items(list(shards), override_num_blocks=-(-len(shards) // per_task))
        with warnings.catch_warnings():
            # Ray Data tries for ever by itself; what limits it is to be removed in Ray 2.64, which is not allowed.
            warnings.simplefilter("ignore", ray.util.annotations.RayDeprecationWarning)
            computed = found.map_batches(
                _attempt,
                batch_size=1,
                fn_kwargs={"job": job},
                num_cpus=1,
                compute=ray.data.TaskPoolStrategy(size=workers),
                ray_remote_args_fn=lambda: {"max_retries": _RETRIES},
            )
        try:
            yield from first_of(computed.iter_rows(), shards, job)
        except ray.exceptions.RayError as error:
            raise InputError(f"ray: {one_line(error, 300)}; run the command again to continue") from error


def first_of(
    rows: Iterable[Mapping[str, Any]], shards: Iterable[int], job: Job, pause: float = _LOOK_S
) -> Iterator[int | ShardError]:
    """Yield each shard when its row comes or, in a pause, when its file is there.

    Rows of a node that is cut off may never come, and files decide what is finished.

    Parameters
    ----------
    rows : iterable of dict
        ``shard`` and ``error`` ("" for none), as tasks return them.
    shards : iterable of int
        All that are wanted.
    job : Job
    pause : float
        Seconds without a row after which files are looked at.

    Raises
    ------
    Exception
        The error of `rows`, unless all files are there.
    """
    left = set(shards)
    arrived: SimpleQueue[Mapping[str, Any] | BaseException | None] = SimpleQueue()
    ended = threading.Event()
    thread = threading.Thread(target=_hand_over, args=(iter(rows), arrived, ended), daemon=True)
    thread.start()
    try:
        while left:
            row: Mapping[str, Any] | BaseException | None = {}
            with suppress(Empty):
                row = arrived.get(timeout=pause)
            if isinstance(row, Mapping) and row:
                if row["shard"] in left:
                    left.remove(row["shard"])
                    yield ShardError(int(row["shard"]), str(row["error"])) if row["error"] else int(row["shard"])
                continue
            there = _there(left, job)
            left -= there
            yield from sorted(there)
            if isinstance(row, BaseException) and left:
                raise row
            if row is None:
                return
    finally:
        ended.set()
        thread.join(min(pause, _END_S))  # else Ray is shut down while it ends the rows


def _hand_over(
    rows: Iterator[Mapping[str, Any]],
    arrived: SimpleQueue[Mapping[str, Any] | BaseException | None],
    ended: threading.Event,
) -> None:
    """Put rows into a queue until nobody wants them, then their error, or None at the end."""
    try:
        for row in rows:
            if ended.is_set():
                return
            arrived.put(row)
        arrived.put(None)
    except BaseException as error:  # noqa: BLE001 - raised by the reader of the queue
        arrived.put(error)


def _there(shards: set[int], job: Job) -> set[int]:
    """Return the shards whose files are there."""
    found = {shard: read_finished(shard_file(Path(job.folder), shard)) for shard in shards}
    return {shard for shard, facts in found.items() if facts and (facts.plan, facts.shard) == (job.plan, shard)}


def _connect(workers: int | None, address: str | None, ending: ExitStack) -> None:
    """Start or join a cluster, without its reports of use and without output of its own."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")  # else rows could start a cluster at the end
    import ray

    if ray.is_initialized():
        return
    own: dict[str, Any] = {"num_cpus": workers, "include_dashboard": False} if address is None else {}
    try:
        _reach(address)
        ray.init(address=address or "local", log_to_driver=False, logging_level=logging.ERROR, **own)
    except Exception as error:  # ConnectionError, RuntimeError, ValueError ...
        if address is None:
            raise InputError(f"ray: does not start here ({one_line(error, 200)}); use --engine processes") from error
        fix = "check the address, and set the cluster's RAY_AUTH_TOKEN if it has one"
        raise InputError(f"ray: no cluster at {address} ({one_line(error, 200)}); {fix}") from error
    ending.callback(ray.shutdown)


def _reach(address: str | None) -> None:
    """Open and close a connection to ``HOST:PORT``, since Ray ends the process where nothing answers."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_S).close()


def _attempt(batch: dict[str, Any], job: Job) -> dict[str, list[Any]]:
    """Compute the shards of a batch in a worker of Ray."""
    results = list(_opened(job)([int(shard) for shard in batch["item"]]))
    return {
        "shard": [result if isinstance(result, int) else result.shard for result in results],
        "error": ["" if isinstance(result, int) else result.error for result in results],
    }


@lru_cache(maxsize=1)
def _opened(job: Job) -> Callable[[Sequence[int]], Iterator[int | ShardError]]:
    return _ending.enter_context(opened(job))
