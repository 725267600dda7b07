"""``anomem report``: from real runs to a page, its files, its errors."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import pytest

from anomem.benchmark.run_file import read_runs
from anomem.report.benchmark.captions import figure
from tests.cli.process import Run, files
from tests.report.benchmark.lines import line, write
from tests.report.benchmark.test_bars import measurement
from tests.report.benchmark.test_page import RunsPage

BENCH = ("--methods", "knn", "--set", "knn.size=32", "--data", "textures/brick", "--limit", "9", "--seeds", "0,1")


def test_real_runs_become_a_page(here: Run, tmp_path: Path) -> None:
    code, _, err = here("bench", "localisation", *BENCH, "--out", "ours.jsonl", "--scores", "kept")
    assert (code, err) == (0, "")
    # Another method of the same seeds and images, as a peer would say it.
    lines = read_runs(tmp_path / "ours.jsonl")
    for entry in lines:
        entry |= {"method": "other-knn", "label": "other-knn", "key": "f" + entry["key"][1:], "trivial": None}
    write(tmp_path / "peer.jsonl", lines)
    code, out, err = here(
        "report", "ours.jsonl", "peer.jsonl", "--out", "page", "--baseline", "knn", "--scores", "kept"
    )
    assert code == 0
    assert err.count("anomem: note: ") == err.count("\n") > 0
    assert "4 of 4 lines are trials (9 images of each kind at most), not results" in err
    compared, done = out.splitlines()
    assert compared.startswith(
        "localisation: image AUROC (trial: 9 images of each kind at most): other-knn against knn 0.00"
    )
    assert compared.endswith("0 better, 2 equal, 0 worse")
    assert done == f"4 units of work, 1 table: {Path('page') / 'report.html'}"
    tables = {"report.html", "tables.md", "tables.csv", "comparisons.csv", "confound.csv"}
    assert tables | {"roc.png", "types.png"} == files(tmp_path / "page")
    page = RunsPage((tmp_path / "page" / "report.html").read_text(encoding="utf-8"))
    assert "1 method and 1 peer" in page.text
    areas = [entry["image"]["auroc"] for entry in lines]
    assert f"knn {figure(statistics.fmean(areas))} ± {100 * statistics.stdev(areas):.1f}" in page.text
    # The peer's line has no trivial features; those of the same images are used.
    measured = {name: round(100 * value, 1) for name, value in read_runs("ours.jsonl")[0]["trivial"].items() if value}
    assert set(measured) == {"mean_grey", "std_grey", "image_size"}
    assert (
        f"textures brick trial Defects without labels {measured['mean_grey']} {measured['std_grey']} 50.0" in page.text
    )


def test_json_is_one_object(here: Run, tmp_path: Path) -> None:
    write(tmp_path / "r.jsonl", [line(0.9), line(0.8, method="knn")])
    code, out, err = here("report", "r.jsonl", "--json")
    assert (code, err) == (0, "")
    (text,) = out.splitlines()
    found = json.loads(text)
    assert found["report"] == str(Path("anomem-report") / "report.html")
    assert all((tmp_path / name).is_file() for name in found["written"])
    assert (found["n_units"], found["baseline"], found["methods"]) == (2, "anomem", ["anomem", "knn"])
    (compared,) = found["comparisons"]
    assert (compared["method"], compared["wins"], compared["losses"]) == ("knn", 0, 1)
    (table,) = found["tables"]
    assert [row["cells"]["c0"]["mark"] for row in table["rows"] if row["kind"] == "ours"] == ["best", ""]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["none.jsonl"], "none.jsonl: No such file or directory; name a file written by anomem bench"),
        (["empty.jsonl"], "empty.jsonl: no finished unit of work; run anomem bench first"),
        (["notes.txt"], "notes.txt: line 1 is no run of anomem bench"),
        (["r.jsonl", "other.jsonl"], "other.jsonl: line 1 has format 2, not 1"),
        (["r.jsonl", "--baseline", "kn"], "--baseline kn: no line has this label; did you mean knn?"),
        (["r.jsonl", "--baseline", "padim"], "--baseline padim: no other method has the same images"),
        (["r.jsonl", "--out", "notes.txt"], "notes.txt: is a file; name a folder"),
        (["r.jsonl", "--scores", "nowhere"], "nowhere: no such folder"),
        ([], "Missing argument"),
    ],
)
def test_errors_are_one_line_and_leave_nothing_behind(
    here: Run, tmp_path: Path, arguments: list[str], said: str
) -> None:
    write(tmp_path / "r.jsonl", [line(0.9), line(0.8, method="knn"), line(0.8, method="padim", images_sha256="else")])
    write(tmp_path / "other.jsonl", [line(0.9, format=2)])
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "notes.txt").write_text("mine\n")
    before = files(tmp_path)
    code, out, err = here("report", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("anomem: error: ")
    assert said in err
    assert err.count("\n") == 1
    assert files(tmp_path) == before


def test_the_screen_shows_some_comparisons_and_counts_the_others(here: Run, tmp_path: Path) -> None:
    write(tmp_path / "r.jsonl", [line(0.9), *(line(0.5 + i / 50, method=f"m{i:02}") for i in range(15))])
    code, out, _ = here("report", "r.jsonl", "--out", "page")
    assert code == 0
    assert len(out.splitlines()) == 14
    assert f"and 3 more comparisons: {Path('page') / 'comparisons.csv'}" in out


BARS = "bar,file,key,against,limit,direction,note\n"
KEY = "localisation | mvtec_ad/bottle | anomem | image.auroc"


@pytest.mark.parametrize(("limit", "code", "counted"), [(0.85, 0, "1 of 1 bars met, 0 missed"), (0.95, 1, "0 of 1")])
def test_the_page_of_results_holds_measurements_sets_and_bars(
    here: Run, tmp_path: Path, limit: float, code: int, counted: str
) -> None:
    write(tmp_path / "r.jsonl", [line(0.9, pixel={"auroc": 0.8, "aupro": 0.6})])
    write(tmp_path / "m.jsonl", [measurement("Fits", "tile", s=1.25)])
    (tmp_path / "bars.csv").write_text(f"{BARS}bottle,r.jsonl,{KEY},,{limit},>=,\n", encoding="utf-8")
    sets = "data,official,images,split,used\nmvtec_ad/bottle,no,256 px,ours,report\n"
    (tmp_path / "sets.csv").write_text(sets, encoding="utf-8")
    pages = ("--markdown", "R.md", "--table", "T.md", "--bars", "bars.csv", "--sets", "sets.csv")
    found, out, err = here("report", "r.jsonl", "m.jsonl", "--out", "page", *pages)
    assert (found, err) == (code, "")
    assert counted in out
    assert ("missed: bottle: 0.9, not >= 0.95" in out) == bool(code)
    page, table = ((tmp_path / name).read_text(encoding="utf-8") for name in ("R.md", "T.md"))
    assert table in page
    assert "| tile | 1.25 |" not in page  # no bar is held against its table
    assert "| tile | 1.25 |" in (tmp_path / "page" / "measurements.md").read_text(encoding="utf-8")
    assert "MVTec AD bottle° | 256 px | ours" in page
    assert {"measurements.md", "bars.csv"} <= files(tmp_path / "page")
    assert "256 px" in RunsPage((tmp_path / "page" / "report.html").read_text(encoding="utf-8")).text


def test_bars_and_pages_that_cannot_be_used_are_refused_before_anything_is_written(here: Run, tmp_path: Path) -> None:
    write(tmp_path / "r.jsonl", [line(0.9)])
    (tmp_path / "bars.csv").write_text(f"{BARS}tile,r.jsonl,{KEY.replace('bottle', 'tile')},,1,>=,\n", encoding="utf-8")
    before = files(tmp_path)
    for arguments, said in (
        (("--bars", "bars.csv"), "bar tile: no line has the figure"),
        (("--sets", "none.csv"), "none.csv: No such file or directory"),
        (("--markdown", "no/where.md"), "does not exist"),
    ):
        code, out, err = here("report", "r.jsonl", *arguments)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert said in err
    assert files(tmp_path) == before


def test_help_names_everything(here: Run) -> None:
    code, out, _ = here("report", "--help")
    assert code == 0
    for option in ("--out", "--baseline", "--scores", "--markdown", "--table", "--bars", "--sets", "--json"):
        assert option in out
