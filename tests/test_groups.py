"""Groups from fit to file: bursts are reported, never split, counted once, saved, loaded and recalibrated."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest

import anomem
from anomem.cli.main import run
from anomem.detectors import get
from anomem.errors import AnomemWarning, CalibrationError
from anomem.modelfile import read_manifest

PARTS, SHOTS = 16, 8


def scene(rng: np.random.Generator) -> np.ndarray:
    return np.kron(rng.normal(120, 25, (12, 12, 3)), np.ones((6, 6, 1)))


def frame(of: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return (of + rng.normal(0, 1.5, of.shape)).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def bursts() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [frame(part, rng) for part in [scene(rng) for _ in range(PARTS)] for _ in range(SHOTS)]


def quiet_fit(name: str, images: list[np.ndarray], **options: object) -> anomem.Detector:
    method = get(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AnomemWarning)
        chosen = method(size=64, **({"train_steps": 0} if name == "anomem" else {}))
        return chosen.fit(images, calibration="split", **options)


def test_bursts_are_noted_with_the_fix(bursts: list[np.ndarray]) -> None:
    with pytest.warns(AnomemWarning) as said:
        get("knn")(size=64).fit(bursts)
    (note,) = [str(w.message) for w in said if "near-duplicates" in str(w.message)]
    assert note.startswith("128 of 128 normal images are near-duplicates, in 16 groups (such as image 0 and image 1)")
    assert "groups='near' (--group-by near)" in note


@pytest.mark.parametrize("name", ["knn", "anomem"])
def test_groups_from_the_fit_to_the_file(bursts: list[np.ndarray], tmp_path: Path, name: str) -> None:
    parts = [i // SHOTS for i in range(len(bursts))]
    found, named = (quiet_fit(name, bursts, groups=groups) for groups in ("near", parts))
    assert found.calibration_ == named.calibration_
    calibration = found.calibration_
    assert (calibration.n_groups, calibration.n) == (5, 5 * SHOTS)
    assert calibration.alpha == calibration.alpha_min == 1 / 6
    found.save(tmp_path / "m.safetensors")
    loaded = anomem.load(tmp_path / "m.safetensors")
    assert loaded.calibration_ == calibration
    assert read_manifest(tmp_path / "m.safetensors").calibration["groups"] == 5
    with pytest.raises(CalibrationError, match="needs 9 calibration groups of normals and there are 5"):
        loaded.set_alpha(0.1)


@pytest.mark.filterwarnings("ignore::anomem.errors.AnomemWarning")
def test_groups_are_shown_with_examples(
    bursts: list[np.ndarray], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = {"near": quiet_fit("knn", bursts[:48], groups="near"), "alone": quiet_fit("knn", bursts[:48])}
    for rule, model in models.items():
        model.save(tmp_path / rule)
        facts = anomem.load(tmp_path / rule).groups_
        assert (facts["images"], facts["in_groups"], facts["groups"], facts["largest"]) == (48, 48, 6, SHOTS)
        assert facts["examples"][:2] == [["image 0", "image 1"], ["image 8", "image 9"]]
        assert run(["doctor", str(tmp_path / rule)]) == 0
        line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("groups: "))
        assert line.startswith("groups: 48 of 48 normal images in 6 groups (near")
        assert line.endswith(
            "the largest of 8, such as image 0 and image 1; image 8 and image 9; image 16 and image 17"
        )
        assert ("counted one by one" in line) == (rule == "alone")
    assert quiet_fit("knn", bursts[::SHOTS]).groups_ == {}


def test_labels_leave_groups_as_they_are(bursts: list[np.ndarray], tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    model = quiet_fit("anomem", bursts, groups="near")
    model.save(tmp_path / "m.safetensors")
    model = anomem.load(tmp_path / "m.safetensors")
    defects = [frame(scene(rng), rng) for _ in range(6)]
    for defect in defects:
        defect[20:40, 20:40] = (255, 0, 0)
    model.label(defects)
    calibration = model.calibration_
    assert (calibration.n_groups, calibration.n) == (5, 5 * SHOTS)
    assert np.bincount(calibration.groups).tolist() == [SHOTS] * 5
    scores = model.anomaly_score(bursts)
    of = {np.float32(score): i // SHOTS for i, score in enumerate(scores)}
    parts = [min(of, key=lambda known, score=score: abs(known - score)) for score in calibration.scores]
    assert len({(of[part], group) for part, group in zip(parts, calibration.groups, strict=True)}) == 5


def test_calibrating_on_groups(bursts: list[np.ndarray], tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    model = quiet_fit("knn", bursts, groups="near")
    fresh = [frame(part, rng) for part in [scene(rng) for _ in range(20)] for _ in range(3)]
    model.calibrate(fresh, 0.05, groups="near")
    assert (model.calibration_.n_groups, model.calibration_.n) == (20, 60)
    with pytest.raises(CalibrationError, match="needs 24 calibration groups of normals and there are 20"):
        model.calibrate(fresh, 0.04, groups=[i // 3 for i in range(60)])
    assert model.predict([frame(scene(rng), rng) for _ in range(60)]).mean() < 0.2


def test_single_images_keep_the_first_file_format(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    model = quiet_fit("knn", [frame(scene(rng), rng) for _ in range(30)])
    model.save(tmp_path / "m.safetensors")
    assert read_manifest(tmp_path / "m.safetensors").calibration.keys() == {"alpha", "n", "precision"}
    assert b'"format_version": 1' in (tmp_path / "m.safetensors").read_bytes().replace(b"\\", b"")
