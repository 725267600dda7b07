"""Strata: calibrations of their own, never pooled; names by column, folder and path."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from anomem.errors import AnomemWarning, CalibrationError, InputError
from anomem.runtime.calibration import Calibration, calibrate
from anomem.runtime.groups import fresh_strata, image_strata, resolve_strata
from anomem.runtime.manifest import Manifest
from anomem.runtime.sources import ArraySource, FileSource
from anomem.runtime.strata import Strata, numbered

LEFT, RIGHT = list(range(19)), [100 + i for i in range(39)]


def two(alpha: float | None = 0.05, by: str = "") -> Calibration:
    return calibrate([*LEFT, *RIGHT], alpha, strata=["left"] * 19 + ["right"] * 39, strata_by=by)


def test_each_stratum_has_the_calibration_of_its_scores_alone() -> None:
    found = two()
    assert found.of("left") == calibrate(LEFT, 0.05)
    assert found.of("right") == calibrate(RIGHT, 0.05)
    scores, strata = [18.5, 18.5, 137.5, 200.0], ["left", "right", "right", "left"]
    wanted = [found.of(name).p_value(score).item() for score, name in zip(scores, strata, strict=True)]
    assert found.p_value(scores, strata).tolist() == wanted == [1 / 20, 1, 2 / 40, 1 / 20]
    assert found.decide(scores, strata).tolist() == [True, False, True, True]
    assert (found.n, found.n_groups, found.alpha_min) == (58, 58, 1 / 20)
    assert found.rate_limit_95 == found.of("left").rate_limit_95


def test_groups_count_within_strata() -> None:
    groups = [i // 3 for i in range(57)] + [-1]
    found = calibrate([*LEFT, *RIGHT], 0.15, groups=[*groups[:18], 50, *range(60, 99)], strata=["a"] * 19 + ["b"] * 39)
    assert (found.of("a").n_groups, found.of("b").n_groups) == (7, 39)
    assert found.of("a") == calibrate(LEFT, 0.15, groups=[*groups[:18], 50])
    with pytest.raises(InputError, match="1 groups of images are in two strata; name groups within strata"):
        calibrate([1, 2, 3, 4], 0.5, groups=["x", "x", "y", "y"], strata=["a", "b", "b", "b"])


def test_a_stratum_too_small_for_alpha_is_refused_with_the_alpha_that_it_carries() -> None:
    words = "stratum 'left': alpha 0.03 needs 33 calibration normals and there are 19; .* use alpha 0.05 or above"
    with pytest.raises(CalibrationError, match=words):
        two(0.03)
    with pytest.raises(CalibrationError, match=words):
        two().with_alpha(0.03)
    with pytest.warns(AnomemWarning, match="19 calibration normals of stratum 'left' allow a false-alarm rate of 0.05"):
        assert two(None).alpha == 1 / 20


def test_an_unseen_stratum_is_never_pooled() -> None:
    found = two()
    with pytest.raises(InputError, match=r"stratum 'top' has no calibration normals, .* \(known: left, right\)"):
        found.p_value([1.0], ["top"])
    for use in (lambda: found.p_value([1.0]), lambda: found.decide([1.0]), lambda: found.threshold):
        with pytest.raises(InputError, match="each"):
            use()
    with pytest.raises(InputError, match="strata are required"):
        found.of(None)


def test_strata_count_in_equality_and_facts() -> None:
    assert two() == two()
    assert two() != two(by="folder")
    assert two() != calibrate([*LEFT, *RIGHT], 0.05)
    assert two(by="camera").facts()["strata"] == ["left", "right"]
    assert two(by="camera").facts()["strata_by"] == "camera"


def test_strata_must_fit_their_scores() -> None:
    with pytest.raises(InputError, match="2 strata for 3 calibration scores"):
        calibrate([1, 2, 3], 0.5, strata=["a", "b"])
    with pytest.raises(InputError, match="do not fit together"):
        Strata(("a", "b"), np.zeros(3, np.intp))
    with pytest.raises(InputError, match="4 for 3 calibration scores"):
        Calibration(np.arange(3, dtype=np.float32), 0.6, strata=numbered(["a"] * 4))


@pytest.mark.parametrize(
    ("rule", "wanted"),
    [("folder", ("left", "right")), (r"cam(\d)", ("1", "2")), (["a", "b"], ("a", "b")), ((1, 2), ("1", "2"))],
)
def test_strata_by_rule(rule: object, wanted: tuple[str, ...]) -> None:
    source = FileSource(["data/left/cam1_07.png", "elsewhere/right/cam2_07.png"])
    assert resolve_strata(rule, source) == wanted  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("cam3", "matches none of 2 paths"),
        ("cam1", r"right/cam2.png: has no stratum, as 1 of 2 images"),
        ("(", "not a regular expression"),
        (["a"], "strata has 1 entries for 2 images"),
        (["a", None], "has no stratum, as 1 of 2"),
    ],
)
def test_strata_that_are_not_known(rule: object, words: str) -> None:
    with pytest.raises(InputError, match=words):
        resolve_strata(rule, FileSource(["left/cam1.png", "right/cam2.png"]))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="strata='folder': these images have no paths; give one entry per image"):
        resolve_strata("folder", ArraySource(np.zeros((2, 8, 8, 3), np.uint8)))


def test_images_are_judged_by_the_rule_of_the_calibration() -> None:
    source = FileSource(["x/left/1.png", "x/right/1.png"])
    assert image_strata(two(by="folder"), None, source) == ("left", "right")
    assert image_strata(two(), ["right", "left"], source) == ("right", "left")
    assert image_strata(calibrate(LEFT, 0.1), None, source) == (None, None)
    with pytest.raises(InputError, match=r"x/top/1.png: stratum 'top' has no calibration normals"):
        image_strata(two(by="folder"), None, FileSource(["x/left/1.png", "x/top/1.png"]))
    with pytest.raises(InputError, match="strata are required"):
        image_strata(two(), None, source)
    with pytest.raises(InputError, match="one calibration for all images"):
        image_strata(calibrate(LEFT, 0.1), ["a", "b"], source)


def test_fresh_normals_keep_the_rule_and_all_strata() -> None:
    source = FileSource(["x/left/1.png", "x/right/1.png"])
    assert fresh_strata(two(by="folder"), None, source, None) == (("left", "right"), "folder")
    assert fresh_strata(calibrate(LEFT, 0.1), "folder", source, "folder") == (("left", "right"), "folder")
    assert fresh_strata(calibrate(LEFT, 0.1), None, source, None) == (None, "")
    with pytest.raises(InputError, match="stratum 'right': no fresh normals of it; give normals of all strata"):
        fresh_strata(two(by="folder"), None, FileSource(["x/left/1.png"]), None)


@pytest.mark.parametrize(
    "change",
    [
        {"strata": []},
        {"strata": "left"},
        {"strata": [1]},
        {"strata_by": None},
        {"blended": 58},
        {"blended": -1},
    ],
)
def test_a_manifest_of_strata_is_checked(change: dict[str, object]) -> None:
    options = {name: {} for name in ("params", "resolved", "architecture", "preprocessing")}
    counts = dict.fromkeys(("n_train", "n_tune", "n_calibration", "n_labelled"), 1)
    facts = two(by="folder").facts()
    common = {**options, "method": "knn", "version": "1", "counts": counts, "precision": "float32", "map_scale": None}
    kept = Manifest(calibration=facts, **common)
    assert Manifest.from_json(kept.to_json()) == kept
    assert '"format_version": 3' in kept.to_json()
    with pytest.raises(Exception, match=next(iter(change)).split("_")[0]):
        Manifest(calibration={**facts, **change}, **common)


def test_the_rate_holds_in_each_stratum_and_not_by_pooling() -> None:
    rng = np.random.default_rng(0)
    own, pooled = [], []
    for _ in range(300):
        scores = np.concatenate([rng.normal(0, 1, 39), rng.normal(3, 1, 39)])
        strata = ["a"] * 39 + ["b"] * 39
        new = rng.normal(3, 1, 200)
        own.append(calibrate(scores, 0.05, strata=strata).decide(new, ["b"] * 200).mean())
        pooled.append(calibrate(scores, 0.05).decide(new).mean())
    assert np.mean(own) <= 0.05 + 2 * np.std(own) / np.sqrt(300)
    assert np.mean(pooled) > 0.06


def test_folder_names_do_not_depend_on_the_place(tmp_path: Path) -> None:
    assert resolve_strata("folder", FileSource([tmp_path / "left" / "1.png"])) == ("left",)
    assert resolve_strata("folder", FileSource([tmp_path / "left.zip" / "1.png"])) == ("left",)
