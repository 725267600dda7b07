"""Batches loaded ahead by threads, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from anomem.errors import ParameterError

__all__ = ["load_batches"]

T = TypeVar("T")


def load_batches(
    count: int, load: Callable[[int], T], *, batch_size: int, workers: int
) -> Generator[list[T], None, None]:
    """Yield ``load(0)``, ``load(1)``, ... in lists of ``batch_size``, loaded ahead in threads.

    Parameters
    ----------
    count : int
        Number of items.
    load : callable
        Function that returns item ``i``; called from several threads, once per item.
    batch_size : int
        Items per batch, at least 1; the last batch may be shorter.
    workers : int
        Number of threads; with 0, items are loaded in the caller's thread on demand.

    Yields
    ------
    list
        Next items, in order. At most ``batch_size + 2 * workers`` items are loaded or loading
        beyond the yielded ones.

    Raises
    ------
    ParameterError
        ``batch_size`` below 1 or ``workers`` below 0, at the call.
    Exception
        Exceptions of ``load``, raised after all earlier batches were yielded.

    Notes
    -----
    Closing the generator, also by an error, cancels pending items and waits for running threads.

    Examples
    --------
    >>> list(load_batches(5, lambda i: i * i, batch_size=2, workers=2))
    [[0, 1], [4, 9], [16]]
    """
    if batch_size < 1:
        raise ParameterError(f"batch_size must be at least 1, not {batch_size}")
    if workers < 0:
        raise ParameterError(f"workers must be at least 0, not {workers}")
    if workers == 0:
        return _inline(count, load, batch_size)
    return _threaded(count, load, batch_size, workers)


def _inline(count: int, load: Callable[[int], T], batch_size: int) -> Generator[list[T], None, None]:
    for start in range(0, count, batch_size):
        yield [load(index) for index in range(start, min(start + batch_size, count))]


def _threaded(count: int, load: Callable[[int], T], batch_size: int, workers: int) -> Generator[list[T], None, None]:
    ahead = batch_size + 2 * workers
    pending: deque[Future[T]] = deque()
    indices = iter(range(count))
    pool = ThreadPoolExecutor(workers, thread_name_prefix="anomem-load")

    def top_up(room: int) -> None:
        while len(pending) < room and (index := next(indices, None)) is not None:
            pending.append(pool.submit(load, index))

    try:
        top_up(ahead)
        while pending:
            batch: list[T] = []
            while pending and len(batch) < batch_size:
                batch.append(pending.popleft().result())
                top_up(ahead)
            yield batch
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
