"""Bars: limits against figures of lines."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from anomem.errors import InputError
from anomem.report.benchmark.bars import COLUMNS, bar_values, bars_csv, check_bars, find_figure, read_bars
from tests.report.benchmark.lines import line, on, write

RESULTS = Path(__file__).parents[3] / "benchmarks" / "results"


def measurement(table: str, case: str, **figures: Any) -> dict[str, Any]:
    return {
        "format": 1,
        "key": f"{table}-{case}",
        "protocol": "speed",
        "title": "Speed",
        "task": {"table": table, "case": case},
        "figures": figures,
    }


def bars(folder: Path, *rows: Mapping[str, str]) -> Path:
    path = folder / "bars.csv"
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS)
        writer.writeheader()
        writer.writerows(dict.fromkeys(COLUMNS, "") | dict(row) for row in rows)
    return path


AUROC = "localisation | mvtec_ad/bottle | anomem | image.auroc"


def test_a_run_figure_is_the_mean_over_seeds_then_over_categories() -> None:
    lines = [line(0.9, seed=0), line(0.8, seed=1), line(0.5, **on("mvtec_ad/tile")), line(0.1, method="knn")]
    assert find_figure(lines, AUROC) == pytest.approx(0.85)
    both = "localisation | mvtec_ad/bottle+mvtec_ad/tile | anomem | image.auroc"
    assert find_figure(lines, both) == pytest.approx((0.85 + 0.5) / 2)


def test_facts_of_the_task_choose_lines_and_sweeps_take_no_part() -> None:
    few = {"protocol": "few-labels"}
    sweep = {"name": "beta", "parameter": "beta", "value": 2.0}
    lines = [line(0.9, task={"k": 3, "maps": False}, **few), line(0.7, task={"k": 0, "maps": False}, **few)]
    lines += [
        line(0.1, task={"k": 3, "maps": True}, **few),
        line(0.2, task={"k": 3, "maps": False}, sweep=sweep, **few),
    ]
    assert find_figure(lines, "few-labels | mvtec_ad/bottle | anomem | k=3 maps=false | image.auroc") == 0.9


@pytest.mark.parametrize(
    "key",
    [
        "localisation | mvtec_ad/bottle | padim | image.auroc",
        "localisation | mvtec_ad/bottle+mvtec_ad/tile | anomem | image.auroc",
        "localisation | mvtec_ad/bottle | anomem | pixel.auroc",
        "speed | fits | tile | words",
        "image.auroc",
    ],
)
def test_a_key_without_its_figure_is_refused(key: str) -> None:
    with pytest.raises(InputError, match="no line has the figure"):
        find_figure([line(0.9), measurement("fits", "tile", words="fast")], key)


@pytest.mark.parametrize(
    ("limit", "direction", "met"), [("0.9", ">=", True), ("0.91", ">=", False), ("0.9", "<=", True)]
)
def test_a_limit_itself_is_met(tmp_path: Path, limit: str, direction: str, met: bool) -> None:
    write(tmp_path / "runs.jsonl", [line(0.9)])
    row = {"bar": "bottle", "file": "runs.jsonl", "key": AUROC, "limit": limit, "direction": direction}
    (outcome,) = check_bars(bars(tmp_path, row))
    assert (outcome.value, outcome.met) == (0.9, met)
    assert bar_values([outcome])[0]["met"] is met
    assert f",{'yes' if met else 'no'}," in bars_csv([outcome])


def test_a_bar_may_take_one_figure_off_another_of_several_files(tmp_path: Path) -> None:
    write(tmp_path / "ours.jsonl", [line(0.9)])
    write(tmp_path / "theirs.jsonl", [line(0.95, method="peer")])
    against = AUROC.replace("anomem", "peer")
    row = {"bar": "b", "file": "ours.jsonl theirs.jsonl", "key": AUROC, "against": against, "limit": "-0.04"}
    (outcome,) = check_bars(bars(tmp_path, row | {"direction": ">="}))
    assert outcome.value == pytest.approx(-0.05)
    assert not outcome.met


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"bar": "b", "limit": "many", "direction": ">="}, "line 2 needs a number as limit"),
        ({"bar": "b", "limit": "nan", "direction": ">="}, "line 2 needs a number as limit"),
        ({"bar": "b", "limit": "1", "direction": ">"}, "line 2 needs a number as limit and >= or <="),
        ({"bar": "b", "file": "none.jsonl", "key": AUROC, "limit": "1", "direction": ">="}, "none.jsonl"),
    ],
)
def test_a_row_that_cannot_be_held_against_anything_is_refused(
    tmp_path: Path, row: Mapping[str, str], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        check_bars(bars(tmp_path, row))


def test_files_of_bars_that_lack_columns_or_are_absent_are_refused(tmp_path: Path) -> None:
    (tmp_path / "short.csv").write_text("bar,file\nb,f\n", encoding="utf-8")
    with pytest.raises(InputError, match="lacks a column"):
        read_bars(tmp_path / "short.csv")
    with pytest.raises(InputError, match="name a file of bars"):
        read_bars(tmp_path / "none.csv")


def test_every_committed_bar_has_its_figure() -> None:
    outcomes = check_bars(RESULTS / "bars.csv")
    assert len(outcomes) > 100
    assert len({outcome.bar.name for outcome in outcomes}) == len(outcomes)
    assert any(outcome.met for outcome in outcomes)
