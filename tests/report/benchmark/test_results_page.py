"""Results page: overview, measurements, measured image sets, false alarms, bars."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from anomem.errors import InputError
from anomem.report.benchmark.bars import Bar, Outcome, check_bars
from anomem.report.benchmark.measurements import figure_words, read_measurements, sections, split
from anomem.report.benchmark.rejected import rejected_normals
from anomem.report.benchmark.report import Report, gather
from anomem.report.benchmark.results_page import bar_lines, overview, results_page
from anomem.report.benchmark.sets import MARK, MeasuredSet, read_sets
from anomem.report.benchmark.text_tables import markdown
from tests.report.benchmark.lines import line, on, write
from tests.report.benchmark.test_bars import measurement

RESULTS = Path(__file__).parents[3] / "benchmarks" / "results"
REDUCED = MeasuredSet("mvtec_ad/bottle", False, "256 px", "official", "report")
PIXEL = {"auroc": 0.9, "aupro": 0.7}


def report_of(folder: Path, lines: list[dict[str, Any]], *sets: MeasuredSet) -> Report:
    return gather([write(folder / "runs.jsonl", lines)], sets=sets)


def test_the_overview_shows_methods_that_draw_maps_on_half_of_the_sets(tmp_path: Path) -> None:
    tiles = [on(f"mvtec_ad/{name}") for name in ("tile", "wood")]
    lines = [line(0.9, pixel=PIXEL), *(line(0.8, pixel=PIXEL, **where) for where in tiles)]
    lines += [line(0.95, method="narrow", pixel=PIXEL), line(0.7, method="padim", pixel=PIXEL)]
    lines += [line(0.7, method="padim", pixel=PIXEL, **tiles[0]), line(0.99, method="mapless")]
    table = overview(report_of(tmp_path, lines))
    names = [row.split(" | ")[1] for row in table[2:]]
    assert names == ["anomem", "padim (peer)", "*best trivial feature alone*", "anomem", "padim (peer)"][
        : len(names)
    ] or (names == ["anomem", "padim", "*best trivial feature alone*", "anomem", "padim"])
    assert table[0].count("|") == 6
    trivial = next(row for row in table if "trivial" in row)
    assert trivial.count("*56.0*") == 3


def test_rows_of_several_settings_share_a_table_with_their_setting_in_front(tmp_path: Path) -> None:
    few = {"protocol": "few-labels"}
    lines = [line(0.8, task={"k": 0}, **few), line(0.9, task={"k": 3}, **few)]
    page = results_page(report_of(tmp_path, lines))
    assert page.count("| image AUROC % | bottle |") == 1
    assert "| k = 0: anomem | 80.0 |" in page
    assert "| k = 3: anomem | 90.0 |" in page


def test_tries_and_sweeps_stay_off_the_page(tmp_path: Path) -> None:
    sweep = {"name": "beta", "parameter": "beta", "value": 2.0}
    page = results_page(report_of(tmp_path, [line(0.9), line(0.123, limit=4), line(0.456, sweep=sweep)]))
    assert "90.0" in page
    assert "12.3" not in page
    assert "45.6" not in page


def test_sets_that_are_not_the_official_ones_are_marked_wherever_a_figure_stands(tmp_path: Path) -> None:
    splits = {"rate": 0.04, "expected": 0.05, "detection": 0.5, "each": []}
    lines = [line(0.9, pixel=PIXEL), line(0.9, **on("magnetic_tile"))]
    lines.append(line(None, protocol="promise", task={"alpha": 0.05}, splits=splits))
    found = report_of(tmp_path, lines, REDUCED)
    for text in (results_page(found), markdown(found)):
        assert "| MVTec AD bottle° | 256 px | official | report |" in text
        assert text.count("MVTec AD bottle°") >= 3
        assert "Magnetic tile defects°" not in text
    assert [kept.where for kept in found.promises] == [f"MVTec AD bottle{MARK}"]
    assert {checked.where for checked in found.checks} == {f"MVTec AD bottle{MARK}", "Magnetic tile defects"}
    assert MARK not in results_page(report_of(tmp_path, lines))


def test_published_figures_beside_reduced_copies_say_so(tmp_path: Path) -> None:
    lines = [line(0.9, method="padim", pixel=PIXEL, **on("mvtec_ad/screw"))]
    reduced = MeasuredSet("mvtec_ad/screw", False, "256 px", "official", "report")
    note = "Published figures are of the official images and splits"
    assert note in results_page(report_of(tmp_path, lines, reduced))
    assert note not in results_page(report_of(tmp_path, lines))


def test_committed_sets_are_read_and_bad_rows_refused(tmp_path: Path) -> None:
    found = {known.data: known for known in read_sets(RESULTS / "sets.csv")}
    assert "quality 92" in found["mvtec_ad/bottle"].images
    assert found["mvtec_ad/toothbrush"].split.startswith("not official")
    assert not found["cifar10"].official
    (tmp_path / "sets.csv").write_text("data,official,images,split,used\na,perhaps,b,c,d\n", encoding="utf-8")
    with pytest.raises(InputError, match="line 2 needs"):
        read_sets(tmp_path / "sets.csv")


def test_rejected_test_normals_are_summed_over_seeds_and_classes(tmp_path: Path) -> None:
    def decided(n_false: int, **changes: Any) -> dict[str, Any]:
        return line(0.9, at_alpha={"alpha": 0.05, "n_false": n_false, "detection_rate": 0.5}, **changes)

    classes = {"protocol": "one-vs-rest", "data": "cifar10", "set": "cifar10", "task": {"gamma": 0.0}}
    lines = [decided(3, seed=0), decided(1, seed=1), decided(9, method="knn"), decided(9, limit=4)]
    lines += [decided(2, category=name, **classes) for name in ("cat", "dog")]
    bottle, cifar = rejected_normals(report_of(tmp_path, lines).runs.runs, "anomem")
    assert (bottle.n_false, bottle.n_normal, bottle.n_fits, bottle.rate) == (4, 120, 2, 4 / 120)
    assert (cifar.where, cifar.n_false, cifar.n_fits) == ("CIFAR-10", 4, 2)


def test_attainable_detection_is_that_of_the_lowest_threshold_within_alpha(tmp_path: Path) -> None:
    decided = {"at_alpha": {"alpha": 0.1, "n_false": 0, "detection_rate": 0.3}}
    roc = {"fpr": [0.0, 0.05, 0.1, 0.1, 0.2], "tpr": [0.0, 0.4, 0.4, 0.75, 1.0]}
    lines = [line(0.9, **decided, roc=roc, seed=0), line(0.9, **decided, roc=roc | {"tpr": [0, 0, 0, 0.25, 1]}, seed=1)]
    (found,) = rejected_normals(report_of(tmp_path, lines).runs.runs, "anomem")
    assert found.attainable == (0.75 + 0.25) / 2
    assert "| 10 | 0 | 120 | 0.00 | 30.0 | 50.0 | 2 |" in results_page(report_of(tmp_path, lines))
    (unknown,) = rejected_normals(report_of(tmp_path, [lines[0], line(0.9, **decided, seed=2)]).runs.runs, "anomem")
    assert unknown.attainable is None


def test_measurements_become_a_section_per_script(tmp_path: Path) -> None:
    spread = {"mean": 2.5, "sd": 0.25, "n": 3}
    lines = [measurement("Fits", "tile", s=spread, MB=7), measurement("Fits", "wood", s=1.0)]
    lines[0] |= {
        "notes": ["Warm."],
        "command": "python -m speed",
        "made_by": {"revision": "abc", "units": ["abc 1", "def 2"], "cpu": "P"},
    }
    runs, measured = split([write(tmp_path / "m.jsonl", lines), write(tmp_path / "r.jsonl", [line(0.9)])])
    assert (runs, measured) == ([tmp_path / "r.jsonl"], [tmp_path / "m.jsonl"])
    text = "\n".join(sections(read_measurements(measured)))
    assert "## Speed\n\n`python -m speed` · revision abc (units of def) · P, None of None cores\n\n**Fits**" in text
    assert "| tile | 2.5 ± 0.25 | 7 |\n| wood | 1 | – |" in text
    assert text.endswith("- Warm.\n")
    assert figure_words("yes") == "yes"


def test_tables_without_a_bar_stand_in_the_report_alone(tmp_path: Path) -> None:
    lines = [measurement("Fits", "tile", s=1.25), measurement("Peaks", "copy", s=3.5)]
    measured = read_measurements([write(tmp_path / "m.jsonl", lines)])
    bar = Bar("fit", (), "speed | Fits | tile | s", "", 2.0, "<=", "")
    page = results_page(report_of(tmp_path, [line(0.9)]), measured, [Outcome(bar, 1.25, True)])
    assert "| tile | 1.25 |" in page
    assert "3.5" not in page


def test_figures_of_earlier_scripts_are_named_on_the_page_and_shown_in_the_report(tmp_path: Path) -> None:
    lines = [measurement("Fits", "tile", s=1.25), measurement("Fits", "wood", s=3.5) | {"earlier": True}]
    measured = read_measurements([write(tmp_path / "m.jsonl", lines)])
    page = results_page(report_of(tmp_path, [line(0.9)]), measured)
    assert "1.25" in page
    assert "3.5" not in page
    assert "## Figures of earlier scripts" in page
    assert "3.5" in "\n".join(sections(measured))


@pytest.mark.parametrize("change", [{"figures": 3}, {"task": {"case": "a"}}, {"title": ""}])
def test_a_measurement_that_lacks_a_name_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    path = write(tmp_path / "m.jsonl", [measurement("Fits", "tile", s=1.0) | change])
    with pytest.raises(InputError, match="line 1"):
        read_measurements([path])


@pytest.mark.slow
def test_the_committed_pages_are_what_the_committed_lines_make() -> None:
    runs, measured = split(sorted(RESULTS.glob("*.jsonl")))
    found = gather(runs, sets=read_sets(RESULTS / "sets.csv"))
    page = results_page(found, read_measurements(measured), check_bars(RESULTS / "bars.csv"))
    assert page == (RESULTS.parent / "RESULTS.md").read_text(encoding="utf-8"), "run make results"


@pytest.mark.parametrize(("lines", "table"), [(("development", "peers"), "table.md"), (("report",), "table-report.md")])
def test_the_committed_tables_are_what_the_committed_lines_make(lines: tuple[str, ...], table: str) -> None:
    found = gather([RESULTS / "variants" / f"{name}.jsonl" for name in lines], sets=read_sets(RESULTS / "sets.csv"))
    assert "\n".join([*overview(found), ""]) == (RESULTS / table).read_text(encoding="utf-8"), "run make results"


def test_missed_bars_are_listed_and_met_ones_counted() -> None:
    bars = [Bar(name, (), "", "", 0.9, ">=", "why") for name in ("kept", "broken")]
    text = "\n".join(bar_lines([Outcome(bars[0], 0.95, True), Outcome(bars[1], 0.5, False)]))
    assert "1 of 2 are met, 1 missed." in text
    assert "| broken | 0.5 | ≥ 0.9 | why |" in text
    assert "kept" not in text
