"""Groups and found folders in the commands that fit and calibrate."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import anomem as library
from tests.cli.process import KNN, Run, Shop


def test_groups_count_in_fit_and_calibrate(shop: Shop, here: Run) -> None:
    by = ("--group-by", r"(\d+)\d\.png$")  # ten images of one tens digit
    code, out, err = here("fit", shop.data, "--out", "m", *KNN, *by, "--json")
    assert code == 0, err
    facts = json.loads(out)
    assert (facts["n_groups"], facts["alpha_min"], facts["alpha"]) == (1, 0.5, 0.5)
    assert facts["found"]["parts"][0] == "train: 30 normal in train/good"
    code, out, err = here("calibrate", "m", shop.data / "test" / "good", "--alpha", 0.4, *by)
    assert code == 2
    assert "alpha 0.4 needs 2 calibration groups of normals and there are 1; add 1 more" in err
    code, out, _ = here("calibrate", "m", shop.data / "test" / "good", "--alpha", 0.5, *by)
    assert code == 0
    assert "calibrated on 5 normal images in 1 group (smallest attainable alpha 0.5)" in out
    for nothing in ("xyz", "", "z*"):
        code, _, err = here("fit", shop.data, "--out", "m", *KNN, "--group-by", nothing)
        assert (code, "matches none of 30 paths" in err) == (2, True)


def test_calibrate_never_takes_defects_for_normals(shop: Shop, here: Run, tmp_path: Path) -> None:
    lot = tmp_path / "lot" / "parts"
    shutil.copytree(shop.data / "test" / "good", lot / "good")
    (lot / "bad").mkdir()
    for path in [path for path in shop.images if path.parent.name != "good"]:
        shutil.copy(path, lot / "bad" / f"{path.parent.name}.png")
    shutil.copy(shop.knn, "m")
    code, out, err = here("calibrate", "m", tmp_path / "lot", "--alpha", 0.2, "--json")
    assert code == 0, err
    facts = json.loads(out)
    assert facts["n"] == 5
    assert facts["found"]["parts"] == ["train: 5 normal in good", "test: 5 anomalous in bad"]
    model = library.load(shop.knn).calibrate(tmp_path / "lot", 0.2)
    assert model.calibration_.n == 5
