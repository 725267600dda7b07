"""Strata, batches, groups and shift on the command line."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.process import KNN, Run, Shop

CROSS = ("--calibration", "cross")


@pytest.fixture(scope="module")
def cameras(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Normals of two cameras to fit to, and new images of both; a table with a column camera."""
    root, rng, rows = tmp_path_factory.mktemp("rigs"), np.random.default_rng(0), []
    for part, n in (("fit", 24), ("new", 6)):
        for camera, level in (("left", 80), ("right", 160)):
            (root / part / camera).mkdir(parents=True)
            for i in range(n):
                place = root / part / camera / f"{i}.png"
                pixels = level + rng.normal(0, level / 8, (24, 24, 3))
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(place)
                rows.append((part, place.relative_to(root), camera))
    for part in ("fit", "new"):
        lines = [f"{place},{camera},0" for of, place, camera in rows if of == part]
        (root / f"{part}.csv").write_text("\n".join(["path,camera,label", *lines]))
    return root


def test_strata_from_a_column_to_every_command(cameras: Path, here: Run) -> None:
    by = ("--calibrate-by", "camera")
    code, out, err = here("fit", cameras / "fit.csv", "--out", "m.st", *KNN, *by, *CROSS, "--alpha", 0.05, "--json")
    assert code == 0, err
    facts = json.loads(out)
    assert facts["threshold"] is None
    assert {name: part["n"] for name, part in facts["strata"].items()} == {"left": 24, "right": 24}
    assert facts["alpha_min"] == facts["strata"]["left"]["alpha_min"] == 1 / 25
    code, out, err = here("score", "m.st", cameras / "new.csv", "--fdr", 0.2, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["strata"] == facts["strata"]
    assert [row["stratum"] for row in found["results"]] == ["left"] * 6 + ["right"] * 6
    for row in found["results"]:
        assert row["anomalous"] == (row["score"] > facts["strata"][row["stratum"]]["threshold"])
        assert isinstance(row["anomalous_fdr"], bool)
    assert found["fdr"]["least_rejected"] == 12 / (0.2 * 25) // 1 + 1
    assert found["shift"]["n_calibration"] == 23
    code, out, _ = here("score", "m.st", cameras / "new", "--calibrate-by", "folder", "--out", "r.csv")
    assert code == 0
    with Path("r.csv").open() as stream:
        assert [row["stratum"] for row in csv.DictReader(stream)] == ["left"] * 6 + ["right"] * 6
    code, _, err = here("score", "m.st", cameras / "new")
    assert (code, "strata='camera': matches none of 12 paths" in err) == (2, True)
    code, out, err = here("evaluate", "m.st", cameras / "new.csv", "--fdr", 0.1, "--json")
    assert code == 0, err
    judged = json.loads(out)
    assert (judged["n_normal"], judged["at_fdr"]["fdr"], judged["promise"]["threshold"]) == (12, 0.1, None)
    assert judged["strata"] == facts["strata"]
    assert {row["stratum"] for row in judged["results"]} == {"left", "right"}
    code, out, err = here("calibrate", "m.st", cameras / "new.csv", "--alpha", 0.2, "--json")
    assert code == 0, err
    assert {name: part["n"] for name, part in json.loads(out)["strata"].items()} == {"left": 6, "right": 6}
    code, out, _ = here("doctor", "m.st")
    assert code == 0
    assert "stratum right: n 6" in out


def test_a_small_or_unseen_stratum_is_refused_in_one_line(cameras: Path, here: Run) -> None:
    code, _, err = here(
        "fit", cameras / "fit.csv", "--out", "m", *KNN, *CROSS, "--calibrate-by", "camera", "--alpha", 0.01
    )
    assert code == 2
    assert "stratum 'left': alpha 0.01 needs 99 calibration normals and there are 24; add 75 more" in err
    assert "or use alpha 0.04 or above" in err
    code, _, err = here(
        "fit", cameras / "fit.csv", "--out", "m", *KNN, *CROSS, "--calibrate-by", "camera", "--alpha", 0.1
    )
    assert code == 0, err
    shutil.copytree(cameras / "new" / "left", "top")
    code, _, err = here("score", "m", "top", "--calibrate-by", "folder")
    assert code == 2
    assert "stratum 'top' has no calibration normals, so no alpha below 1 (known: left, right)" in err


def test_a_rule_for_a_model_without_strata_is_refused(shop: Shop, here: Run) -> None:
    code, _, err = here("score", shop.knn, shop.data / "test", "--calibrate-by", "folder")
    assert (code, "the model has one calibration for all images" in err) == (2, True)


def test_groups_and_batches(shop: Shop, here: Run) -> None:
    code, out, err = here("score", shop.knn, shop.data / "test", "--group-by", "folder", "--fdr", 0.3, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert sum(group["n"] for group in found["groups"]) == found["n"] == len(found["results"])
    assert all(group["anomalous"] is None for group in found["groups"] if group["n"] > 1)
    assert found["fdr"]["n_rejected"] == sum(row["anomalous_fdr"] for row in found["results"])
    code, out, err = here("score", shop.knn, shop.data / "test" / "good", "--group-by", r"(\d+)\.png$", "--fdr", 0.3)
    assert code == 0
    assert "at fdr 0.3: " in err
    assert "group 000: 1 image, " in err
    assert out.splitlines()[0].endswith("normal at fdr\t000")


def test_a_shift_names_the_command_that_mends_it(cameras: Path, here: Run, tmp_path: Path) -> None:
    left = cameras / "fit" / "left"
    code, _, err = here("fit", left, "--out", "m", *KNN, *CROSS, "--alpha", 0.1)
    assert code == 0, err
    for i, path in enumerate(sorted(left.glob("*.png"))):
        noisy = np.asarray(Image.open(path)).astype(float) + np.random.default_rng(i).normal(0, 3, (24, 24, 3))
        (tmp_path / "day").mkdir(exist_ok=True)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(tmp_path / "day" / path.name)
    code, out, _ = here("score", "m", "day", "--json")
    assert json.loads(out)["shift"].keys() >= {"p_value", "shifted", "higher", "n_accepted", "n_calibration"}
    code, _, err = here("calibrate", "m", "day", "--alpha", 0.03, "--out", "n")
    assert (code, "alpha 0.03 needs 33 calibration normals and there are 24" in err) == (2, True)
    code, out, err = here("calibrate", "m", "day", "--alpha", 0.03, "--blend", "--out", "n", "--json")
    assert code == 0, err
    facts = json.loads(out)
    assert (facts["calibration"]["blended"], facts["calibration"]["bound"]) == (24, 1 / 25)
