"""Order, bounds, errors and shutdown of the loading threads."""

from __future__ import annotations

import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anomem.errors import ParameterError
from anomem.runtime.batches import load_batches


def loader_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("anomem-load")]


@settings(max_examples=40, deadline=None)
@given(count=st.integers(0, 40), batch_size=st.integers(1, 12), workers=st.integers(0, 4))
def test_every_item_once_in_order_in_full_batches(count: int, batch_size: int, workers: int) -> None:
    batches = list(load_batches(count, lambda i: i, batch_size=batch_size, workers=workers))
    assert [item for batch in batches for item in batch] == list(range(count))
    assert all(len(batch) == batch_size for batch in batches[:-1])
    assert all(batches)
    assert not loader_threads()


def test_order_holds_when_the_first_are_the_slowest() -> None:
    def load(index: int) -> int:
        time.sleep(0.02 if index % 4 == 0 else 0)
        return index

    batches = load_batches(12, load, batch_size=5, workers=4)
    assert [item for batch in batches for item in batch] == list(range(12))


def test_a_slow_consumer_bounds_what_is_in_flight() -> None:
    begun = 0
    lock = threading.Lock()

    def load(index: int) -> int:
        nonlocal begun
        with lock:
            begun += 1
        return index

    taken, most = 0, 0
    for batch in load_batches(200, load, batch_size=4, workers=3):
        taken += len(batch)
        time.sleep(0.002)
        most = max(most, begun - taken)
    assert taken == 200
    assert 0 < most <= 4 + 2 * 3


def test_loads_run_side_by_side_in_so_many_threads() -> None:
    barrier = threading.Barrier(3)
    threads = set()

    def load(index: int) -> int:
        barrier.wait(timeout=10)  # passes only if three loads are running at once
        threads.add(threading.current_thread().name)
        return index

    assert len(list(load_batches(12, load, batch_size=3, workers=3))) == 4
    assert len(threads) == 3


@pytest.mark.parametrize("workers", [0, 3])
def test_an_error_surfaces_at_its_batch_and_ends_the_threads(workers: int) -> None:
    def load(index: int) -> int:
        if index == 7:
            raise OSError("image 7")
        return index

    batches = load_batches(100, load, batch_size=3, workers=workers)
    assert next(batches) == [0, 1, 2]
    assert next(batches) == [3, 4, 5]
    with pytest.raises(OSError, match="image 7"):
        next(batches)
    assert not loader_threads()
    with pytest.raises(StopIteration):
        next(batches)


def test_closing_stops_the_threads_and_what_has_not_begun() -> None:
    begun = []

    def load(index: int) -> int:
        begun.append(index)
        time.sleep(0.005)
        return index

    batches = load_batches(1000, load, batch_size=30, workers=2)
    next(batches)
    assert loader_threads()
    batches.close()
    assert not loader_threads()
    after = len(begun)
    time.sleep(0.05)
    assert len(begun) == after < 30 + 15  # 30 + 30 + 4 if the waiting ones had still been loaded


def test_without_workers_items_load_in_this_thread_when_asked() -> None:
    seen = []

    def load(index: int) -> int:
        seen.append((index, threading.current_thread()))
        return index

    batches = load_batches(4, load, batch_size=2, workers=0)
    assert seen == []
    next(batches)
    assert seen == [(0, threading.current_thread()), (1, threading.current_thread())]


def test_bad_numbers_fail_at_the_call() -> None:
    with pytest.raises(ParameterError, match="batch_size"):
        load_batches(3, int, batch_size=0, workers=1)
    with pytest.raises(ParameterError, match="workers"):
        load_batches(3, int, batch_size=1, workers=-1)
