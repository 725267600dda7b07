"""Commands label and calibrate."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import anomem as library
from tests.cli.process import FIT_KEYS, Run, Shop, defects, files, goods, write_labels

CALIBRATE_KEYS = {"model", "n", "alpha", "threshold", "alpha_min", "rate_limit_95"}


# --- label ------------------------------------------------------------------------------------


def test_label_refits_the_second_stage(shop: Shop, here: Run, tmp_path: Path) -> None:
    labels = write_labels(tmp_path / "l.csv", [(path, 1) for path in defects(shop)], shop)
    before = shop.anomem.read_bytes()
    code, out, err = here("label", shop.anomem, "--labels", labels, "--out", "m2", "--json")
    assert code == 0, err
    facts = json.loads(out)
    assert set(facts) >= FIT_KEYS
    assert facts["n_labelled"] == 5
    assert facts["n_calibration"] == shop.fitted["anomem"]["n_calibration"]
    assert facts["alpha"] == 0.1
    assert shop.anomem.read_bytes() == before
    model = library.load("m2")
    assert model.counts_["n_labelled"] == 5
    # Labelled images are known to the model, so that an evaluation leaves them out.
    assert len(model.digests_) == 35


def test_label_works_in_place_too(shop: Shop, here: Run, tmp_path: Path) -> None:
    model = tmp_path / "m.safetensors"
    shutil.copy(shop.anomem, model)
    labels = write_labels(tmp_path / "l.csv", [(path, 1) for path in defects(shop)[:3]], shop, masks=False)
    code, out, err = here("label", model, "--labels", labels, "--out", model)
    assert code == 0, err
    assert "3 labelled images, 3 anomalous" in out
    assert library.load(model).counts_["n_labelled"] == 3


def test_label_refuses(shop: Shop, here: Run, tmp_path: Path) -> None:
    only_good = write_labels(tmp_path / "g.csv", [(path, 0) for path in goods(shop)], shop)
    some = write_labels(tmp_path / "l.csv", [(path, 1) for path in defects(shop)], shop)
    (tmp_path / "nolabel.csv").write_text(f"path\n{goods(shop)[0]}\n")
    (tmp_path / "gone.csv").write_text("path,label\nno.png,1\n")
    before = files(tmp_path)
    cases = {
        (shop.anomem, "--labels", only_good): "labels: no image is anomalous",
        (shop.knn, "--labels", some): "no second stage",
        (shop.anomem, "--labels", "nolabel.csv"): "no column 'label'",
        (shop.anomem, "--labels", "gone.csv"): "no.png: no such file",
        ("no.safetensors", "--labels", some): "no.safetensors: no such model file",
    }
    for arguments, expected in cases.items():
        code, _, err = here("label", *arguments, "--out", "m")
        assert code == 2
        assert expected in err
    assert files(tmp_path) == before


def test_label_takes_the_export_of_an_annotation_tool(shop: Shop, here: Run, tmp_path: Path) -> None:
    corners = [[20, 20], [60, 20], [60, 70], [20, 70]]
    region = {"value": {"points": corners, "polygonlabels": ["Stain"]}, "original_width": 72, "original_height": 72}
    good = {"value": {"choices": ["good"]}}
    marked = [(path, region) for path in defects(shop)[:3]] + [(path, good) for path in goods(shop)[:2]]
    tasks = [
        {"id": n, "data": {"image": f"/data/upload/1/0a1b2c3d-{path.name}"}, "annotations": [{"result": [result]}]}
        for n, (path, result) in enumerate(((tmp_path / f"{i}.png", r) for i, (_, r) in enumerate(marked)), start=1)
    ]
    for i, (path, _) in enumerate(marked):
        shutil.copy(path, tmp_path / f"{i}.png")
    (tmp_path / "export.json").write_text(json.dumps(tasks))
    code, out, err = here("label", shop.anomem, "--labels", "export.json", "--out", "m")
    assert code == 0, err
    assert "export.json: 5 labelled images, 3 anomalous" in out
    code, _, err = here("label", "m", "--labels", "export.json", "--add", "--out", "m2")
    assert code == 0, err
    assert library.load("m2").counts_["n_labelled"] == 5


# --- calibrate --------------------------------------------------------------------------------


def test_calibrate_promises_another_rate(shop: Shop, here: Run, tmp_path: Path) -> None:
    model = tmp_path / "m.safetensors"
    shutil.copy(shop.knn, model)
    code, out, err = here("calibrate", model, shop.data / "test" / "good", "--alpha", 0.25, "--out", "m2", "--json")
    assert code == 0, err
    facts = json.loads(out)
    assert set(facts) >= CALIBRATE_KEYS
    assert facts["model"] == "m2"
    assert facts["n"] == 5
    assert facts["alpha"] == 0.25
    assert facts["alpha_min"] == pytest.approx(1 / 6)
    assert model.read_bytes() == shop.knn.read_bytes()
    scores = np.sort(library.load(shop.knn).anomaly_score(shop.data / "test" / "good"))
    assert facts["threshold"] == pytest.approx(scores[-1], rel=1e-4)

    code, out, err = here("calibrate", model, shop.data / "test" / "good", "--alpha", 0.25)
    assert code == 0, err
    assert library.load(model).calibration_ == library.load("m2").calibration_
    assert f"written to {model}" in out


def test_calibrate_refuses(shop: Shop, here: Run, tmp_path: Path) -> None:
    model = tmp_path / "m.safetensors"
    shutil.copy(shop.knn, model)
    code, _, err = here("calibrate", model, shop.data / "test" / "good", "--alpha", 0.01)
    assert code == 2
    assert "alpha 0.01 needs 99 calibration normals and there are 5" in err
    code, _, err = here("calibrate", model, "no", "--alpha", 0.1)
    assert code == 2
    assert "no: no such file or folder" in err
    assert model.read_bytes() == shop.knn.read_bytes()


def test_calibrate_leaves_out_what_the_model_learnt_from(shop: Shop, here: Run, tmp_path: Path) -> None:
    code, out, err = here("calibrate", shop.knn, shop.data, "--alpha", 0.2, "--out", tmp_path / "m", "--json")
    assert code == 0, err
    # Of the training folder only the images of the old calibration are new to the model.
    assert json.loads(out)["n"] == shop.fitted["knn"]["n_calibration"]
    assert "anomem: note: left out" in err


# --- model files ------------------------------------------------------------------------------
