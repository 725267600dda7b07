"""Plots, pictures and sentences of the evaluation page."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest

from anomem.evaluation.confounds import TrivialFigures, direction_free_auroc, luck_limit
from anomem.evaluation.evaluate import evaluate
from anomem.evaluation.figures import Evaluation, ImageRow, RocPoints
from anomem.report.evaluation import text as words
from anomem.report.evaluation.gallery import choose, outlined
from anomem.report.evaluation.plots import _edges, roc_plot, score_histogram
from tests.benchmark.spots import SpotDetector, spotted_set


@pytest.fixture
def found(tmp_path: Path) -> Evaluation:
    made_from, samples = spotted_set(tmp_path)
    return evaluate(SpotDetector(made_from), samples)


# ------------------------------------------------------------------------------------------- plots


def test_plots_are_svg_in_the_page_colours_and_leave_matplotlib_alone() -> None:
    before = dict(mpl.rcParams)
    histogram = score_histogram([1.0, 2.0, 2.5], [3.0, 9.0], 2.5)
    roc = roc_plot(RocPoints((0.0, 0.0, 1.0), (0.0, 1.0, 1.0)), (0.1, 0.9))
    assert dict(mpl.rcParams) == before
    for svg in (histogram, roc):
        root = ET.fromstring(svg)
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert root.get("viewBox")
        assert "var(--normal)" in svg
        assert "var(--anomalous)" in svg
        assert "#0" not in svg.replace('"#', "")  # no drawing colour is left
        assert "DejaVu" not in svg
    shown = [text for text in ET.fromstring(histogram).itertext() if text.strip()]
    assert {"threshold", "anomaly score", "images"} <= {text.strip() for text in shown}


@pytest.mark.parametrize(
    ("scores", "threshold", "log"),
    [
        (np.linspace(1, 8, 60), 3.3, False),
        (np.geomspace(0.01, 900, 60), 3.3, True),
        (np.linspace(-4, 400, 60), 3.3, False),
        (np.full(9, 7.0), 7.0, False),
        (np.zeros(4), 0.0, False),
        (np.array([5.0, 6.0]), 1.0, False),
        (np.array([5.0, 6.0]), 90.0, False),
        (np.geomspace(1e-12, 1e12, 40), 1.0, True),
    ],
)
def test_histograms_hold_every_score_and_split_at_the_threshold(
    scores: np.ndarray, threshold: float, log: bool
) -> None:
    edges, is_log = _edges(scores, threshold)
    assert is_log == log
    assert np.all(np.diff(edges) > 0)
    counts, _ = np.histogram(scores, edges)
    assert counts.sum() == scores.size
    assert len(counts) <= 60
    middles = edges[:-1] + np.diff(edges) / 2
    assert counts[middles > threshold].sum() == (scores > threshold).sum()


# ---------------------------------------------------------------------------------------- pictures


def test_galleries_show_the_extremes_and_one_of_each_type() -> None:
    rows = [ImageRow(f"n{i}", 0, None, float(i), 0.5, i > 7) for i in range(10)]
    rows += [ImageRow(f"a{i}", 1, "abc"[i % 3], 5.0 + i, 0.01, i > 3) for i in range(30)]
    results = type("Results", (), {"results": rows})()
    normals, anomalies, typical = [rows for _, _, rows in choose(results, 4)]
    assert [row.path for row in normals] == ["n9", "n8", "n7", "n6"]
    assert [row.path for row in anomalies] == ["a0", "a1", "a2", "a3"]
    assert len(typical) == 4
    assert {row.type for row in typical} == {"a", "b", "c"}
    assert all(row.anomalous for row in typical)
    assert not {row.path for row in typical} & {row.path for row in anomalies}


def test_the_outline_surrounds_the_mask_and_leaves_it_free() -> None:
    image, mask = np.zeros((12, 12, 3), np.uint8), np.zeros((12, 12), bool)
    mask[4:7, 5:9] = True
    drawn = outlined(image, mask)
    assert not drawn[mask].any()
    changed = drawn.any(axis=2)
    assert changed[[3, 2, 5], [5, 6, 10]].all()
    assert not changed[1, 6]
    assert not image.any()


# ------------------------------------------------------------------------------------------- words


@pytest.mark.parametrize(("chance", "tone"), [(1.0, "good"), (0.2, "good"), (0.03, "doubt"), (1e-5, "bad")])
def test_the_promise_is_judged_by_its_chance(found: Evaluation, chance: float, tone: str) -> None:
    decided = replace(found.at_alpha, n_false=2)
    judged = replace(found, at_alpha=decided, promise=replace(found.promise, chance=chance))
    verdict = words.promise(judged)
    assert verdict.tone == tone
    assert "2 or more false alarms in 12" in verdict.text
    none = replace(judged, at_alpha=replace(decided, n_false=0))
    assert words.promise(replace(none, promise=replace(found.promise, chance=1.0))).tone == "good"


def test_a_trivial_feature_is_named_only_when_luck_cannot_explain_it(found: Evaluation) -> None:
    def tone(best: float, auroc: float, n: int) -> str:
        judged = replace(
            found,
            n_normal=n,
            n_anomalous=n,
            image=replace(found.image, auroc=auroc),
            trivial=TrivialFigures(0.5, best, 0.5, 0.5),
        )
        lines, verdict = words.confound(judged)
        assert lines[2] == ("Standard deviation of grey alone", best)
        return verdict.tone

    assert tone(best=0.95, auroc=0.99, n=100) == "doubt"
    assert tone(best=0.80, auroc=0.81, n=100) == "doubt"
    assert tone(best=0.80, auroc=0.95, n=100) == "good"
    assert tone(best=0.55, auroc=0.52, n=100) == "good"
    assert tone(best=0.75, auroc=0.70, n=10) == "good"


def test_luck_limit_is_what_four_meaningless_features_show() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [30, 50])
    best = [max(direction_free_auroc(values, labels) for values in rng.normal(size=(4, 80))) for _ in range(800)]
    assert np.mean(np.array(best) > luck_limit(30, 50)) == pytest.approx(0.05, abs=0.02)


@pytest.mark.parametrize(
    ("paths", "path", "shown"),
    [
        (["/a/b/c/1.png", "/a/b/d/2.png"], "/a/b/d/2.png", "d/2.png"),
        (["/a/1.png"], "/a/1.png", "1.png"),
        (["x/1.png", "/a/2.png"], "/a/2.png", "/a/2.png"),
        (["1.png", "2.png"], "1.png", "1.png"),
        ([], "/a/1.png", "/a/1.png"),
        (["/a/1.png"], "/a/\udce9.png", "\\udce9.png"),
    ],
)
def test_paths_lose_the_folder_they_share(paths: list[str], path: str, shown: str) -> None:
    assert words.shortener(paths)(path) == shown
