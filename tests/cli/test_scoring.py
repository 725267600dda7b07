"""score: results, tables, heatmaps, errors."""

from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import anomem as library
from anomem.runtime.images import decode
from tests.cli.process import Command, Ran, Run, Shop, files, without_notes


def test_scores_are_those_of_the_library(shop: Shop, anomem: Command) -> None:
    result = anomem("score", shop.knn, shop.data / "test", "--json").result
    assert set(result) == {"model", "n", "skipped", "threshold", "alpha", "results", "found", "shift"}
    model = library.load(shop.knn)
    expected = list(model.score(shop.images))
    assert result["model"] == str(shop.knn)
    assert result["n"] == 10
    assert result["skipped"] == []
    assert result["alpha"] == 0.1
    assert result["threshold"] == model.calibration_.threshold
    for row, scored in zip(result["results"], expected, strict=True):
        assert set(row) == {"path", "score", "p_value", "anomalous", "heatmap"}
        assert row["path"] == scored.name
        assert row["score"] == pytest.approx(scored.score, rel=1e-5)
        assert row["anomalous"] is (row["p_value"] <= 0.1)
        assert row["anomalous"] is (row["score"] > result["threshold"])
        assert row["heatmap"] is None


def test_paths_open_from_the_current_directory(shop: Shop, here: Run, tmp_path: Path) -> None:
    shutil.copytree(shop.data / "test", tmp_path / "parts" / "deep")
    os.chdir(tmp_path / "parts")
    code, out, err = here("score", shop.knn, "deep", "../parts/deep/good/000.png", "--json")
    assert code == 0, err
    paths = [row["path"] for row in json.loads(out)["results"]]
    assert len(paths) == 11
    assert all(Path(path).is_file() for path in paths)
    assert paths[-1] == "../parts/deep/good/000.png"


def test_lines_are_for_programs_and_the_summary_is_not(shop: Shop, here: Run) -> None:
    code, out, err = here("score", shop.knn, shop.data / "test")
    assert code == 0
    rows = [line.split("\t") for line in out.splitlines()]
    assert [row[0] for row in rows] == [str(path) for path in shop.images]
    assert {row[3] for row in rows} <= {"anomalous", "normal"}
    assert without_notes(err)[0].startswith("10 images: ")
    assert "anomalous at alpha 0.1 (score above " in err


def test_alpha_changes_the_verdict_not_the_scores(shop: Shop, here: Run) -> None:
    results = []
    for options in ([], ["--alpha", 0.5]):
        code, out, _ = here("score", shop.knn, shop.data / "test", *options, "--json")
        assert code == 0
        results.append(json.loads(out))
    assert [row["score"] for row in results[0]["results"]] == [row["score"] for row in results[1]["results"]]
    assert results[1]["alpha"] == 0.5
    assert results[1]["threshold"] < results[0]["threshold"]
    assert all(row["anomalous"] is (row["p_value"] <= 0.5) for row in results[1]["results"])
    assert library.load(shop.knn).calibration_.alpha == 0.1
    code, _, err = here("score", shop.knn, shop.data / "test", "--alpha", 0.001)
    assert code == 2
    assert "needs 999 calibration normals" in err


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_tables_hold_the_results(shop: Shop, here: Run, suffix: str) -> None:
    out_file = Path(f"r{suffix}")
    code, out, err = here("score", shop.knn, shop.data / "test", "--out", out_file, "--json")
    assert code == 0, err
    expected = json.loads(out)["results"]
    if suffix == ".csv":
        with out_file.open(newline="") as stream:
            rows = [
                {**row, "score": float(row["score"]), "p_value": float(row["p_value"]), "heatmap": None}
                | {"anomalous": row["anomalous"] == "true"}
                for row in csv.DictReader(stream)
            ]
    elif suffix == ".jsonl":
        rows = [json.loads(line) for line in out_file.read_text().splitlines()]
    else:
        rows = pytest.importorskip("pyarrow.parquet").read_table(out_file).to_pylist()
    assert rows == expected
    assert files(Path()) == {str(out_file)}


# --- heatmaps ---------------------------------------------------------------------------------


def test_heatmaps_mirror_the_folders(shop: Shop, here: Run) -> None:
    code, out, err = here("score", shop.anomem, shop.data / "test", "--heatmaps", "maps", "--json")
    assert code == 0, err
    rows = json.loads(out)["results"]
    assert len(rows) == 10
    for row in rows:
        place = Path(row["heatmap"])
        assert place == Path("maps") / Path(row["path"]).relative_to(shop.data / "test")
        drawn, image = decode(place), decode(row["path"])
        assert drawn.shape == image.shape
    assert len([name for name in files(Path()) if name.endswith(".png")]) == 10
    assert any(not np.array_equal(decode(row["heatmap"]), decode(row["path"])) for row in rows)


def test_heatmaps_of_a_zip_mirror_its_folders(shop: Shop, here: Run, tmp_path: Path) -> None:
    shutil.make_archive(str(tmp_path / "parts"), "zip", shop.data / "test/good", ".")
    code, out, err = here("score", shop.anomem, "parts.zip", "--heatmaps", "maps", "--json")
    assert code == 0, err
    assert [row["path"] for row in json.loads(out)["results"]] == [f"parts.zip/00{i}.png" for i in range(5)]
    assert files(tmp_path / "maps") == {f"00{i}.png" for i in range(5)}


def test_heatmaps_of_one_name_do_not_collide(shop: Shop, here: Run, tmp_path: Path) -> None:
    source = shop.images[0]
    for place in ("a/x.png", "a/x.jpg", "a/X.bmp", "b/x.png"):
        target = tmp_path / "in" / place
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.open(source).save(target)
    code, out, err = here("score", shop.anomem, "in/a", "in/b/x.png", "in/b/x.png", "--heatmaps", "maps", "--json")
    assert code == 0, err
    places = {row["path"]: row["heatmap"] for row in json.loads(out)["results"]}
    assert places["in/b/x.png"] == "maps/b/x.png"
    assert len({place.casefold() for place in places.values()}) == len(places) == 4
    assert all(Path(place).is_file() for place in places.values())


def test_heatmaps_join_what_is_in_the_folder(shop: Shop, here: Run, tmp_path: Path) -> None:
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps" / "mine.txt").write_text("mine")
    for _ in range(2):
        code, _, err = here("score", shop.anomem, shop.images[0], "--heatmaps", "maps")
        assert code == 0, err
    assert files(tmp_path / "maps") == {"mine.txt", shop.images[0].name}


def test_heatmaps_never_touch_the_images(shop: Shop, here: Run, tmp_path: Path) -> None:
    shutil.copytree(shop.data / "test" / "good", tmp_path / "in")
    before = {path: path.read_bytes() for path in (tmp_path / "in").iterdir()}
    code, _, err = here("score", shop.anomem, "in", "--heatmaps", "in/maps")
    assert code == 2
    assert "in/maps: lies inside in, whose images are scored" in err
    code, _, err = here("score", shop.anomem, "in/000.png", "in/001.png", "--heatmaps", "in")
    assert code == 2
    assert "in/000.png: exists and is not a heatmap" in err
    assert {path: path.read_bytes() for path in (tmp_path / "in").iterdir()} == before


def test_heatmaps_need_a_method_with_maps(shop: Shop, here: Run) -> None:
    code, _, err = here("score", shop.knn, shop.data / "test", "--heatmaps", "maps")
    assert code == 2
    assert "knn scores whole images and draws no maps" in err
    assert files(Path()) == set()


# --- what score refuses ------------------------------------------------------------------------


def test_score_refuses_before_the_work(shop: Shop, here: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    before = files(tmp_path)
    images = shop.data / "test"
    cases = {
        (shop.knn, "no.png"): "no.png: no such file or folder",
        (shop.knn, "empty"): "empty: 0 images, found nothing",
        (shop.knn, images, "--out", "r.xlsx"): "choose one of these suffixes",
        (shop.knn, images, "--out", "no/r.csv"): "does not exist; create it first",
        (shop.knn, images, "--heatmaps", "file"): "file: is a file; name a folder",
        (shop.knn, images, "--heatmaps", "no/maps"): "does not exist; create it first",
    }
    for arguments, expected in cases.items():
        ran = Ran(*here("score", *arguments))
        assert ran.code == 2
        assert ran.out == ""
        assert expected in ran.error
    assert files(tmp_path) == before


def test_bad_images_are_named_or_left_out(shop: Shop, here: Run, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    shutil.copytree(shop.data / "test" / "good", folder)
    whole = (folder / "000.png").read_bytes()
    (folder / "half.png").write_bytes(whole[: len(whole) // 2])
    (folder / "text.png").write_text("not an image")
    code, out, err = here("score", shop.anomem, "in", "--out", "r.csv", "--heatmaps", "maps")
    assert code == 2
    assert out == ""
    assert "in/half.png: " in err
    assert "--skip-bad leaves such images out" in err
    assert not (tmp_path / "r.csv").exists()
    assert not (tmp_path / "maps").exists()

    code, out, err = here("score", shop.anomem, "in", "--out", "r.csv", "--heatmaps", "maps", "--skip-bad", "--json")
    assert code == 0, err
    result = json.loads(out)
    assert result["n"] == 5 == len(result["results"])
    assert [image["path"] for image in result["skipped"]] == ["in/half.png", "in/text.png"]
    assert all(image["error"].startswith(image["path"]) for image in result["skipped"])
    assert err.count("anomem: note: left out in/") == 2
    assert len((tmp_path / "r.csv").read_text().splitlines()) == 6


def test_the_limit_on_pixels_is_an_option(shop: Shop, here: Run, tmp_path: Path) -> None:
    Image.new("RGB", (300, 200)).save(tmp_path / "large.png")
    code, _, error = here("score", shop.knn, tmp_path / "large.png", "--max-pixels", "59999")
    assert code == 2
    assert "large.png: 300 x 200 pixels are more than the limit of 59999" in error
    assert "--max-pixels" in error
    code, _, error = here("score", shop.knn, tmp_path / "large.png", "--max-pixels", "60000")
    assert code == 0


def test_pipes_are_left_out(shop: Shop, here: Run, tmp_path: Path) -> None:
    shutil.copy(shop.images[0], tmp_path / "a.png")
    os.mkfifo(tmp_path / "pipe.png")
    code, _, error = here("score", shop.knn, tmp_path / "a.png", tmp_path / "pipe.png", "--skip-bad")
    assert code == 0
    assert "pipe.png: is a pipe, device or socket" in error


def test_what_a_folder_leaves_out_is_said(shop: Shop, here: Run, tmp_path: Path) -> None:
    lot = tmp_path / "lot"
    (lot / "masks").mkdir(parents=True)
    shutil.copy(shop.images[0], lot / "a.png")
    shutil.copy(shop.images[1], lot / "b")
    shutil.copy(shop.images[2], lot / "masks" / "a.png")
    (lot / "d.heic").write_bytes(b"\0\0\0\x18ftypheic")
    code, out, err = here("score", shop.knn, "lot", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert [row["path"] for row in found["results"]] == ["lot/a.png", "lot/b"]
    (said,) = found["found"]
    assert (said["path"], said["images"]) == ("lot", 2)
    assert "left out 1 file: d.heic (HEIC)" in err
    assert "1 mask not read as images (masks: 1)" in said["notes"][0]


def test_a_table_of_images_gets_heatmaps(shop: Shop, here: Run, tmp_path: Path) -> None:
    shutil.copy(shop.images[0], tmp_path / "a.png")
    (tmp_path / "t.csv").write_text("path\na.png\n")
    code, out, err = here("score", shop.anomem, "t.csv", "--heatmaps", "h", "--json")
    assert code == 0, err
    assert [row["heatmap"] for row in json.loads(out)["results"]] == ["h/a.png"]
