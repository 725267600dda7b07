"""evaluate: figures, files, errors."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from anomem.cli.main import run
from tests.cli.process import Run, Shop, files, without_notes


def test_figures_report_and_file_agree(shop: Shop, here: Run, tmp_path: Path) -> None:
    code, out, err = here("evaluate", shop.anomem, shop.data, "--out", "e.json", "--report", "page", "--json")
    assert code == 0, err
    result = json.loads(out)
    assert result["n_normal"] == 5
    assert result["n_anomalous"] == 5
    assert result["n_left_out"] == 0
    assert set(result["image"]) >= {"auroc", "auroc_ci", "ap", "f1_max", "fpr95"}
    low, high = result["image"]["auroc_ci"]
    assert 0 <= low <= result["image"]["auroc"] <= high <= 1
    assert set(result["at_alpha"]) >= {"alpha", "false_alarm_rate", "detection_rate", "n_false", "n_missed"}
    assert result["at_alpha"]["alpha"] == 0.1
    assert set(result["pixel"]) >= {"auroc", "aupro"}
    assert set(result["types"]) == {path.name for path in (shop.data / "test").iterdir()} - {"good"}
    assert all(set(figures) >= {"n", "auroc"} for figures in result["types"].values())
    assert json.loads((tmp_path / "e.json").read_text()) == result
    assert files(tmp_path) == {"e.json", "page", "page/report.html"}
    assert result["report"] == "page/report.html"
    page = (tmp_path / "page" / "report.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert "anomem.safetensors" in page


def test_lines_say_the_same(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["evaluate", str(shop.knn), str(shop.data), "--alpha", "0.2"]) == 0
    out = capsys.readouterr().out
    assert "5 normal images, 5 anomalous" in out
    assert "image AUROC " in out
    assert "no pixel figures" in out
    assert "an oracle" in out
    assert "at alpha 0.2 (score above " in out
    assert "  scratch: AUROC " in out


def test_what_the_model_was_made_from_is_left_out(
    shop: Shop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    shutil.copytree(shop.data / "test", data / "test")
    for path in sorted((shop.data / "train" / "good").iterdir())[:4]:
        shutil.copy(path, data / "test" / "good" / f"copy-{path.name}")
    assert run(["evaluate", str(shop.knn), str(data), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["n_left_out"] == 4
    assert result["n_normal"] == 5
    assert result["pixel"] is None


def test_bad_images_are_named_or_left_out(shop: Shop, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "data"
    shutil.copytree(shop.data / "test", data / "test")
    (data / "test" / "good" / "text.png").write_text("not an image")
    assert run(["evaluate", str(shop.knn), str(data)]) == 2
    assert "text.png: not an image by its content" in capsys.readouterr().err
    assert run(["evaluate", str(shop.knn), str(data), "--skip-bad", "--json"]) == 0
    shown = capsys.readouterr()
    result = json.loads(shown.out)
    assert result["n_skipped"] == 1
    assert result["n_normal"] == 5
    assert "anomem: note: left out " in shown.err


def test_evaluate_refuses(shop: Shop, flat_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cases = {
        (shop.data, "--out", tmp_path / "no" / "e.json"): "does not exist; create it first",
        (shop.data, "--report", shop.knn): "is a file; name a folder",
        (flat_folder, "--report", tmp_path / "page"): "has no anomalous images",
        (tmp_path / "no",): "no such file or folder",
    }
    for arguments, expected in cases.items():
        assert run(["evaluate", str(shop.knn), *map(str, arguments)]) == 2
        shown = capsys.readouterr()
        assert expected in shown.err
        assert len(without_notes(shown.err)) == 1
    assert files(tmp_path) == {"flat", *(f"flat/{path.name}" for path in flat_folder.iterdir())}


def test_normals_alone_give_the_false_alarm_rate(
    shop: Shop, flat_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["evaluate", str(shop.knn), str(flat_folder), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    n = len(list(flat_folder.iterdir()))
    flagged = sum(row["anomalous"] for row in result["results"])
    assert (result["n_normal"], result["n_anomalous"], len(result["results"])) == (n, 0, n)
    assert result["image"] is None
    assert result["at_alpha"]["n_false"] == flagged
    assert result["at_alpha"]["false_alarm_rate"] == flagged / n
    assert result["at_alpha"]["detection_rate"] is None
    assert run(["evaluate", str(shop.knn), str(flat_folder)]) == 0
    assert f"{flagged} of {n} normal images rejected" in capsys.readouterr().out


def test_normals_that_made_the_model_measure_nothing(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["evaluate", str(shop.knn), str(shop.data / "train" / "good")]) == 2
    assert "the model was fitted with 30" in capsys.readouterr().err
