"""Splits: disjoint, complete, of the documented sizes, independent of order."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anomem.data.splits import Split, groups_of, split_normals
from anomem.errors import AnomemWarning, InputError


def quiet(digests: Sequence[int], groups: Sequence[object] | None = None, seed: int = 0) -> Split:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AnomemWarning)
        return split_normals(digests, groups, seed=seed)


def parts(split: Split) -> tuple[np.ndarray, ...]:
    """Learn, tune, and all that is held out for the calibration."""
    return split.learn, split.tune, np.sort(np.concatenate([split.calibrate, split.beside]))


@pytest.mark.parametrize(
    ("n", "learn", "tune", "calibrate"),
    [
        (30, 12, 8, 10),
        (50, 32, 8, 10),
        (100, 65, 15, 20),
        (209, 136, 31, 42),
        (6827, 4438, 1024, 1365),
        (20_000, 16_928, 1024, 2048),
    ],
)
def test_sizes(n: int, learn: int, tune: int, calibrate: int) -> None:
    assert [len(part) for part in parts(split_normals(range(n), seed=1))] == [learn, tune, calibrate]


@pytest.mark.parametrize("n", range(3, 30))
def test_few_normals_are_split_in_thirds_with_one_warning(n: int) -> None:
    with pytest.warns(AnomemWarning, match=f"only {n} normal images") as caught:
        split = split_normals(range(n), seed=0)
    assert len(caught) == 1
    sizes = [len(part) for part in parts(split)]
    assert max(sizes) - min(sizes) <= 1
    assert sum(sizes) == n


@pytest.mark.parametrize("n", range(3))
def test_too_few(n: int) -> None:
    with pytest.raises(InputError, match="at least 3"):
        split_normals(range(n), seed=0)


def test_too_few_that_may_be_separated() -> None:
    with pytest.raises(InputError, match="only 2 that may be separated"):
        split_normals(range(50), ["a", "b"] * 25, seed=0)
    with pytest.raises(InputError, match="only 1 that may be separated"):
        split_normals([5] * 50, seed=0)


def test_groups_need_one_entry_each() -> None:
    with pytest.raises(InputError, match="2 groups for 40 images"):
        split_normals(range(40), ["a", "b"], seed=0)


@given(
    st.lists(
        st.tuples(st.integers(0, 2**64 - 1) | st.integers(0, 9), st.none() | st.integers(0, 12)),
        min_size=3,
        max_size=120,
    ),
    st.integers(0, 5),
    st.randoms(use_true_random=False),
)
def test_properties(images: list[tuple[int, int | None]], seed: int, order: object) -> None:
    digests = [digest for digest, _ in images]
    groups = [group for _, group in images]
    try:
        split = quiet(digests, groups, seed)
    except InputError:
        assert len({g if g is not None else ("digest", d) for d, g in images}) < 3 or linked(images) < 3
        return
    found = np.concatenate(parts(split))
    assert sorted(found) == list(range(len(images)))
    assert all(len(part) for part in parts(split))
    assert all(part.dtype == np.intp and (np.diff(part) > 0).all() for part in parts(split))
    where = {int(i): place for place, part in enumerate(parts(split)) for i in part}
    for of in (digests, groups):
        seen: dict[int, int] = {}
        for i, value in enumerate(of):
            if value is not None:
                assert seen.setdefault(value, where[i]) == where[i]
    shuffled = list(range(len(images)))
    order.shuffle(shuffled)  # type: ignore[attr-defined]
    again = quiet([digests[i] for i in shuffled], [groups[i] for i in shuffled], seed)
    for part, other in zip(parts(split), parts(again), strict=True):
        assert sorted(digests[i] for i in part) == sorted(digests[shuffled[i]] for i in other)


def linked(images: list[tuple[int, int | None]]) -> int:
    """Count what may be separated, by repeated merging."""
    sets = [{("d", d)} | ({("g", g)} if g is not None else set()) for d, g in images]
    merged: list[set[tuple[str, int]]] = []
    for keys in sets:
        touching = [other for other in merged if other & keys]
        merged = [other for other in merged if not other & keys]
        merged.append(keys.union(*touching))
    return len(merged)


def test_deterministic_and_seeded() -> None:
    digests = [int(d) for d in np.random.default_rng(0).integers(0, 2**63, 200)]
    first, again, other = (split_normals(digests, seed=seed) for seed in (3, 3, 4))
    assert all(np.array_equal(a, b) for a, b in zip(parts(first), parts(again), strict=True))
    assert not np.array_equal(first.calibrate, other.calibrate)


def test_numpy_digests_split_alike() -> None:
    digests = np.arange(60, dtype=np.uint64) * np.uint64(2**57)
    a, b = quiet(list(digests)), quiet([int(d) for d in digests])
    assert all(np.array_equal(x, y) for x, y in zip(parts(a), parts(b), strict=True))


def test_every_image_has_the_same_chance() -> None:
    n, draws = 60, 600
    hits = np.zeros(n)
    for seed in range(draws):
        hits[split_normals(range(1000, 1000 + n), seed=seed).calibrate] += 1
    rate = 12 / n
    deviation = (hits - draws * rate) / np.sqrt(draws * rate * (1 - rate))
    assert np.abs(deviation).max() < 4.5
    assert (deviation**2).mean() == pytest.approx(1, abs=0.6)


def test_even_groups_come_close_to_the_sizes() -> None:
    split = split_normals(range(1000), [i // 5 for i in range(1000)], seed=0)
    sizes = np.array([len(part) for part in parts(split)])
    assert np.abs(sizes - [650, 150, 200]).max() <= 5


@pytest.mark.parametrize("sizes", [[1000, 1, 1], [100, 100, 100], [400, 300, 2, 2], [90, 5, 5, 5, 5, 5, 5]])
def test_giant_groups_leave_no_part_empty(sizes: list[int]) -> None:
    groups = [g for g, size in enumerate(sizes) for _ in range(size)]
    for seed in range(5):
        split = quiet(list(range(len(groups))), groups, seed)
        assert all(len(part) for part in parts(split))
        assert len(split.learn) >= max(sizes)  # the giant learns


def test_one_image_of_each_group_calibrates_and_the_others_lie_beside_it() -> None:
    groups = [i // 8 for i in range(400)]
    digests = [int(d) for d in np.random.default_rng(0).integers(0, 2**63, 400)]
    split = split_normals(digests, groups, seed=0)
    of = np.asarray(groups)
    assert sorted(of[split.calibrate]) == sorted(set(of[split.calibrate]))
    assert set(of[split.beside]) == set(of[split.calibrate])
    assert len(split.beside) == 7 * len(split.calibrate)
    assert not set(of[split.calibrate]) & set(of[split.learn])
    assert len(split_normals(digests, seed=0).beside) == 0


def test_few_groups_give_a_third_to_each_part() -> None:
    groups = [i // 8 for i in range(128)]
    with pytest.warns(AnomemWarning, match="only 16 groups of normal images: a third each"):
        split = split_normals(range(128), groups, seed=0)
    assert [len(part) // 8 for part in parts(split)] == [6, 5, 5]


def test_groups_are_linked_through_equal_contents() -> None:
    assert groups_of([1, 2, 2, 3, 4], ["a", "a", "b", "b", None]) == [0, 0, 0, 0, 1]


def test_many_normals_are_quick() -> None:
    assert len(split_normals(range(100_000), seed=0).learn) == 100_000 - 1024 - 2048
