"""Strata from fit to file: cameras with scores of their own, saved, loaded, labelled, exported, recalibrated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import anomem
from anomem.detectors import get
from anomem.errors import CalibrationError, InputError
from anomem.modelfile import read_manifest
from anomem.runtime.group_verdicts import judge_groups

pytestmark = pytest.mark.filterwarnings("ignore::anomem.errors.AnomemWarning")

CAMERAS = {"left": (90, 8), "right": (150, 30)}


def picture(camera: str, rng: np.random.Generator) -> np.ndarray:
    level, spread = CAMERAS[camera]
    return (level + rng.normal(0, spread, (48, 48, 3))).clip(0, 255).astype(np.uint8)


def pictures(n: int, seed: int) -> tuple[list[np.ndarray], list[str]]:
    rng = np.random.default_rng(seed)
    cameras = [camera for camera in CAMERAS for _ in range(n)]
    return [picture(camera, rng) for camera in cameras], cameras


def quiet_fit(name: str = "knn", calibration: str = "split", n: int = 40, **options: object) -> anomem.Detector:
    images, cameras = pictures(n, 0)
    return get(name)(size=64).fit(images, strata=cameras, calibration=calibration, **options)


@pytest.mark.parametrize("calibration", ["split", "cross"])
def test_strata_from_the_fit_to_the_file(tmp_path: Path, calibration: str) -> None:
    model = quiet_fit(calibration=calibration)
    found = model.calibration_
    each = 40 if calibration == "cross" else 10
    assert {name: part.n for name, part in found.parts.items()} == {"left": each, "right": each}
    assert found.alpha == found.alpha_min == 1 / (each + 1)
    images, cameras = pictures(20, 1)
    scores = model.anomaly_score(images)
    results = list(model.score(images, strata=cameras))
    for result, score, camera in zip(results, scores, cameras, strict=True):
        assert (result.stratum, result.p_value) == (camera, found.of(camera).p_value(score).item())
        assert result.anomalous == (score > found.of(camera).threshold)
    assert model.predict(images, strata=cameras).tolist() == [int(result.anomalous) for result in results]
    model.save(tmp_path / "m.safetensors")
    loaded = anomem.load(tmp_path / "m.safetensors")
    assert loaded.calibration_ == found
    assert read_manifest(tmp_path / "m.safetensors").calibration["strata"] == ["left", "right"]
    with pytest.raises(CalibrationError, match="stratum 'left': alpha 0.001 needs 999"):
        loaded.set_alpha(0.001)
    assert loaded.set_alpha(0.2).calibration_.of("right").alpha == 0.2


def test_strata_are_required_and_never_guessed() -> None:
    model = quiet_fit()
    images, _ = pictures(1, 2)
    with pytest.raises(InputError, match="strata are required"):
        model.score(images)
    with pytest.raises(InputError, match="stratum 'top' has no calibration normals"):
        model.predict(images, strata=["left", "top"])
    with pytest.raises(InputError, match="strata has 1 entries for 2 images"):
        model.p_value(images, strata=["left"])
    plain = get("knn")(size=64).fit(pictures(20, 0)[0])
    with pytest.raises(InputError, match="one calibration for all images"):
        plain.predict(images, strata=["left", "right"])


def test_a_fit_refuses_strata_before_it_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(get("knn"), "_fit", lambda *_: pytest.fail("has begun to learn"))
    with pytest.raises(CalibrationError, match="stratum 'left': alpha 0.05 needs 19 calibration normals"):
        quiet_fit(alpha=0.05)
    with pytest.raises(InputError, match="equal images, or images of one group, are in two strata"):
        quiet_fit(groups=["same", *range(38), "same", *range(100, 138), "same", 200])
    with pytest.raises(InputError, match="cross-exact counts the normals of all strata together"):
        quiet_fit(calibration="cross-exact")
    images, cameras = pictures(20, 0)
    with pytest.raises(InputError, match="strata has 39 entries for 40 images"):
        get("knn")(size=64).fit(images, strata=cameras[:-1])


def test_labels_leave_strata_as_they_are(tmp_path: Path) -> None:
    model = quiet_fit("anomem", n=30)
    model.save(tmp_path / "m.safetensors")
    loaded = anomem.load(tmp_path / "m.safetensors")
    defects, _ = pictures(3, 5)
    for defect in defects:
        defect[10:30, 10:30] = (255, 0, 0)
    for detector in (model, loaded):
        detector.label(defects)
    found = model.calibration_
    assert found == loaded.calibration_
    assert [part.n for part in found.parts.values()] == [10, 10]


@pytest.mark.parametrize("by", ["strata", "groups"])
def test_strata_and_groups_are_exported(tmp_path: Path, by: str) -> None:
    if by == "strata":
        model = quiet_fit()
    else:
        images, _ = pictures(20, 0)
        model = get("knn")(size=64).fit(images, groups=[i // 2 for i in range(40)], calibration="split")
    model.export(tmp_path / "m.onnx")
    session = anomem.load(tmp_path / "m.onnx")
    assert session.calibration_ == model.calibration_
    if by == "strata":
        images, cameras = pictures(30, 3)
        session.calibrate(images, 0.1, strata=cameras).save()
        assert {part.n for part in anomem.load(tmp_path / "m.onnx").calibration_.parts.values()} == {30}


def test_calibrating_anew(tmp_path: Path) -> None:
    model = quiet_fit()
    images, cameras = pictures(25, 6)
    with pytest.raises(InputError, match="strata are required"):
        model.calibrate(images, 0.05)
    model.calibrate(images, 0.05, strata=cameras)
    assert [part.n for part in model.calibration_.parts.values()] == [25, 25]
    for i, (camera, image) in enumerate(zip(cameras, images, strict=True)):
        (tmp_path / "good" / camera).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(tmp_path / "good" / camera / f"{i}.png")
    model.calibrate(tmp_path, 0.1, strata="folder")
    assert (model.calibration_.strata.by, model.calibration_.alpha) == ("folder", 0.1)
    assert {result.stratum for result in model.score(tmp_path)} == set(CAMERAS)
    with pytest.raises(InputError, match="stratum 'right': no fresh normals of it"):
        model.calibrate(tmp_path / "good" / "left", 0.1)


def test_a_column_of_a_table_names_strata(tmp_path: Path) -> None:
    rows = []
    for i, (image, camera) in enumerate(zip(*pictures(20, 7), strict=True)):
        Image.fromarray(image).save(tmp_path / f"{i}.png")
        rows.append(f"{i}.png,{camera}")
    for column in ("stratum", "Camera"):
        table = tmp_path / f"{column}.csv"
        table.write_text("\n".join([f"path,{column}", *rows]))
        by = {} if column == "stratum" else {"strata": column}
        model = get("knn")(size=64).fit(table, calibration="cross", alpha=0.1, **by)
        assert (model.calibration_.strata.names, model.calibration_.strata.by) == (("left", "right"), column)
        assert [result.stratum for result in model.score(table)] == [row.split(",")[1] for row in rows]
    table.write_text("\n".join(["path,Camera", *rows, "39.png,"]))
    with pytest.raises(InputError, match="contradicts"):
        get("knn")(size=64).fit(table, strata="Camera")


def test_few_fresh_normals_are_blended() -> None:
    images, _ = pictures(25, 0)
    model = get("anomem")(size=64).fit(images, calibration="split")
    assert model.calibration_.n == 10
    fresh, _ = pictures(6, 8)
    with pytest.raises(CalibrationError, match="needs 19 calibration normals and there are 12; add 7 more"):
        model.calibrate(fresh, 0.05)
    model.calibrate(fresh, 0.05, blend=True)
    assert (model.calibration_.n, model.calibration_.blended, model.calibration_.alpha) == (22, 12, 0.05)
    assert model.calibration_.bound == 1 / 13
    with pytest.raises(InputError, match="blended with fresh normals; label the model before, then calibrate"):
        model.label(pictures(1, 9)[0])


def test_a_batch_is_judged_together_and_groups_by_their_highest_score() -> None:
    images, _ = pictures(40, 0)
    model = get("knn")(size=64).fit(images, calibration="cross", groups=[i // 2 for i in range(80)])
    new, _ = pictures(10, 9)
    for image in new[:4]:
        image[10:40, 10:40] = (255, 0, 0)
    assert model.predict(new, fdr=0.2).tolist() == [1] * 4 + [0] * 16
    groups = judge_groups(model.score(new, groups=[i // 2 for i in range(20)]), model.calibration_, fdr=0.2)
    assert [group.anomalous_fdr for group in groups] == [True, True, *[False] * 8]
    assert [len(group.images) for group in groups] == [2] * 10
