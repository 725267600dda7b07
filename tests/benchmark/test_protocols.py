"""Arithmetic of the protocols: selection of labelled and judged images."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from anomem.benchmark.image_sets import BenchmarkSet
from anomem.benchmark.protocols.base import label_pool
from anomem.benchmark.protocols.cross_type import split_types
from anomem.benchmark.protocols.few_labels import split_draw
from anomem.benchmark.protocols.one_vs_rest import drawn_anomalies, n_anomalies
from anomem.benchmark.protocols.registry import PROTOCOLS, new_protocol, protocol_class
from anomem.benchmark.unit import Task
from anomem.errors import InputError, ParameterError
from tests.benchmark.sets import classes, defects


@pytest.fixture(scope="module")
def cifar() -> BenchmarkSet:
    """Ten classes of 5,000 training and 1,000 test images."""
    return classes()


def tasks_of(name: str, data: BenchmarkSet, **options: object) -> tuple[list[Task], list[str]]:
    def unopened(other: str) -> BenchmarkSet:
        raise InputError(f"{other}: absent")

    found = list(new_protocol(name, options).tasks(data, unopened))
    return [t for t in found if isinstance(t, Task)], [t for t in found if isinstance(t, str)]


# --- one-vs-rest --------------------------------------------------------------------------------


@pytest.mark.parametrize(("gamma", "count"), [(0.01, 51), (0.05, 263), (0.10, 556)])
def test_gamma_is_the_share_of_anomalies(cifar: BenchmarkSet, gamma: float, count: int) -> None:
    assert n_anomalies(5000, gamma) == count
    assert count / (5000 + count) == pytest.approx(gamma, abs=1e-4)
    chosen = drawn_anomalies(cifar, "class 3", {"gamma": gamma, "draw": 0, "anomalies": "all"})
    assert len(chosen) == count
    assert set(chosen.labels) == {1}
    assert "class 3" not in chosen.kinds


def test_anomalies_come_from_all_other_classes_or_from_one(cifar: BenchmarkSet) -> None:
    facts = {"gamma": 0.10, "draw": 0}
    spread = Counter(drawn_anomalies(cifar, "class 9", {**facts, "anomalies": "all"}).kinds)
    assert len(spread) == 9
    # Uniform over 45,000 images: 61.8 a class, deviation 7.3.
    assert max(abs(n - 556 / 9) for n in spread.values()) < 4 * 7.3
    narrow = drawn_anomalies(cifar, "class 9", {**facts, "anomalies": "one"})
    assert set(narrow.kinds) == {"class 0"}
    assert len(narrow) == 556


def test_draws_differ_and_are_nested(cifar: BenchmarkSet) -> None:
    def names(gamma: float, draw: int, normal: str = "class 3") -> list[str]:
        chosen = drawn_anomalies(cifar, normal, {"gamma": gamma, "draw": draw, "anomalies": "all"})
        return [chosen.source.name(i) for i in range(len(chosen))]

    assert names(0.05, 0)[:51] == names(0.01, 0)
    assert len(set(names(0.05, 0)) & set(names(0.05, 1))) < 20
    assert names(0.05, 1) == names(0.05, 1)
    assert len(set(names(0.05, 0)) & set(names(0.05, 0, "class 4"))) < 20


def test_every_class_gamma_and_draw_is_a_task(cifar: BenchmarkSet) -> None:
    found, left_out = tasks_of("one-vs-rest", cifar)
    assert left_out == []
    assert len(found) == 10 * (1 + 3 * 10)
    assert Counter((t.facts["gamma"], t.labelled) for t in found) == {
        (0.0, False): 10,
        (0.01, True): 100,
        (0.05, True): 100,
        (0.10, True): 100,
    }
    # Everything of one class shares its one-class fit, nothing of two classes does.
    assert len({str(t.train) for t in found}) == 10
    assert {t.category for t in found} == set(cifar.classes)
    assert len(tasks_of("one-vs-rest", cifar, gammas=(0.0,), classes=("class 1",))[0]) == 1


def test_sets_that_say_what_is_normal() -> None:
    alone, left_out = tasks_of("one-vs-rest", defects({"crack": 5}), draws=1)
    assert [t.facts["gamma"] for t in alone] == [0.0]
    assert len(left_out) == 3, "there is nothing to label beside the test images"
    assert "needs 4 labelled anomalies, found 0" in left_out[-1]
    spare, left_out = tasks_of("one-vs-rest", defects({"crack": 5}, spare={"crack": 9}), draws=2)
    assert [t.facts["gamma"] for t in spare] == [0.0, 0.01, 0.01, 0.05, 0.05, 0.10, 0.10], "1 % of 40 images is one"
    assert not left_out
    with pytest.raises(InputError, match="anomalies=one needs a set of classes"):
        tasks_of("one-vs-rest", defects({"crack": 5}, spare={"crack": 9}), anomalies="one")


def test_cross_type_labels_from_the_first_step_are_a_fact_of_the_task() -> None:
    data = defects({"crack": 5, "hole": 5}, spare={"crack": 9, "hole": 9})
    refit, anew = (tasks_of("cross-type", data, **options)[0] for options in ({}, {"labels": "anew"}))
    assert [t.facts.get("labels") for t in refit] == [None] * 4, "as in lines of all versions"
    assert [t.facts.get("labels") for t in anew if t.labelled] == ["anew"] * 2
    assert [t.facts for t in anew if not t.labelled] == [t.facts for t in refit if not t.labelled]


# --- few labels ---------------------------------------------------------------------------------


@pytest.mark.parametrize("spare", [None, {"crack": 40}])
def test_every_k_of_a_draw_is_judged_on_the_same_images(spare: dict[str, int] | None) -> None:
    data = defects({"crack": 40, "hole": 40}, spare=spare)
    found, left_out = tasks_of("few-labels", data, draws=3)
    k_of = {None: [0, 1, 3, 10, 30], 40: [0, 1, 3, 10]}[spare and 40]
    assert [t.facts["k"] for t in found] == k_of * 3
    assert bool(left_out) == (spare is not None)
    judged = {}
    for task in found:
        labelled, rest, unseen = split_draw(data, task.facts["draw"], task.facts["most"])
        judged.setdefault(task.facts["draw"], set()).add(tuple(rest))
        assert len(labelled) == max(k_of)
        digests = {data.test.source.digest(i) for i in rest}
        assert digests.isdisjoint(unseen)
        assert len(rest) == 100 - (0 if spare else max(k_of))
    assert all(len(sets) == 1 for sets in judged.values())
    assert len(set.union(*judged.values())) == (1 if spare else 3), "draws differ, where they take test images"


def test_labels_of_a_draw_are_nested_and_draws_are_independent() -> None:
    data = defects({"crack": 100})
    orders = [[data.test.source.digest(i) for i in range(120)]]
    for draw in range(3):
        labelled = split_draw(data, draw, 30)[0]
        orders.append([labelled.source.digest(i) for i in range(30)])
        assert [split_draw(data, draw, 10)[0].source.digest(i) for i in range(10)] == orders[-1][:10]
    assert len({tuple(order) for order in orders}) == 4
    assert set(orders[1]) < set(orders[0])


def test_half_of_the_defects_stay_unlabelled() -> None:
    """Toothbrush has 30 defects: k goes to 10."""
    found, left_out = tasks_of("few-labels", defects({"defective": 30}), draws=1)
    assert [t.facts["k"] for t in found] == [0, 1, 3, 10]
    assert left_out == ["defects: k = 30 would label more than half of 30 defects"]
    with pytest.raises(InputError, match="too few"):
        tasks_of("few-labels", defects({"defective": 1}))
    with pytest.raises(InputError, match="needs a set that defines its normals"):
        tasks_of("few-labels", classes(2, 3, 2))


# --- cross-type ---------------------------------------------------------------------------------


@pytest.mark.parametrize("spare", [None, {"crack": 7, "hole": 6, "scratch": 5}])
@pytest.mark.parametrize("labelled", ["others", "one"])
def test_the_types_that_are_judged_are_never_labelled(labelled: str, spare: dict[str, int] | None) -> None:
    data = defects({"crack": 9, "hole": 8, "scratch": 7}, spare=spare)
    for apart in data.types:
        pool, judged = split_types(data, apart, labelled)
        assert set(pool.kinds).isdisjoint(judged)
        assert set(pool.kinds) | set(judged) == {"crack", "hole", "scratch"}
        assert len(judged) == (1 if labelled == "others" else 2)
        assert (judged == (apart,)) == (labelled == "others")
        assert set(pool.labels) == {1}
        # Labels come from the training part, where there are some.
        expected = (spare or {"crack": 9, "hole": 8, "scratch": 7}).items()
        assert len(pool) == sum(n for kind, n in expected if kind not in judged)


def test_cross_type_tasks() -> None:
    data = defects({"crack": 9, "hole": 8, "scratch": 7})
    found, left_out = tasks_of("cross-type", data)
    assert [(t.facts["apart"], t.facts["k"], t.labelled) for t in found] == [
        (kind, k, k != 0) for kind in ("crack", "hole", "scratch") for k in (0, "all")
    ]
    assert left_out == []
    found, left_out = tasks_of("cross-type", data, k=(16, "all"), draws=2, types=("crack", "scratch"))
    assert [(t.facts["apart"], t.facts["k"], t.facts.get("draw")) for t in found] == [
        ("crack", "all", None),
        ("scratch", 16, 0),
        ("scratch", 16, 1),
        ("scratch", "all", None),
    ]
    assert left_out == ["defects crack: 15 anomalies of the types to label, fewer than k = 16"]
    with pytest.raises(InputError, match="at least two"):
        tasks_of("cross-type", defects({"crack": 9}))
    with pytest.raises(InputError, match="no type 'dent'; choose from crack, hole, scratch"):
        tasks_of("cross-type", data, types=("dent",))


# --- others -------------------------------------------------------------------------------------


def test_absent_sets_to_tell_apart_are_left_out(cifar: BenchmarkSet) -> None:
    found, left_out = tasks_of("out-of-distribution", cifar, against=("svhn",))
    assert found == []
    assert left_out == ["svhn: absent"]


def test_disturbing_keeps_to_the_papers_exclusions() -> None:
    plain = defects({"crack": 3})
    assert [t.facts["disturbed"] for t in tasks_of("disturbed", plain)[0]] == ["spatial", "colour"]
    for category in ("tile", "wood", "capsule"):
        data = BenchmarkSet(
            *(f"mvtec_ad/{category}", "mvtec_ad", category, "", "none"), plain.train, plain.test, plain.spare
        )
        found, left_out = tasks_of("disturbed", data)
        assert [t.facts["disturbed"] for t in found] == ["spatial"]
        assert "another colour is a defect there" in left_out[0]


def test_promise_and_representation_tasks(cifar: BenchmarkSet) -> None:
    data = defects({"crack": 3})
    assert [t.facts["alpha"] for t in tasks_of("promise", data)[0]] == [0.01, 0.05, 0.10]
    assert protocol_class("promise").seeds == (0, 1, 2, 3, 4)
    assert new_protocol("promise").resolve()["redraws"] == 10
    assert len(tasks_of("linear-evaluation", cifar)[0]) == 1
    with pytest.raises(InputError, match="linear evaluation needs a set of classes"):
        tasks_of("linear-evaluation", data)
    with pytest.raises(InputError, match="run one-vs-rest on sets of classes"):
        tasks_of("distance-variance", cifar)


def test_labels_come_from_the_training_part_where_it_has_some() -> None:
    pool, from_test = label_pool(defects({"crack": 3}, spare={"hole": 4}))
    assert (Counter(pool.kinds), from_test) == ({"hole": 4}, False)
    pool, from_test = label_pool(defects({"crack": 3}))
    assert (Counter(pool.kinds), from_test) == ({"crack": 3}, True)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_options_are_checked(name: str, tmp_path: Path) -> None:
    assert protocol_class(name).name == name
    with pytest.raises(ParameterError, match="no parameter 'drwas'"):
        new_protocol(name, {"drwas": 3})
    for option, field in protocol_class(name).declared().items():
        assert field.metadata["doc"], option
        with pytest.raises(ParameterError, match=option):
            new_protocol(name, {option: tmp_path})


def test_unknown_protocols_are_named() -> None:
    with pytest.raises(ParameterError, match="no protocol 'few-label'; did you mean few-labels"):
        new_protocol("few-label")


def test_gamma_ignores_the_global_generator(cifar: BenchmarkSet) -> None:
    facts = {"gamma": 0.01, "draw": 0, "anomalies": "all"}
    np.random.seed(0)  # noqa: NPY002 - it must not matter
    before = drawn_anomalies(cifar, "class 0", facts).source.name(0)
    np.random.seed(1)  # noqa: NPY002
    assert drawn_anomalies(cifar, "class 0", facts).source.name(0) == before
