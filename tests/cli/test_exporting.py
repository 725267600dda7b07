"""export: files for other runtimes, and commands that read them."""

from __future__ import annotations

import json
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import anomem as library
from anomem.export import parity
from anomem.runtime.images import decode
from anomem.runtime.session import Session
from tests.cli.process import COMMAND, Run, Shop, call_here, environment, files, running

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

KEYS = {
    *("file", "format", "precision", "max_abs_diff", "auroc_drop", "auroc_drop_on"),
    *("calibrated", "n_calibration", "seconds"),
}


@pytest.fixture(scope="module")
def onnx_file(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shop's model with maps as ONNX: nobody writes here."""
    folder = tmp_path_factory.mktemp("exported")
    result = call_here(["export", shop.anomem, "--out", "model.onnx", "--json"], folder).result
    assert set(result) == KEYS
    assert result["file"] == "model.onnx"
    assert (result["format"], result["precision"]) == ("onnx", "fp32")
    assert 0 <= result["max_abs_diff"] < 1e-3
    assert (result["auroc_drop"], result["auroc_drop_on"]) == (None, None)
    assert result["calibrated"] is True
    assert result["n_calibration"] == shop.fitted["anomem"]["n_calibration"]
    assert files(folder) == {"model.onnx"}
    return folder / "model.onnx"


@pytest.fixture
def copy(onnx_file: Path, tmp_path: Path) -> Path:
    """A copy that a test may change, in its own folder."""
    return Path(shutil.copy(onnx_file, tmp_path / "copy.onnx"))


def outcome(ran: tuple[int, str, str]) -> dict[str, Any]:
    code, out, err = ran
    assert code == 0, err
    found = json.loads(out)
    assert isinstance(found, dict)
    return found


def error(ran: tuple[int, str, str], code: int) -> str:
    assert ran[0] == code, ran
    (line,) = [line for line in ran[2].splitlines() if not line.startswith("anomem: note: ")]
    return line.removeprefix("anomem: error: ")


# ------------------------------------------------------------- what works


def test_lines_say_what_was_written_and_what_to_do_next(shop: Shop, here: Run) -> None:
    code, out, err = here("export", shop.knn, "--out", "knn.onnx", "--check", shop.data / "test")
    assert code == 0, err
    first, second = out.splitlines()
    assert first.startswith("knn: scores within ")
    assert first.endswith("of the model's; written to knn.onnx")
    assert second == "next: anomem score knn.onnx IMAGES"
    assert [line for line in err.splitlines() if not line.startswith("anomem: progress: ")] == []  # of slow machines
    assert files(Path()) == {"knn.onnx"}


def test_an_exported_file_scores_and_draws_as_the_model(shop: Shop, onnx_file: Path, here: Run) -> None:
    found, wanted = (
        outcome(here("score", model, shop.data / "test", "--heatmaps", name, "--json"))
        for name, model in (("found", onnx_file), ("wanted", shop.anomem))
    )
    assert (found["n"], found["alpha"], found["threshold"]) == (10, 0.1, wanted["threshold"])
    for ours, theirs in zip(found["results"], wanted["results"], strict=True):
        assert ours["score"] == pytest.approx(theirs["score"], rel=1e-4)
        assert (ours["path"], ours["p_value"], ours["anomalous"]) == (
            theirs["path"],
            theirs["p_value"],
            theirs["anomalous"],
        )
        drawn, model_drawn = decode(ours["heatmap"]).astype(int), decode(theirs["heatmap"]).astype(int)
        assert np.abs(drawn - model_drawn).max() <= 2  # a colour may round to its neighbour


def test_an_exported_file_is_evaluated_as_the_model(shop: Shop, onnx_file: Path, here: Run) -> None:
    found, wanted = (
        outcome(here("evaluate", model, shop.data, "--report", name, "--json"))
        for name, model in (("found", onnx_file), ("wanted", shop.anomem))
    )
    assert found["image"]["auroc"] == wanted["image"]["auroc"]
    assert found["at_alpha"] == wanted["at_alpha"]
    assert found["pixel"]["auroc"] == pytest.approx(wanted["pixel"]["auroc"], abs=1e-4)
    assert found["n_left_out"] == wanted["n_left_out"]
    assert "<html" in Path("found/report.html").read_text(encoding="utf-8")


def test_alpha_changes_in_the_file(shop: Shop, copy: Path, here: Run) -> None:
    result = outcome(here("calibrate", copy, shop.data / "test" / "good", "--alpha", 0.25, "--json"))
    assert (result["model"], result["n"], result["alpha"]) == (str(copy), 5, 0.25)
    session = Session.open(copy)
    assert session.calibration_.alpha == 0.25
    assert session.calibration_.n == 5
    scored = outcome(here("score", copy, shop.data / "test", "--json"))
    assert scored["alpha"] == 0.25
    assert scored["threshold"] == result["threshold"]


def test_a_calibrated_copy_leaves_the_file_alone(shop: Shop, copy: Path, here: Run) -> None:
    before = copy.read_bytes()
    outcome(here("calibrate", copy, shop.data / "test" / "good", "--alpha", 0.5, "--out", "other.onnx", "--json"))
    assert copy.read_bytes() == before
    assert Session.open("other.onnx").calibration_.alpha == 0.5
    line = error(here("calibrate", copy, shop.data / "test" / "good", "--alpha", 0.5, "--out", "other.xml"), 2)
    assert "keeps its format" in line


def test_what_an_export_costs_is_measured_on_labelled_images(shop: Shop, here: Run) -> None:
    result = outcome(here("export", shop.knn, "--out", "m.onnx", "--eval-data", shop.data, "--max-drop", 0, "--json"))
    assert result["auroc_drop"] == 0.0
    assert result["auroc_drop_on"] == str(shop.data)


# ------------------------------------------------------------- precision


def test_auto_scores_as_the_file_is_calibrated(shop: Shop, onnx_file: Path, here: Run) -> None:
    for model in (shop.knn, onnx_file):
        rows = [
            outcome(here("score", model, *shop.images[:2], "--precision", precision, "--json"))["results"]
            for precision in ("auto", "fp32")
        ]
        assert rows[0] == rows[1]
        for precision in ("bf16", "int8"):
            line = error(here("score", model, *shop.images[:2], "--precision", precision), 2)
            assert f"{model.name}: precision='{precision}', but calibrated in float32" in line


def test_a_model_of_bfloat16_is_calibrated_and_scored_in_it(shop: Shop, here: Run) -> None:
    options = ("--method", "knn", "--set", "size=64", "--set", "precision=bfloat16", "--alpha", 0.1)
    assert here("fit", shop.data, "--out", "half", *options)[0] == 0
    rows = outcome(here("score", "half", *shop.images, "--precision", "auto", "--json"))["results"]
    assert [row["score"] for row in rows] == [r.score for r in library.load("half").score(shop.images)]
    assert outcome(here("score", "half", *shop.images, "--precision", "bf16", "--json"))["results"] == rows
    exact = outcome(here("score", shop.knn, *shop.images, "--json"))["results"]
    assert [row["score"] for row in rows] != [row["score"] for row in exact]
    assert "calibrated in bfloat16" in error(here("score", "half", shop.images[0], "--precision", "fp32"), 2)


# ------------------------------------------------------------- what does not


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--out", "model.pt"], "model.pt: not the suffix of an exported file"),
        (["--out", "model.onnx", "--format", "openvino"], ".onnx (ONNX) or .xml (OpenVINO)"),
        (["--out", "model.onnx", "--precision", "int8"], "ONNX files are fp32"),
        (["--out", "model.xml"], "knn: not exported to OpenVINO"),
        (["--out", "no/model.onnx"], "no/model.onnx: the folder"),
        (["--out", "model.onnx", "--normals", "nowhere"], "nowhere"),
        (["--out", "model.onnx", "--eval-data", "nowhere"], "nowhere"),
        (["--out", "model.onnx", "--check", "nowhere"], "nowhere"),
    ],
)
def test_wrong_arguments_are_named(options: list[str], words: str, shop: Shop, here: Run) -> None:
    assert words in error(here("export", shop.knn, *options), 2)
    assert files(Path()) == set()


@pytest.mark.parametrize("options", [["--precision", "fp16"], ["--max-drop", "2"], ["--format", "tflite"], []])
def test_options_outside_their_range_are_usage_errors(options: list[str], shop: Shop, here: Run) -> None:
    out = ["--out", "model.onnx"] if options else []
    code, text, err = here("export", shop.knn, *out, *options)
    assert code == 2
    assert text == ""
    assert (options[0] if options else "--out") in err
    assert files(Path()) == set()


def test_int8_needs_normals_and_says_so(shop: Shop, here: Run) -> None:
    pytest.importorskip("nncf")
    assert "--normals" in error(here("export", shop.anomem, "--out", "model.xml", "--precision", "int8"), 2)


def test_missing_files_are_named(here: Run) -> None:
    assert "gone.safetensors: " in error(here("export", "gone.safetensors", "--out", "model.onnx"), 2)
    assert "gone.onnx: no such model file" in error(here("score", "gone.onnx", __file__), 2)


def test_an_exported_file_is_exported_and_labelled_from_its_model_only(onnx_file: Path, shop: Shop, here: Run) -> None:
    assert "an exported model" in error(here("export", onnx_file, "--out", "again.onnx"), 2)
    Path("labels.csv").write_text(f"path,label\n{shop.images[0]},1\n")
    assert "an exported model" in error(here("label", onnx_file, "--labels", "labels.csv", "--out", "m"), 2)


def test_other_scores_are_a_failed_check(shop: Shop, here: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(parity.SCORES, "float32", -1.0)  # not even equal scores are let pass
    line = error(here("export", shop.knn, "--out", "model.onnx"), 1)
    assert "exported file: scores differ from the model's by" in line
    assert files(Path()) == set()


def test_damaged_files_are_refused_in_one_line(shop: Shop, copy: Path, here: Run) -> None:
    whole = copy.read_bytes()
    for size in (0, 10, len(whole) // 2, len(whole) - 1):
        copy.write_bytes(whole[:size])
        for command in (["score", copy, shop.data / "test"], ["evaluate", copy, shop.data]):
            assert "copy.onnx: not an ONNX model, or damaged" in error(here(*command), 2)
        line = error(here("calibrate", copy, shop.data / "test" / "good", "--alpha", 0.5), 2)
        assert "copy.onnx: not an ONNX model, or damaged" in line
        assert copy.read_bytes() == whole[:size]


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent otherwise there")
def test_an_interrupted_export_leaves_nothing(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_text("an older one")
    command = [*COMMAND, "export", str(shop.anomem), "--out", "model.onnx"]
    with running(command, cwd=tmp_path, env=environment()) as process:
        while not list(tmp_path.glob(".model-*")):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (130, "")
    assert err.splitlines()[-1] == "anomem: interrupted; nothing was written"
    assert files(tmp_path) == {"model.onnx"}
    assert (tmp_path / "model.onnx").read_text() == "an older one"
