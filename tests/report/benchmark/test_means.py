"""Means of run lines: repetitions, categories, separate settings."""

from __future__ import annotations

import statistics
from typing import Any

import pytest

from anomem.report.benchmark.line import Run, run_of
from anomem.report.benchmark.means import means


def line(auroc: float, **changes: Any) -> Run:
    found: dict[str, Any] = {
        "key": "a",
        "method": "anomem",
        "protocol": "localisation",
        "set": "mvtec_ad",
        "data": "mvtec_ad/bottle",
        "category": "bottle",
        "group": "",
        "label": "anomem",
        "parameters": {},
        "sweep": None,
        "limit": None,
        "dry_steps": None,
        "seed": 0,
        "task": {},
        "image": {"auroc": auroc, "ap": auroc / 2},
        "pixel": None,
    }
    return run_of(found | changes, "runs.jsonl: line 1")


def test_objects_textures_and_all() -> None:
    levels = {("bottle", "object"): 0.9, ("cable", "object"): 0.7, ("tile", "texture"): 0.95}
    lines = [
        line(level + 0.01 * seed, category=name, group=group, seed=seed, pixel={"auroc": level, "aupro": level})
        for (name, group), level in levels.items()
        for seed in (0, 2)
    ]
    found = {row.group: row for row in means(lines)}
    assert list(found) == ["object", "texture", "all"]
    assert found["object"].categories == ("bottle", "cable")
    assert found["object"].values["image_auroc"][0] == pytest.approx(0.81)
    assert found["all"].values["image_auroc"][0] == pytest.approx(sum(levels.values()) / 3 + 0.01)
    # The spread is that of repetitions, not that between categories.
    assert found["all"].values["image_auroc"][1] == pytest.approx(statistics.stdev([0.0, 0.02]))
    assert found["all"].n == 2
    assert found["texture"].values["aupro"] == pytest.approx((0.95, 0.0))


def test_draws_are_repetitions_and_settings_are_kept_apart() -> None:
    lines = [
        line(0.5 + 0.1 * k + 0.01 * draw, protocol="few-labels", task={"k": k, "draw": draw})
        for k in (0, 1)
        for draw in range(5)
    ]
    rows = means(lines)
    assert [row.setting for row in rows] == [{"k": 0}, {"k": 1}]
    assert [row.n for row in rows] == [5, 5]
    assert rows[1].values["image_auroc"][0] == pytest.approx(0.62)
    assert rows[1].values["image_ap"][0] == pytest.approx(0.31)


@pytest.mark.parametrize(
    "changes",
    [
        {"label": "knn"},
        {"parameters": {"beta": 2.0}},
        {"limit": 3},
        {"dry_steps": 2},
        {"protocol": "disturbed"},
        {"data": "mvtec_ad:other/bottle"},
        {"set": "btad"},
        {"task": {"maps": False}},
        {"sweep": {"name": "beta", "parameter": "beta", "value": 2.0}},
    ],
)
def test_what_differs_is_not_averaged(changes: dict[str, Any]) -> None:
    rows = means([line(0.9), line(0.7, **changes), line(0.8)])
    assert sorted(row.values["image_auroc"][0] for row in rows) == pytest.approx([0.7, (0.9 + 0.8) / 2])


def test_sweeps_and_types_set_apart() -> None:
    sweep = [
        line(v, sweep={"name": "beta", "parameter": "beta", "value": v}, parameters={"beta": v}) for v in (0.5, 0.7)
    ]
    assert [row.setting for row in means(sweep)] == [{"beta": 0.5}, {"beta": 0.7}]
    apart = [line(v, task={"apart": kind, "k": "all"}) for kind, v in (("crack", 0.8), ("hole", 0.6))]
    (row,) = means(apart)
    assert row.categories == ("bottle crack", "bottle hole")
    assert row.values["image_auroc"][0] == pytest.approx(0.7)
    assert row.setting == {"k": "all"}


def test_other_figures_and_none() -> None:
    (promise,) = means([line(0.5, image=None, splits={"rate": 0.04, "detection": 0.9})])
    assert promise.values == {"false_alarm_rate": (0.04, 0.0), "detection_rate": (0.9, 0.0)}
    (nothing,) = means([line(0.5, image=None, splits={"attainable": False})])
    assert nothing.values == {}
    assert means([]) == []
