"""Tables written by spreadsheets and scripts are read; errors name the line."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anomem.data.sources import Sample, read_dataset, read_labels
from anomem.data.tables import read_table
from anomem.errors import InputError, MissingExtraError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.png", "b.png", "c.png", "sub dir/ü, x.png", "m.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.zeros((2, 2), np.uint8)).save(path)
    return tmp_path


def table(folder: Path, text: str | bytes, name: str = "t.csv") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_every_column(folder: Path) -> None:
    path = table(
        folder,
        "path,label,mask,type,group,split\n"
        f"{folder / 'a.png'},good,,,lot 1,train\n"
        "b.png,1,m.png,scratch,,train\n"
        '"sub dir/ü, x.png",0,,,,test\n'
        "c.png,,,,,\n",
    )
    data = read_dataset(path)
    assert data.layout == "table"
    assert data.split
    assert data.train == (
        Sample(folder / "a.png", 0, group="lot 1"),
        Sample(folder / "b.png", 1, folder / "m.png", "scratch"),
        Sample(folder / "c.png", -1),
    )
    assert data.test == (Sample(folder / "sub dir/ü, x.png", 0),)


@pytest.mark.parametrize(
    ("word", "label"),
    [(w, 0) for w in ("0", "0.0", "good", "NORMAL", " ok ")]
    + [(w, 1) for w in ("1", "1.0", "anomalous", "Defect", "ng", "BAD", "abnormal")]
    + [(w, -1) for w in ("", "-1", "unknown")],
)
def test_label_words(folder: Path, word: str, label: int) -> None:
    assert read_labels(table(folder, f"path,label\na.png,{word}\n"))[0].label == label


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_the_separator_may_be_declared_as_excel_does(folder: Path, separator: str) -> None:
    file = table(folder, f"sep={separator}\r\npath{separator}label\r\na.png{separator}1\r\n")
    assert read_labels(file) == (Sample(folder / "a.png", 1),)
    with pytest.raises(InputError, match=rf"{file.name}:3: gone\.png: no such file"):
        read_labels(table(folder, f"sep={separator}\npath{separator}label\ngone.png{separator}1\n"))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_dialects(folder: Path, encoding: str, newline: str, delimiter: str) -> None:
    text = newline.join(
        delimiter.join(cells)
        for cells in (
            ["Path", " Label ", "type"],
            ["a.png", "0", ""],
            ['"sub dir/ü, x.png"', "1", "Kratzer"],
            [""],
            ["", "", ""],
        )
    )
    samples = read_labels(table(folder, text.encode(encoding)))
    assert samples == (
        Sample(folder / "a.png", 0),
        Sample(folder / "sub dir/ü, x.png", 1, None, "Kratzer"),
    )


def test_windows_separators(folder: Path) -> None:
    (sample,) = read_labels(table(folder, 'path,label\n"sub dir\\ü, x.png",0\n'))
    assert sample.path == folder / "sub dir/ü, x.png"


def test_without_label_column_training_rows_are_normal(folder: Path) -> None:
    data = read_dataset(table(folder, "path,split\na.png,train\nb.png,test\n"))
    assert [sample.label for sample in (*data.train, *data.test)] == [0, -1]


@pytest.mark.parametrize("name", ["bad", "NG_cam2", "big scratches"])
def test_without_labels_a_folder_named_for_defects_is_refused(folder: Path, name: str) -> None:
    (folder / name).mkdir()
    shutil.copy(next(folder.glob("*.png")), folder / name / "x.png")
    with pytest.raises(
        InputError, match=rf"t\.csv:2: .* lies in {name}/, anomalous by its name; add the column 'label'"
    ):
        read_table(table(folder, f"path\n{name}/x.png\n"))


def test_labels_reach_training(folder: Path) -> None:
    data = read_dataset(table(folder, "path,label,type\na.png,0,\nb.png,1,dent\nc.png,,\n"))
    assert [sample.label for sample in data.train] == [0, 1, -1]
    assert data.for_evaluation() == data.train


def test_type_of_a_normal_image_is_dropped(folder: Path) -> None:
    assert read_labels(table(folder, "path,label,type\na.png,0,good\n"))[0].type is None


def test_type_is_the_mvtec_folders_name_where_no_column_says_it(folder: Path) -> None:
    for place in ("test/crack/a.png", "test/good/b.png", "elsewhere/crack/c.png"):
        (folder / place).parent.mkdir(parents=True)
        Image.fromarray(np.zeros((2, 2), np.uint8)).save(folder / place)
    rows = "test/crack/a.png,1,{}\ntest/good/b.png,1,\nelsewhere/crack/c.png,1,\na.png,0,\n"
    for named, expected in (("", "crack"), ("scratch", "scratch")):
        samples = read_labels(table(folder, "path,label,type\n" + rows.format(named)))
        assert [sample.type for sample in samples] == [expected, None, None, None]
    plain = read_labels(table(folder, "path,label\ntest/crack/a.png,anomalous\n"))
    assert [sample.type for sample in plain] == ["crack"]


def test_validation(folder: Path) -> None:
    rows = "path,label,split\na.png,0,train\nb.png,0,val\n"
    alone = read_dataset(table(folder, rows))
    assert [sample.path.name for sample in alone.test] == ["b.png"]
    both = read_dataset(table(folder, rows + "c.png,1,test\n"))
    assert [sample.path.name for sample in both.test] == ["c.png"]
    assert both.notes == ("split val not used (1 images)",)


def test_other_columns_are_mentioned(folder: Path) -> None:
    assert read_dataset(table(folder, ",path,score\n0,a.png,1.5\n")).notes == ("columns not used: score",)


def test_equal_rows_count_once(folder: Path) -> None:
    assert len(read_labels(table(folder, "path,label\na.png,0\na.png,0\n"))) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\na.png,0\n\nb.png,scratch\n", r"t.csv:4: label 'scratch' is not understood.*'type'"),
        ("path,label\na.png,0\nz.png,1\n", r"t.csv:3: z.png: no such file"),
        ("path,label\nsub dir,1\n", r"t.csv:2: sub dir: is a folder"),
        ("path,mask\na.png,no.png\n", r"t.csv:2: no.png: no such file"),
        ("path,label\n,1\n", r"t.csv:2: empty path"),
        ("path,split\na.png,later\n", r"t.csv:2: split 'later' is not understood; write train or test"),
        ("path,label\na.png,0\na.png,1\n", r"t.csv:3: .*a.png contradicts .*t.csv:2"),
        ("path,split\na.png,train\na.png,test\n", r"t.csv:3: .*contradicts .*t.csv:2"),
        ("path,label\na.png,0,x\n", r"t.csv:2: 3 fields under 2 columns; quote"),
        ("path,lable\na.png,0\n", r"column 'lable': did you mean 'label'\?"),
        ("file,label\na.png,0\n", r"no column 'path' \(columns found: file, label\)"),
        (",".join(f"c{i}" for i in range(10_000)) + "\n", r"\(columns found: c0, c1, .{150,200}\.\.\.\); add it"),
        ("path,path\na.png,a.png\n", r"column 'path' occurs twice"),
        ("path,label\n", r"0 images: the table has a header and no rows"),
        ("", r"empty; expected a header"),
        (b"path,label\na.png,0\n\xfc.png,1\n", r"t.csv:3: not UTF-8; save"),
        (b"path\0\n", r"zero bytes"),
    ],
)
def test_wrong_tables(folder: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        read_dataset(table(folder, text))
    assert "\n" not in str(error.value)


def test_giant_field_is_refused(folder: Path) -> None:
    with pytest.raises(InputError, match="not a CSV line"):
        read_table(table(folder, "path\n" + "x" * 200_000 + "\n"))


def test_line_numbers_survive_quoted_line_breaks(folder: Path) -> None:
    text = 'path,label,remark\na.png,0,"two\nlines"\nb.png,what,\n'
    with pytest.raises(InputError, match=r"t.csv:4: label 'what'"):
        read_table(table(folder, text))


def test_labels_need_labels(folder: Path) -> None:
    with pytest.raises(InputError, match="no column 'label'"):
        read_labels(table(folder, "path\na.png\n"))
    with pytest.raises(InputError, match="no such table"):
        read_labels(folder / "none.csv")


def test_normal_is_for_folders(folder: Path) -> None:
    with pytest.raises(InputError, match="use the label column"):
        read_dataset(table(folder, "path\na.png\n"), normal="good")


def test_parquet(folder: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    columns = {
        "path": ["a.png", str(folder / "b.png"), "c.png"],
        "label": [0.0, 1.0, float("nan")],
        "group": [7, None, 7],
        "score": [0.1, 0.2, 0.3],
    }
    parquet.write_table(pa.table(columns), folder / "t.parquet")
    data = read_dataset(folder / "t.parquet")
    assert [(s.label, s.group) for s in data.train] == [(0, "7"), (1, None), (-1, "7")]
    columns["path"][1] = "gone.png"
    parquet.write_table(pa.table(columns), folder / "t.parquet")
    with pytest.raises(InputError, match=r"t.parquet, row 2: gone.png: no such file"):
        read_dataset(folder / "t.parquet")


def test_damaged_parquet(folder: Path) -> None:
    pytest.importorskip("pyarrow")
    with pytest.raises(InputError, match="not a readable Parquet file"):
        read_dataset(table(folder, "nonsense", "t.parquet"))


def test_parquet_names_the_missing_extra(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"anomem\[tables\]"):
        read_dataset(table(folder, "x", "t.parquet"))


def test_tables_without_end_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    from anomem.data import tables

    columns = {"path": ["a.png"] * 2000, "note": ["x" * 100] * 2000}
    parquet.write_table(pa.table(columns), folder / "t.parquet")
    assert len(read_dataset(folder / "t.parquet").train) == 1
    notes = {
        "path": ["a.png"] * 20,
        "note": [f"{i}" * 5000 for i in range(20)],
        "embedding": [[0.5, i] for i in range(20)],
    }
    parquet.write_table(pa.table(notes), folder / "notes.parquet", compression="none", use_dictionary=False)
    bomb = {"path": ["a.png"] * 20, "note": ["x" * 100_000 + str(i) for i in range(20)]}
    parquet.write_table(pa.table(bomb), folder / "bomb.parquet", compression="zstd", use_dictionary=False)
    monkeypatch.setattr(tables, "MAX_TABLE_BYTES", 9000)
    assert len(read_dataset(folder / "notes.parquet").train) == 1  # large, but not larger than its file
    with pytest.raises(
        InputError, match=r"bomb\.parquet: more than the limit of 0 MiB in all columns; leave out other"
    ):
        read_dataset(folder / "bomb.parquet")
    with pytest.raises(InputError, match=r"t\.parquet: more than the limit of 0 MiB of text; split the table"):
        read_dataset(folder / "t.parquet")
    with pytest.raises(InputError, match=r"t\.csv: more than the limit of 0 MiB; split the table"):
        read_dataset(table(folder, "path\n" + "a.png\n" * 2000))
    monkeypatch.setattr(tables, "MAX_TABLE_ROWS", 1999)
    with pytest.raises(InputError, match=r"t\.parquet: more than the limit of 1,999 rows; split the table"):
        read_dataset(folder / "t.parquet")


def test_paths_that_no_file_can_have(folder: Path) -> None:
    with pytest.raises(InputError, match=r"t\.csv:2: a+\.png: no such file"):
        read_dataset(table(folder, "path\n" + "a" * 300 + ".png\n"))
