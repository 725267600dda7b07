"""demo: finds planted defects, and never touches existing files."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from anomem.cli import demo
from anomem.cli.demo import MARK
from anomem.cli.main import run
from tests.cli.process import Command, Ran, Run, files


def test_demo_refuses_other_peoples_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine").write_text("mine")
    assert run(["demo", "--out", str(tmp_path)]) == 2
    assert "contains files that are not of an earlier demo; choose a new folder" in capsys.readouterr().err
    assert run(["demo", "--out", str(tmp_path / "mine")]) == 2
    assert run(["demo", "--out", str(tmp_path / "no" / "demo")]) == 2
    assert files(tmp_path) == {"mine"}


@pytest.mark.slow
def test_demo_finds_the_defects(anomem: Command, tmp_path: Path) -> None:
    result = anomem("demo", "--json").result
    assert set(result) >= {"report", "seconds", "image", "pixel"}
    assert result["report"] == "anomem-demo/report.html"
    assert result["seconds"] < 120
    assert result["image"]["auroc"] > 0.95
    assert result["pixel"]["auroc"] > 0.95
    assert 0.85 < result["pixel"]["aupro"] <= 1
    folder = tmp_path / "anomem-demo"
    assert {path.name for path in folder.iterdir()} == {MARK, "images", "model.safetensors", "report.html"}
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert ".anomem-demo-" not in page, "the page names the folder it was made in"


@pytest.mark.slow
@pytest.mark.ci_sample
def test_a_second_demo_replaces_the_first_and_nothing_else(
    here: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A small one: the sizes of the images and their numbers change nothing here."""
    for name, value in {"SIZE": 64, "N_TRAIN": 20, "N_TEST": 4, "N_FRESH": 20}.items():
        monkeypatch.setattr(demo, name, value)
    assert here("demo")[0] == 0
    folder = tmp_path / "anomem-demo"
    (folder / "mine").write_text("mine")
    before = files(folder)
    code, out, err = here("demo")
    assert code == 0, err
    assert "image AUROC" in out
    assert "AUPRO" in out
    assert "report: anomem-demo/report.html" in out
    assert files(folder) == before
    (command,) = re.findall(r"^next: anomem (.*)$", out, flags=re.MULTILINE)
    scored = Ran(*here(*command.split(), "--json")).result
    assert scored["n"] == 8
    assert all((tmp_path / row["heatmap"]).is_file() for row in scored["results"])
    assert json.loads((folder / MARK).read_text())["version"]
