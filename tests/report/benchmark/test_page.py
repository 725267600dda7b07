"""Page of runs and the files beside it: complete, self-contained, safe for any names."""

from __future__ import annotations

import csv
import io
import re
import xml.etree.ElementTree as ET
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from anomem.report.benchmark.charts import chart_svg
from anomem.report.benchmark.curves import MOST_SERIES, Panel, curve_svg
from anomem.report.benchmark.page import report_page, write_report
from anomem.report.benchmark.report import Report, gather
from anomem.report.benchmark.text_tables import comparisons_csv, confound_csv, markdown, plain, tables_csv
from anomem.report.drawing import spread
from tests.report.benchmark.lines import line, on, sha, write
from tests.report.evaluation.test_page import Page

HOSTILE = "<script>alert(1)</script>"


class RunsPage(Page):
    """As pages of an evaluation; columns may break, and figures say more on pointing."""

    VOID = frozenset({"meta", "img", "br", "wbr"})


def campaign() -> list[dict[str, Any]]:
    """A little of everything."""
    rng = np.random.default_rng(0)
    told = {"mean_grey": 1.0, "std_grey": 0.9, "image_size": None, "file_size": 0.7}
    lines = []
    for place, name in enumerate(("magnetic_tile", "mvtec_ad/bottle", "mvtec_ad/screw")):
        for method, lag in (("anomem", 0.0), ("padim", 0.05), ("anomalib-padim", 0.06)):
            auroc = 0.95 - 0.1 * place - lag
            facts: dict[str, Any] = {
                "pixel": {"auroc": auroc - 0.01, "auroc_ci": [auroc - 0.02, auroc], "aupro": auroc - 0.2},
                "types": {
                    kind: {"n": 9, "auroc": auroc - i / 20, "n_missed": 1} for i, kind in enumerate(("hole", "crack"))
                },
                "roc": {"fpr": [0.0, 0.1, 1.0], "tpr": [0.0, auroc, 1.0]},
                "history": [{"stage": "memory", "facts": {"items": 64, "effective_items": 20.5}}],
                "measured": {"seconds": {"fit": 12.5}, "peak_mb": {"fit": 900.0}, "images_per_second": 31.0},
                "state_mb": 4.5,
                "trivial": None
                if method == "anomalib-padim"
                else told
                if place == 2
                else {**told, "mean_grey": 0.6, "std_grey": 0.5},
                "role": "development" if place == 0 else "report",
            }
            seeds = (0, 1) if method == "anomem" else (0,)
            lines += [line(auroc + seed / 500, method=method, seed=seed, **facts, **on(name)) for seed in seeds]
    for method, start in (("anomem", 0.8), ("supervised", 0.6)):
        for k in (0, 1, 3, 10, 30):
            for draw in range(3):
                if k or method == "anomem":
                    auroc = start + 0.05 * np.log1p(k) + 0.01 * rng.random()
                    task = {"k": k, "draw": draw, "most": 30, "maps": False} | ({"masks": False} if k else {})
                    lines.append(line(auroc, method=method, protocol="few-labels", task=task, **on("magnetic_tile")))
    for size in (16, 64, 256):
        sweep = {"name": "memory-size", "parameter": "memory_size", "value": [size]}
        lines.append(line(0.8 + size / 2000, sweep=sweep, parameters={"memory_size": [size]}, **on("magnetic_tile")))
    for gamma in (0.0, 0.05):
        for kind in ("cat", "dog"):
            task = {"gamma": gamma} | ({"anomalies": "all", "labels": "refit", "draw": 0} if gamma else {})
            lines.append(line(0.7 + gamma, protocol="one-vs-rest", task=task, **on("cifar10", category=kind)))
    splits = {
        "n": 99,
        "expected": 0.05,
        "rate": 0.041,
        "detection": 0.8,
        "each": [{"within_quantile": True}] * 9 + [{}],
    }
    for alpha, found in ((0.05, splits), (0.001, {"n": 99, "k": 0, "attainable": False})):
        task = {"alpha": alpha, "redraws": 10}
        lines.append(line(None, protocol="promise", task=task, splits=found, trivial=None, **on("magnetic_tile")))
    lines.append(line(0.5, method="knn", limit=5, dry_steps=2, images_sha256=sha("few"), **on("magnetic_tile")))
    return lines


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    folder = tmp_path_factory.mktemp("runs")
    return gather([write(folder / "runs.jsonl", campaign())])


@pytest.fixture(scope="module")
def html(report: Report) -> str:
    return report_page(report)


def test_everything_is_on_the_page(report: Report, html: str) -> None:
    text = RunsPage(html).text
    assert "49 finished units of work, 4 methods and 1 peer, 4 image sets." in text
    for heading in ("Few labels", "Defects without labels", "One class against the rest", "Promised false-alarm rate"):
        assert heading in text
    assert "Sweep: memory-size" in text
    assert "anomem 85.1 ± 0.1 90.1 ± 0.1 95.1 ± 0.1 93.1 to 97.1" in text, "means first; both seeds' mean interval"
    assert "anomalib-padim peer" in text
    assert "§ confounded?" in text
    assert "mean of the others" in text
    assert "k = 10, image AUROC" in text
    assert "Published: FYD (2021), Table 1" in text
    assert "Against anomem" in text
    assert "5 % 5.00 % 4.10 % 80.0 % 9 of 10" in text
    assert "0.1 % not attainable with so few calibration images" in text
    assert "MVTec AD screw Defects without labels 100 90.0 not measured 70.0 75.1 possibly confounded" in text
    assert "12.5 31 900 4.5" in text
    assert "a processor" in text
    assert "1 of 49 lines are trials (5 images of each kind and 2 steps at most), not results." in text


def test_bold_is_what_tables_mark(report: Report, html: str) -> None:
    bold = re.findall(r'<td class="n[^"]*marked"[^>]*><strong>([^<]+)</strong>', html)
    marked = [cell for table in report.tables for row in table.rows for cell in row.cells.values() if cell.mark]
    assert len(bold) == len(marked) > 0
    assert not re.search(r"<tr class=\"published[^>]*>(?:(?!</tr>).)*<strong>", html, re.DOTALL)


def test_nothing_is_fetched_or_run(html: str) -> None:
    page = RunsPage(html)  # asserts that every tag closes
    names = {tag for tag, _ in page.tags}
    assert names.isdisjoint({"script", "link", "iframe", "object", "base", "img"})
    assert "svg" in names
    links = [v for _, a in page.tags for k, v in a.items() if k in ("href", "xlink:href", "src", "srcset", "action")]
    assert all(link.startswith("#") for link in links)
    assert "@import" not in html
    assert "url(http" not in html
    assert not any(key.startswith("on") for _, attributes in page.tags for key in attributes)
    policy = next(m["content"] for m in page.all("meta") if "http-equiv" in m)
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def test_identifiers_are_unique_and_references_resolve(html: str) -> None:
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r"url\(#([^)]+)\)", html)) <= set(ids)
    assert set(re.findall(r'href="#([^"]+)"', html)) <= set(ids)


def test_the_same_lines_give_the_same_page(report: Report, html: str) -> None:
    assert report_page(report) == html


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    names = {"method": "a&b", "label": HOSTILE, "category": HOSTILE, "set": "<b>set</b>", "group": "<i>"}
    names |= {"made_by": {"cpu": "<u>cpu</u>", "version": '"><img src=x onerror=alert(1)>'}}
    sweep = {"name": HOSTILE, "parameter": "$x^", "value": "<i>2</i>"}
    types = {HOSTILE: {"n": 1, "auroc": 0.9}, "$\\frac{": {"n": 1, "auroc": 0.8}}
    lines = [
        line(0.9, **names, types=types, roc={"fpr": [0, 1], "tpr": [0, 1]}, protocol="localisation", data="d/x"),
        line(0.9, **names, protocol=HOSTILE, task={"<p>": "<q>"}, data="d/x"),
        *(line(0.9, **names, protocol="few-labels", task={"k": k, "draw": 0}, data="d/x") for k in (0, 3)),
        *(line(0.9, **names, sweep={**sweep, "value": v}, data="d/x") for v in ("<i>2</i>", "\x00\udce9")),
    ]
    found = gather([write(tmp_path / "r.jsonl", lines)])
    page = RunsPage(report_page(found))
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "i", "b", "u", "q", "img", "iframe"})
    assert not any(key.startswith("on") for _, attributes in page.tags for key in attributes)
    for shown in (HOSTILE, "<u>cpu</u>", '"><img src=x onerror=alert(1)>', "$x^", "\\x00\\udce9", "<p> <q>"):
        assert shown in page.text, shown
    for svg in re.findall(r"<svg.*?</svg>", report_page(found), re.DOTALL):
        ET.fromstring(svg)
    (tmp_path / "out").mkdir()
    written = write_report(found, tmp_path / "out")
    assert all(path.parent == tmp_path / "out" and path.is_file() for path in written)
    assert "<script>" not in markdown(found).replace("\\<script", "")


def test_odd_lines_make_a_page_too(tmp_path: Path) -> None:
    odd = [
        line(0.9, history="none", measured=3, types=[], roc={"fpr": [1], "tpr": "x"}, trivial=4, made_by="peer 2.0"),
        line(None, protocol="promise", task={"alpha": 0.1}, splits=[]),
        line(None, protocol="nothing", trivial=None),
        line(0.7, protocol="few-labels", task={"k": "all", "draw": 0}),
        line(0.7, protocol="one-vs-rest", task={"gamma": None, "labels": []}),
        line(0.7, protocol="cross-type", task={"apart": "hole", "k": 2, "labelled": {}}),
        line(0.7, images_sha256=5, seed=1),
    ]
    text = RunsPage(report_page(gather([write(tmp_path / "r.jsonl", odd)]))).text
    assert "7 finished units of work" in text
    assert "peer 2.0" in text
    only = RunsPage(report_page(gather([write(tmp_path / "one.jsonl", odd[2:3])]))).text
    assert "Not measured: no line has single images." in only


# ------------------------------------------------------------------------------------------ files


def test_files_hold_every_entry(report: Report, tmp_path: Path) -> None:
    written = {path.name for path in write_report(report, tmp_path)}
    assert written == {path.name for path in tmp_path.iterdir()}
    pictures = {
        "few-labels.png",
        "gamma.png",
        "sweep-memory-size.png",
        "roc.png",
        "types.png",
        "memory.png",
        "promise.png",
    }
    assert pictures <= written
    for name in pictures:
        with Image.open(tmp_path / name) as image:
            assert min(image.size) > 300
            assert len(image.convert("RGB").getcolors(1 << 24)) > 20, "something is drawn"
    rows = list(csv.DictReader(io.StringIO((tmp_path / "tables.csv").read_text(encoding="utf-8"))))
    assert len(rows) == sum(len(row.cells) for table in report.tables for row in table.rows)
    first = next(r for r in rows if r["protocol"] == "localisation" and r["column"] == "Magnetic tile defects")
    assert (first["method"], first["figure"], float(first["mean"])) == ("anomem", "image AUROC", pytest.approx(0.951))
    assert (first["repetitions"], first["mark"], first["set"]) == ("2", "best", "magnetic_tile")
    assert {row["kind"] for row in rows} == {"ours", "peer", "published"}
    compared = list(csv.DictReader(io.StringIO(comparisons_csv(report))))
    assert len(compared) == len(report.comparisons) + len(report.per_column)
    assert float(compared[0]["difference"]) == report.comparisons[0].found.difference
    checked = list(csv.DictReader(io.StringIO(confound_csv(report))))
    screw = next(row for row in checked if row["set"] == "MVTec AD screw")
    assert (screw["mean_grey"], screw["image_size"], screw["confounded"]) == ("1.0", "", "yes")


def test_markdown_has_tables_that_renderers_take(report: Report) -> None:
    text = markdown(report)
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        widths = {len(re.findall(r"(?<!\\)\|", row)) for row in block.splitlines()}
        assert len(widths) == 1, block
    assert "**95.1** ± 0.1" in text
    assert re.search(r"^\| \*PaDiM, Wide-ResNet-50-2, in FYD \(published\)\* \|.* \*98\.1\* \|", text, re.MULTILINE)
    assert "## Confound check" in text
    assert tables_csv(report).startswith("table,protocol,")


def test_plain_values_are_json(report: Report) -> None:
    import json

    found = plain(report)
    assert json.loads(json.dumps(found, allow_nan=False))["n_units"] == 49
    assert found["baseline"] == "anomem"
    assert {entry["set"] for entry in found["confound"] if entry["confounded"]} == {"MVTec AD screw"}


# ------------------------------------------------------------------------------------------ plots


def test_few_label_curves_are_means_with_standard_errors(report: Report) -> None:
    (panel,) = report.plots.few_labels
    assert panel.title == "Magnetic tile defects"
    assert [text for _, text in panel.ticks] == ["0", "1", "3", "10", "30"]
    assert [place for place, _ in panel.ticks] == pytest.approx(np.log1p([0, 1, 3, 10, 30]))
    ours, other = panel.series
    assert (ours.name, len(ours.points), other.name, len(other.points)) == ("anomem", 5, "supervised", 4)
    runs = [r for r in report.runs.runs if r.protocol == "few-labels" and r.label == "anomem" and r.facts["k"] == 3]
    values = [run.values["image_auroc"] for run in runs]
    point = ours.points[2]
    assert point.mean == pytest.approx(np.mean(values))
    assert point.error == pytest.approx(np.std(values, ddof=1) / np.sqrt(3))


def test_labels_with_masks_begin_where_labels_without_do(tmp_path: Path) -> None:
    lines = [line(0.8, protocol="few-labels", task={"k": 0, "draw": 0})]
    lines += [line(0.85 + m / 20, protocol="few-labels", task={"k": 3, "draw": 0, "masks": bool(m)}) for m in (0, 1)]
    (panel,) = gather([write(tmp_path / "r.jsonl", lines)]).plots.few_labels
    assert {s.name: [round(p.mean, 3) for p in s.points] for s in panel.series} == {
        "anomem": [0.8, 0.85],
        "anomem, with masks": [0.8, 0.9],
    }


def test_a_panel_shows_a_few_lines_and_names_the_others(tmp_path: Path) -> None:
    lines = [
        line(0.5 + i / 50, method=f"m{i}", protocol="few-labels", task={"k": k, "draw": 0})
        for i in range(12)
        for k in (0, 3)
    ]
    found = gather([write(tmp_path / "r.jsonl", lines)], baseline="m0")
    (panel,) = found.plots.few_labels
    assert panel.series[0].name == "m0", "the baseline is never left out"
    assert len(panel.series) == MOST_SERIES
    assert set(panel.left_out) == {"m1", "m2", "m3", "m4"}
    assert len({found.colours[s.label] for s in panel.series}) == MOST_SERIES


def test_plots_are_svg_in_the_page_colours(report: Report) -> None:
    plots = report.plots
    svgs = [curve_svg(panel, report.colours, f"a{i}") for i, panel in enumerate((*plots.few_labels, *plots.gamma))]
    svgs += [chart_svg(chart, report.colours, f"b{i}") for i, chart in enumerate((*plots.roc, *plots.types))]
    svgs.append(chart_svg(plots.memory, report.colours, "c"))
    for svg in svgs:
        root = ET.fromstring(svg)
        assert root.get("role") == "img"
        assert root.get("aria-label")
        assert "var(--s1)" in svg
        assert not re.search(r"(fill|stroke): #0\d", svg), "no drawing colour is left"
        assert "DejaVu" not in svg
    shown = " ".join(ET.fromstring(svgs[0]).itertext())
    assert "supervised" in shown
    assert "labelled defects" in shown


def test_gamma_has_a_panel_of_the_mean_over_classes(report: Report) -> None:
    (panel,) = report.plots.gamma
    assert (panel.title, [text for _, text in panel.ticks]) == ("CIFAR-10", ["0", "5"])
    assert [point.mean for point in panel.series[0].points] == pytest.approx([0.7, 0.75])


def test_bars_and_curves_hold_what_lines_say(report: Report) -> None:
    tile = report.plots.types[0]
    assert (tile.title, tile.names) == ("Magnetic tile defects", ("hole", "crack"))
    ours = tile.lines[0]
    assert (ours.name, ours.x, ours.y) == ("anomem", (0.0, 1.0), pytest.approx((0.95, 0.90)))
    roc = report.plots.roc[0].lines[0]
    assert (roc.x[0], roc.y[0], roc.x[-1], roc.y[-1]) == (0, 0, 1, 1)
    assert np.interp(0.1, roc.x, roc.y) == pytest.approx(0.95)
    memory = report.plots.memory
    assert {(line.x, line.y) for line in memory.lines} >= {((64.0,), (20.5,))}


@given(
    st.lists(st.floats(-1, 2, allow_nan=False, width=32), min_size=1, max_size=8),
    st.floats(0.01, 0.5),
)
def test_labels_keep_their_order_and_their_distance(places: list[float], gap: float) -> None:
    found = spread(places, gap, 0.0, 1.0)
    order = np.argsort(places, kind="stable")
    steps = np.diff(np.asarray(found)[order])
    fitting = min(gap, 1.0 / max(1, len(places) - 1))
    assert (steps >= fitting - 1e-9).all()
    assert min(found) >= -1e-9
    assert max(found) <= 1 + 1e-9
    apart = sorted(places)
    if min(apart) >= 0 and max(apart) <= 1 and all(b - a >= gap for a, b in pairwise(apart)):
        assert found == pytest.approx(places), "what is apart stays"


def test_an_empty_panel_is_never_made(report: Report) -> None:
    panels: list[Panel] = [*report.plots.few_labels, *report.plots.gamma]
    panels += [panel for found in report.plots.sweeps.values() for panel in found]
    assert all(series.points for panel in panels for series in panel.series)
    (sweep,) = report.plots.sweeps["memory-size"]
    assert [text for _, text in sweep.ticks] == ["16", "64", "256"]
    assert (sweep.x_title, sweep.y_title) == ("memory size", "image AUROC, %")
