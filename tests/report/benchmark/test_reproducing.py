"""The page "Reproducing the papers": up to date, and its verdicts follow from figures."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).parents[3] / "docs" / "reproducing.py"


@pytest.fixture(scope="module")
def page() -> dict[str, Any]:
    return runpy.run_path(str(PAGE))


def test_the_page_is_what_the_lines_say(page: dict[str, Any]) -> None:
    assert page["main"](check=True) == 0, "run python docs/reproducing.py"


def test_every_paper_has_its_tables(page: dict[str, Any]) -> None:
    found = page["entries"]()
    assert {entry.paper for entry in found} == set(page["TITLES"])
    for entry in found:
        assert entry.command.startswith(("anomem bench ", "python -m benchmarks.")), entry
        assert bool(entry.key) == bool(entry.kind) == bool(entry.file), entry
        assert entry.kind in ("", "level", "order", "beside", "void"), entry


@pytest.mark.parametrize(
    ("kind", "published", "figure", "said"),
    [
        ("", "91.5", None, "not run: needs a GPU"),
        ("level", "91.5", (91.1,), "reproduced"),
        ("level", "91.5", (90.9,), "not reproduced"),
        ("order", "", (2.0, 1.9, 3), "reproduced"),
        ("order", "", (2.0, 2.1, 3), "direction holds"),
        ("order", "", (-0.1, 2.1, 3), "not reproduced"),
        ("order", "", (0.4,), "direction, one seed"),
        ("order", "", (-0.4,), "opposite direction, one seed"),
        ("beside", "91.5", (95.0,), "not run: needs a GPU; other settings beside"),
        ("void", "", (49.0, 8.3, 9), "no evidence"),
    ],
)
def test_verdicts(page: dict[str, Any], kind: str, published: str, figure: tuple[Any, ...] | None, said: str) -> None:
    entry = page["Entry"]("PMB", "Table I", "", "", "", "", "", "", "", kind, published)
    assert page["verdict"](entry, figure and page["Figure"](*figure)) == said


def test_a_figure_without_draws_is_paired_with_each_draw(page: dict[str, Any]) -> None:
    def line(gamma: float, seed: int, auroc: float, **facts: Any) -> dict[str, Any]:
        common = {"protocol": "one-vs-rest", "set": "digits", "data": "digits", "category": "0", "label": "knn"}
        return {**common, "task": {"gamma": gamma, **facts}, "seed": seed, "image": {"auroc": auroc}}

    lines = [line(0.0, seed, 0.5 + seed / 10) for seed in (0, 1)]
    lines += [line(0.1, seed, 0.7 + seed / 10 + draw / 100, draw=draw) for seed in (0, 1) for draw in (0, 1)]
    keys = [f"one-vs-rest | digits | knn | gamma={gamma} | image.auroc" for gamma in ("0.1", "0.0")]
    found = page["_paired"](lines, *keys)
    assert (found.n, found.mean) == (4, pytest.approx(20.5))
