"""Tables of runs: means, separate rows, marks."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anomem.benchmark.unit import scores_digest
from anomem.errors import InputError
from anomem.report.benchmark.baseline import choose_baseline, per_column, versus
from anomem.report.benchmark.comparison import StoredScores
from anomem.report.benchmark.confounds import Confounds
from anomem.report.benchmark.published import with_published
from anomem.report.benchmark.report import gather
from anomem.report.benchmark.runs import read_all
from anomem.report.benchmark.tables import Cell, Row, Table, make_tables
from tests.report.benchmark.lines import line, on, sha, write

KEPT = StoredScores()


@pytest.fixture
def tables(tmp_path: Path) -> Any:
    def made(*lines: dict[str, Any], kept: StoredScores = KEPT) -> list[Table]:
        runs = read_all([write(tmp_path / "runs.jsonl", lines)]).runs
        return make_tables(runs, kept, Confounds(runs))

    return made


def cells(table: Table) -> dict[str, dict[str, Cell]]:
    """By row and title of the column."""
    titles = {column.key: column.title for column in table.columns}
    return {row.name: {titles[key]: cell for key, cell in row.cells.items()} for row in table.rows}


def marked(table: Table) -> dict[str, list[str]]:
    """Marks of each row, by column; "apart" where it was judged on other images."""
    return {
        row.name: ["apart" if c.apart else c.mark for key in table.columns if (c := row.cells.get(key.key))]
        for row in table.measured
    }


# ------------------------------------------------------------------------------------------ means


def test_means_are_over_repetitions_then_categories_and_spreads_over_whole_repetitions(tables: Any) -> None:
    levels = {("bottle", 0): 0.9, ("bottle", 1): 0.8, ("bottle", 2): 0.4, ("tile", 0): 1.0, ("tile", 1): 0.96}
    groups = {"bottle": "object", "tile": "texture"}
    (table,) = tables(
        *(line(v, seed=s, group=groups[c], **on(f"mvtec_ad/{c}")) for (c, s), v in levels.items())  # seed 2 lacks tile
    )
    found = cells(table)["anomem"]
    assert [c.title for c in table.columns] == ["mean", "objects", "textures", "bottle", "tile"]
    assert found["bottle"].mean == pytest.approx(0.7)
    assert found["bottle"].sd == pytest.approx(statistics.stdev([0.9, 0.8, 0.4]))
    assert found["mean"].mean == pytest.approx((0.7 + 0.98) / 2)
    assert found["mean"].sd == pytest.approx(statistics.stdev([0.95, 0.88]))
    assert (found["bottle"].n, found["mean"].n) == (3, 2)
    assert found["objects"].mean == found["bottle"].mean
    assert found["tile"].interval == pytest.approx((0.96, 0.99))
    assert found["mean"].interval is None


def test_a_mean_that_lacks_categories_says_so_and_is_not_the_best(tables: Any) -> None:
    both = [line(v, **on(f"mvtec_ad/{c}")) for c, v in (("bottle", 0.9), ("screw", 0.5))]
    (table,) = tables(*both, line(0.99, method="knn"))
    assert cells(table)["knn"]["mean"].lacking == 1
    assert cells(table)["anomem"]["mean"].lacking == 0
    assert marked(table) == {"anomem": ["", "", ""], "knn": ["", "best"]}


def test_protocols_settings_and_tries_have_tables_of_their_own_in_order(tables: Any) -> None:
    few = [line(0.9, protocol="few-labels", task={"k": k, "draw": 0, "most": 10}) for k in (10, 0, 3)]
    sweep = {"name": "beta", "parameter": "beta", "value": 2.0}
    found = tables(
        line(0.9, sweep=sweep, parameters={"beta": 2.0}),
        line(0.8, limit=9),
        line(0.85, pixel={"auroc": 0.7, "aupro": 0.6}),
        *few,
        line(0.9, protocol="my own", task={"how": "so"}),
    )
    shown = [(t.protocol, t.sweep, t.setting, t.metric, t.trial) for t in found]
    assert shown == [
        ("few-labels", "", "k = 0", "image_auroc", ""),
        ("few-labels", "", "k = 3", "image_auroc", ""),
        ("few-labels", "", "k = 10", "image_auroc", ""),
        ("localisation", "", "", "image_auroc", ""),
        ("localisation", "", "", "pixel_auroc", ""),
        ("localisation", "", "", "aupro", ""),
        ("localisation", "", "", "image_auroc", "9 images of each kind"),
        ("my own", "", "how so", "image_auroc", ""),
        ("localisation", "beta", "", "image_auroc", ""),
    ]
    assert len({t.name for t in found}) == len(found)


def test_what_a_draw_labels_at_most_does_not_part_sets(tables: Any) -> None:
    (table,) = tables(
        line(0.9, protocol="few-labels", task={"k": 3, "draw": 0, "most": 30}, **on("magnetic_tile")),
        line(0.8, protocol="few-labels", task={"k": 3, "draw": 0, "most": 10}, **on("mvtec_ad/toothbrush")),
    )
    assert [c.title for c in table.columns] == ["mean", "Magnetic tile defects", "MVTec AD toothbrush"]


def test_variants_of_one_label_are_one_row_unless_they_meet(tables: Any) -> None:
    parts = [
        line(0.9, label="PMB", method="pmb", parameters={"preset": p}, **on(f"mvtec_ad/{c}"))
        for c, p in (("bottle", "object"), ("tile", "surface"))
    ]
    (table,) = tables(*parts)
    assert [row.name for row in table.rows] == ["PMB"]
    (table,) = tables(*parts, line(0.8, label="PMB", method="pmb", parameters={"preset": "object", "k": 2}))
    assert [row.name for row in table.rows] == [
        "PMB (preset object)",
        "PMB (preset surface)",
        "PMB (preset object, k 2)",
    ]
    (table,) = tables(line(0.9), line(0.8, parameters={"beta": 16}))
    assert [row.name for row in table.rows] == ["anomem (defaults)", "anomem (beta 16)"]


def test_many_columns_make_a_table_for_each_set(tables: Any) -> None:
    names = [f"mvtec_ad/{c}" for c in ("bottle", "cable", "capsule", "pill", "screw", "zipper")]
    names += ["btad/01", "btad/02", "magnetic_tile", "ksdd2"]
    found = tables(*(line(0.9, **on(name)) for name in names))
    assert [[c.title for c in t.columns if c.kind == "one"] for t in found] == [
        ["bottle", "cable", "capsule", "pill", "screw", "zipper"],
        ["01", "02"],
        ["Magnetic tile defects", "KolektorSDD2"],
    ]
    (together,) = tables(*(line(0.9, **on(name)) for name in names[4:]))
    assert [c.title for c in together.columns][:3] == ["mean", "MVTec AD screw", "MVTec AD zipper"]


def test_columns_of_one_name_show_where_they_come_from(tables: Any) -> None:
    (table,) = tables(*(line(0.9, data=f"{d}/part", set="part", category="part") for d in "ab"))
    assert [c.title for c in table.columns] == ["mean", "a/part part", "b/part part"]


# ------------------------------------------------------------------------------------------ marks


def test_the_best_and_what_its_error_does_not_part_from_it_are_marked(tables: Any) -> None:
    (table,) = tables(
        line(0.90, method="anomem", half=0.03),
        line(0.93, method="padim", half=0.03),
        line(0.85, method="knn", half=0.03),
        line(0.80, method="anomalib-padim", half=0.03),
    )
    # Half widths of 0.03 each, unpaired, part what is more than 0.042 apart.
    assert marked(table) == {"anomem": ["equal"], "padim": ["best"], "knn": [""], "anomalib-padim": [""]}
    assert [row.kind for row in table.rows] == ["ours", "ours", "ours", "peer"]


def test_one_method_alone_is_no_winner(tables: Any) -> None:
    (table,) = tables(line(0.9), line(0.91, seed=1))
    assert marked(table) == {"anomem": [""]}


def test_other_test_images_are_not_compared(tables: Any) -> None:
    (table,) = tables(line(0.90), line(0.80, method="knn"), line(0.99, method="padim", images_sha256=sha("others")))
    assert marked(table) == {"anomem": ["best"], "knn": [""], "padim": ["apart"]}
    (table,) = tables(line(0.90, images_sha256=None), line(0.80, method="knn", images_sha256=None))
    assert marked(table) == {"anomem": [""], "knn": [""]}


def test_pairs_have_the_same_seed_and_draw(tables: Any) -> None:
    (table,) = tables(line(0.90, seed=0), line(0.80, seed=1, method="knn"))
    assert marked(table) == {"anomem": [""], "knn": [""]}
    # Of the seeds that both have, knn is better; of all, anomem's mean is.
    many = [line(v, seed=s, half=0.001) for s, v in enumerate((0.7, 0.95, 0.95))]
    (table,) = tables(*many, line(0.75, method="knn", half=0.001))
    assert marked(table) == {"anomem": ["best"], "knn": ["equal"]}


def test_less_is_better_of_a_variance(tables: Any) -> None:
    lines = [
        line(
            None, protocol="distance-variance", method=m, distance_variance=v + s / 100, seed=s, images_sha256=sha("n")
        )
        for m, v in (("padim", 3.0), ("fyd", 1.0))
        for s in range(3)
    ]
    (table,) = tables(*lines)
    assert marked(table) == {"padim": [""], "fyd": ["best"]}
    assert table.metric == "distance_variance"


def test_equal_perfect_methods_are_marked_alike(tables: Any) -> None:
    (table,) = tables(line(1.0, half=0.0), line(1.0, half=0.0, method="knn"))
    assert sorted(mark for own in marked(table).values() for mark in own) == ["best", "equal"]


# ---------------------------------------------------------------------------------- confound check


def test_confounded_columns_are_flagged_and_a_mean_leaves_them_out(tables: Any) -> None:
    told = {"mean_grey": 1.0, "std_grey": 0.9, "image_size": 0.5, "file_size": 0.7}
    lines = [line(v, **on(f"mvtec_ad/{c}")) for c, v in (("bottle", 0.9), ("pill", 0.8))]
    (table,) = tables(*lines, line(0.6, **on("mvtec_ad/screw"), trivial=told, pixel={"auroc": 0.9}))[:1]
    assert {c.title: c.confounded for c in table.columns if c.kind == "one"} == {
        "bottle": False,
        "pill": False,
        "screw": True,
    }
    assert cells(table)["anomem"]["mean of the others"].mean == pytest.approx(0.85)
    assert cells(table)["anomem"]["mean"].mean == pytest.approx(2.3 / 3)
    pixels = tables(*lines, line(0.6, **on("mvtec_ad/screw"), trivial=told, pixel={"auroc": 0.9}))[1]
    assert not any(c.confounded for c in pixels.columns)


def test_what_a_peer_does_not_measure_is_taken_from_lines_of_the_same_images(tmp_path: Path) -> None:
    told = {"mean_grey": 0.97, "std_grey": 0.5, "image_size": None, "file_size": float("nan")}
    path = write(tmp_path / "r.jsonl", [line(0.9, method="peer", trivial=None), line(0.8, trivial=told)])
    runs = read_all([path]).runs
    check = Confounds(runs).check(runs[:1])
    assert check.areas == {"mean_grey": 0.97, "std_grey": 0.5, "image_size": None, "file_size": None}
    assert check.confounded
    assert not Confounds(runs[:1]).check(runs[:1]).measured
    few = [line(0.9, n_test={"normal": 2, "anomalous": 2}, trivial=told)]
    runs = read_all([write(tmp_path / "few.jsonl", few)]).runs
    assert not Confounds(runs).check(runs).confounded, "four images say so by luck"


# -------------------------------------------------------------------------------------- comparisons


def test_every_method_is_compared_with_the_baseline_on_common_units(tables: Any) -> None:
    ours = [line(v, **on(f"mvtec_ad/{c}")) for c, v in (("bottle", 0.9), ("screw", 0.7))]
    found = tables(*ours, line(0.95, method="knn"), line(0.5, method="padim", images_sha256=sha("x")))
    (only,) = versus(found, "anomem", KEPT)
    assert only.row.name == "knn"
    assert (only.found.difference, only.found.n_units) == (pytest.approx(0.05), 1)
    assert only.found.error_ratio == pytest.approx(0.5)
    assert [v.row.name for v in versus(found, "knn", KEPT)] == ["anomem"]
    with pytest.raises(InputError, match="--baseline padim: no other method has the same images"):
        versus(found, "padim", KEPT, demanded=True)


def test_methods_are_compared_within_each_set_of_a_table(tables: Any) -> None:
    scores = {"bottle": (0.9, 0.95), "screw": (0.7, 0.5)}
    lines = [
        line(v, method=method, **on(f"mvtec_ad/{c}"))
        for c, pair in scores.items()
        for method, v in zip(("anomem", "knn"), pair, strict=True)
    ]
    found = tables(*lines)
    (whole,) = versus(found, "anomem", KEPT)
    assert (whole.found.n_categories, whole.found.difference) == (2, pytest.approx(-0.075))
    each = {v.column.title: v.found for v in per_column(found, "anomem", KEPT)}
    assert {title: round(of.difference, 6) for title, of in each.items()} == {"bottle": 0.05, "screw": -0.2}
    assert each["screw"].verdict == -1
    assert not per_column(tables(*lines[:2]), "anomem", KEPT), "the only set is the whole table"


def test_the_baseline_is_found_by_label_or_method(tables: Any) -> None:
    found = tables(line(0.9, label="AnoMem, as printed"), line(0.8, method="knn"), line(0.7, method="padim"))
    assert choose_baseline(found, None) == "AnoMem, as printed"
    assert choose_baseline(found, "anomem") == "AnoMem, as printed"
    assert choose_baseline(found, "knn") == "knn"
    with pytest.raises(InputError, match="--baseline kn: no line has this label; did you mean knn?"):
        choose_baseline(found, "kn")
    assert choose_baseline([], None) == ""


def test_points_of_a_sweep_are_compared_with_its_first(tables: Any) -> None:
    lines = [
        line(v, parameters={"beta": b}, sweep={"name": "beta", "parameter": "beta", "value": b})
        for b, v in ((1.0, 0.8), ("hard", 0.9))
    ]
    found = tables(*lines)
    (only,) = versus(found, "anomem", KEPT)
    assert (only.baseline.name, only.row.name) == ("anomem, 1.0", "anomem, hard")


def test_kept_scores_make_intervals_of_what_differs(tables: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    marks = np.repeat([0, 1], 60)
    shared = rng.normal(size=120) + marks
    folder = tmp_path / "kept"
    folder.mkdir()
    lines = []
    for method, noise in (("anomem", 0.0), ("knn", 0.1)):
        scores = (shared + noise * rng.normal(size=120)).astype(np.float32)
        lines.append(line(0.76 - noise / 10, half=0.08, method=method, scores_sha256=scores_digest(scores)))
        np.savez(folder / f"{lines[-1]['key']}.npz", scores=scores, labels=marks)
    wide = versus(tables(*lines), "anomem", KEPT)[0].found
    narrow = versus(tables(*lines), "anomem", StoredScores([folder]))[0].found
    assert wide.difference == narrow.difference
    assert narrow.high - narrow.low < 0.3 * (wide.high - wide.low)

    np.savez(folder / f"{lines[1]['key']}.npz", scores=np.zeros(120, np.float32), labels=marks)
    with pytest.raises(InputError, match=r"not the scores of .*runs.jsonl: line 2; remove the file"):
        tables(*lines, kept=StoredScores([folder]))
    (folder / f"{lines[1]['key']}.npz").write_bytes(b"PK no zip")
    with pytest.raises(InputError, match=r"no scores of anomem bench; remove the file"):
        tables(*lines, kept=StoredScores([folder]))
    with pytest.raises(InputError, match="no such folder; name the one written by anomem bench --scores"):
        StoredScores([tmp_path / "none"])


# ----------------------------------------------------------------------------------------- published

CIFAR = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def one_vs_rest(classes: tuple[str, ...], gamma: float, **changes: Any) -> list[dict[str, Any]]:
    task = {"gamma": gamma} | ({"anomalies": "all", "labels": "refit", "draw": 0} if gamma else {})
    return [line(0.9, protocol="one-vs-rest", task=task, **on("cifar10", category=c), **changes) for c in classes]


def published_rows(table: Table) -> dict[str, dict[str, float]]:
    shown = with_published(table)
    return {
        name: {k: round(100 * c.mean, 6) for k, c in row.items()}
        for name, row in cells(shown).items()
        if next(r for r in shown.rows if r.name == name).kind == "published"
    }


def test_published_means_stand_beside_means_over_as_many_classes(tables: Any) -> None:
    (table,) = tables(*one_vs_rest(CIFAR, 0.05))
    assert published_rows(table) == {"AnoMem": {"mean": 97.1}}
    (note,) = with_published(table).notes
    assert note == "Published: AnoMem v2 (2022), Table 1, Sec. 4.3.1."
    (table,) = tables(*one_vs_rest(CIFAR[:9], 0.05))
    assert published_rows(table) == {}


def test_published_figures_of_categories_find_their_columns(tables: Any) -> None:
    (table,) = tables(*one_vs_rest(CIFAR[:2], 0.0, method="plume"))
    (row,) = published_rows(table).values()
    assert row == {"airplane": 89.5, "automobile": 85.7}
    fyd = [line(0.9, method="fyd", **on(f"mvtec_ad/{c}")) for c in ("metal_nut", "carpet")]
    (table,) = tables(*fyd, line(0.9, method="fyd", **on("magnetic_tile")))
    found = published_rows(table)
    assert set(found) == {"FYD, ResNet-18", "FYD, Wide-ResNet-50-2"}
    assert set(found["FYD, ResNet-18"]) == {"MVTec AD metal_nut", "MVTec AD carpet"}
    assert "5 runs" in with_published(table).notes[0]


def test_published_figures_answer_the_same_question(tables: Any) -> None:
    unseen = [
        line(0.9, protocol="cross-type", task={"apart": "paper print", "labelled": "others", "k": k}, **on("wmca"))
        for k in (0, "all")
    ]
    none, some = (published_rows(table) for table in tables(*unseen))
    assert none == {}
    assert some == {"AnoMem": {"paper print": 91.3}}
    disturbed = [
        line(0.9, method="fyd", protocol="disturbed", task={"disturbed": k, "draw": 0}) for k in ("spatial", "colour")
    ]
    by_kind = [published_rows(table) for table in tables(*disturbed)]
    assert by_kind[0] != by_kind[1]
    assert all(list(found) == ["FYD, ResNet-18"] for found in by_kind)
    encoders = [line(None, protocol="linear-evaluation", accuracy=0.8, **on("cifar10"))]
    (table,) = tables(*encoders)
    assert published_rows(table)["AnoMem, memory=Hopfield, scales=2"] == {"CIFAR-10": 91.9}
    next_class = one_vs_rest(CIFAR, 0.05)
    for entry in next_class:
        entry["task"]["anomalies"] = "one"
    assert published_rows(tables(*next_class)[0]) == {}


def test_published_figures_are_never_the_best(tmp_path: Path) -> None:
    lines = [line(0.3, method=m, half=0.001, **on("mvtec_ad/bottle")) for m in ("fyd", "padim")]
    (table,) = gather([write(tmp_path / "r.jsonl", lines)]).tables
    assert any(row.kind == "published" for row in table.rows)
    assert all(not cell.mark for row in table.rows if row.kind == "published" for cell in row.cells.values())
    assert isinstance(table.rows[0], Row)
