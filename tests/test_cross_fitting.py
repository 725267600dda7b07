"""Cross-fitted calibration against slow references: folds, standardisation, p-values, labels, files."""

from __future__ import annotations

import copy
import csv
import dataclasses
import functools
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

import anomem
from anomem.cross_fitting import cross_fit
from anomem.data.imageset import ImageSet
from anomem.data.sources import open_source
from anomem.data.splits import fold_normals
from anomem.data.synthetic import DEFECTS, crops, plant
from anomem.detector import Detector
from anomem.detectors import get
from anomem.errors import AnomemWarning, CalibrationError, ExportError, InputError, ParameterError
from anomem.fitting import Run, make_run, read_preprocessing
from anomem.nn import kept_maps
from anomem.nn.fold_scorer import FoldScorer
from anomem.nn.scorer import MapScorer, TwoStageScorer
from anomem.runtime.calibration import Calibration, calibrate
from anomem.runtime.images import write_png
from anomem.runtime.progress import run_to_end

CLOSED = (
    "anomem",
    "padim",
    "knn",
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("kmeans", "ocsvm", "iforest")),  # pooled as knn
)
SIDE = 64
Images = npt.NDArray[np.uint8]


@pytest.fixture(scope="module")
def bricks() -> tuple[Images, Images]:
    rng = np.random.default_rng(3)
    return crops("brick", 24, size=SIDE, half="train", rng=rng), crops("brick", 8, size=SIDE, half="test", rng=rng)


def tiny(name: str, **params: Any) -> Detector:
    return get(name)(**{**get(name).test_params, **params})


@functools.cache
def crossed(name: str) -> Detector:
    """A method fitted to bricks with cross calibration, for all tests that change nothing in it."""
    train = crops("brick", 24, size=SIDE, half="train", rng=np.random.default_rng(3))
    return tiny(name).fit(train, alpha=0.2, calibration="cross", device="cpu", workers=0)


def prepared(detector: Detector, images: Images, batch_size: int = 16) -> tuple[ImageSet, Run[Any]]:
    run = make_run(detector.resolve(), device="cpu", fit_precision="float32", batch_size=batch_size, workers=0)
    return ImageSet(open_source(images), read_preprocessing(run.params), workers=0), run


def fresh(run: Run[Any]) -> Run[Any]:
    return dataclasses.replace(run, rng=torch.Generator().manual_seed(run.params.seed))


def by_hand(detector: Any, images: ImageSet, folds: npt.NDArray[np.intp], run: Run[Any]) -> list[float]:
    """Out-of-sample scores by one fit per fold on decoded images, and a standardisation on the other folds."""
    n, norms = len(images), {}
    backbone = detector._empty(fresh(run), images.preprocessing.hw).backbone
    for fold in sorted(set(folds.tolist())):
        scorer = detector._empty(fresh(run), images.preprocessing.hw, backbone)
        run_to_end(detector._memorise(scorer, images.subset(np.flatnonzero(folds != fold)), fresh(run)))
        for i in np.flatnonzero(folds == fold):
            (batch,) = images.subset([i]).batches(1)
            with torch.inference_mode():
                norms[int(i)] = scorer.deviation_of(scorer.backbone(batch.images)).norms
    scores, judge = [], detector._empty(fresh(run), images.preprocessing.hw, backbone)
    for i in range(n):
        others = [norms[j] for j in range(n) if folds[j] != folds[i]]
        judge.standardise_on([torch.cat(scale) for scale in zip(*others, strict=True)])
        with torch.inference_mode():
            scores.append(float(judge.fuse(norms[i]).score))
    return scores


@pytest.mark.parametrize("name", CLOSED)
def test_scores_are_those_of_fits_by_hand(name: str, bricks: tuple[Images, Images]) -> None:
    detector = tiny(name)
    images, run = prepared(detector, bricks[0][:12])
    folds = np.arange(12) % 3
    fit = run_to_end(cross_fit(detector, images, folds, run))  # type: ignore[arg-type]
    found, expected = [r.one_class for r in fit.results], by_hand(detector, images, folds, run)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3 * np.ptp(expected))
    assert [r.index for r in fit.results] == list(range(12))


@pytest.mark.parametrize("name", CLOSED)
def test_the_final_memory_is_that_of_all_normals(name: str, bricks: tuple[Images, Images]) -> None:
    train, test = bricks
    detector: Any = crossed(name)
    images, run = prepared(detector, train)
    scorer = detector._empty(fresh(run), images.preprocessing.hw)
    run_to_end(detector._memorise(scorer, images, fresh(run)))
    for batch in ImageSet(open_source(test), images.preprocessing, workers=0).batches(8):
        with torch.inference_mode():
            maps = scorer.backbone(batch.images)
            alone, final = scorer.deviation_of(maps), detector.scorer_.deviation_of(maps)
    for one, other in zip(alone.norms, final.norms, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3 * float(one.abs().max()))


@pytest.mark.parametrize("name", ["knn", "padim", "anomem"])
def test_an_image_reaches_no_score_of_its_own_fold(name: str, bricks: tuple[Images, Images]) -> None:
    detector = tiny(name, **({"standardise": "none"} if name == "anomem" else {}))
    folds = np.arange(12) % 3
    poisoned = bricks[0][:12].copy()
    poisoned[4] = np.random.default_rng(0).integers(0, 256, poisoned[4].shape)  # fold 1
    before, after = (
        np.asarray([r.one_class for r in run_to_end(cross_fit(detector, *images_and(folds, detector, given))).results])
        for given in (bricks[0][:12], poisoned)
    )
    own = (folds == 1) & (np.arange(12) != 4)
    np.testing.assert_array_equal(before[own], after[own])
    assert (before[folds != 1] != after[folds != 1]).any()


def images_and(folds: npt.NDArray[np.intp], detector: Detector, given: Images) -> tuple[Any, Any, Any]:
    images, run = prepared(detector, given, batch_size=1)
    return images, folds, run


def test_every_normal_learns_and_calibrates(bricks: tuple[Images, Images]) -> None:
    train, test = bricks
    twice = np.concatenate([train, train[:3]])
    detector = tiny("knn").fit(twice, alpha=1 / 25, device="cpu", workers=0)
    assert detector.counts_ == {"n_train": 24, "n_tune": 24, "n_calibration": 24, "n_labelled": 0}
    source = open_source(train)
    assert detector.digests_ == {source.digest(i) for i in range(24)}
    calibration = detector.calibration_
    assert (calibration.kind, calibration.folds, calibration.alpha_min, calibration.bound) == (
        "cross",
        10,
        1 / 25,
        None,
    )
    scores = detector.anomaly_score(test, device="cpu")
    expected = [(1 + (calibration.scores >= s).sum()) / 25 for s in scores]
    np.testing.assert_allclose(detector.p_value(test, device="cpu"), expected)
    with pytest.raises(CalibrationError, match="needs 49"):
        tiny("knn").fit(train, alpha=0.02, device="cpu")


def test_auto_splits_where_cross_cannot_be(bricks: tuple[Images, Images], monkeypatch: pytest.MonkeyPatch) -> None:
    train = bricks[0]
    trained = tiny("anomem", stage_one=None)
    assert trained.fit(train, alpha=0.2, device="cpu", workers=0).calibration_.kind == "cross"
    stage_one = type(trained).from_dict({"stage_one.steps": 1}).stage_one  # type: ignore[attr-defined]
    with pytest.raises(ParameterError, match="calibration='cross': anomem trains.*calibration='split'"):
        tiny("anomem", stage_one=stage_one).fit(train, calibration="cross")
    with pytest.raises(ParameterError, match="expected auto, split"):
        tiny("knn").fit(train, calibration="both")
    monkeypatch.setattr(kept_maps, "MOST_MB", 0)
    with pytest.warns(AnomemWarning, match="a third each"):
        assert tiny("knn").fit(train, alpha=0.2, device="cpu", workers=0).calibration_.kind == "split"
    with pytest.raises(InputError, match="--calibration split"):
        tiny("knn").fit(train, alpha=0.2, calibration="cross", device="cpu", workers=0)


def test_features_in_a_file_give_the_same_model(bricks: tuple[Images, Images]) -> None:
    train, test = bricks
    memory = crossed("anomem")
    file = tiny("anomem").fit(train, alpha=0.2, calibration="cross", features_mb=0, device="cpu", workers=0)
    assert memory.calibration_ == file.calibration_
    np.testing.assert_array_equal(memory.anomaly_score(test, device="cpu"), file.anomaly_score(test, device="cpu"))


def test_tiles_of_an_image_are_scored_together(bricks: tuple[Images, Images]) -> None:
    large = np.concatenate([np.concatenate([bricks[0][:12], bricks[0][12:]], axis=1)] * 2, axis=2)
    detector = tiny("anomem", tile=64).fit(large, alpha=0.2, calibration="cross", device="cpu", workers=0)
    assert detector.calibration_.n == 12
    scorer = detector.scorer_
    assert isinstance(scorer, TwoStageScorer)
    assert len(scorer.tune_evidence) == len(scorer.calibration_evidence) == 12


def test_groups_are_never_separated() -> None:
    rng = np.random.default_rng(1)
    digests = rng.integers(1, 2**62, 60).tolist()
    groups = rng.integers(0, 13, 60).tolist()
    folds = fold_normals(digests, groups, seed=0)
    assert len(set(folds.tolist())) == 5
    assert all(len({int(f) for f, g in zip(folds, groups, strict=True) if g == group}) == 1 for group in set(groups))
    order = rng.permutation(60)
    again = fold_normals([digests[i] for i in order], [groups[i] for i in order], seed=0)
    np.testing.assert_array_equal(again, folds[order])
    assert max(np.bincount(fold_normals(range(50), range(50), seed=1))) == 10
    assert fold_normals(range(49), range(49), seed=1).max() == 9
    with pytest.raises(InputError, match="only 2 that may be separated"):
        fold_normals(range(9), [0, 1] * 4 + [0], seed=0)


def test_fits_count_groups(bricks: tuple[Images, Images]) -> None:
    groups = [f"part {i // 3}" for i in range(24)]
    detector = tiny("knn").fit(bricks[0], groups=groups, alpha=1 / 9, calibration="cross", device="cpu", workers=0)
    assert (detector.calibration_.n, detector.calibration_.n_groups, detector.calibration_.folds) == (24, 8, 8)


@pytest.mark.parametrize("name", CLOSED)
def test_a_loaded_model_is_the_fitted_one(name: str, bricks: tuple[Images, Images], tmp_path: Path) -> None:
    detector, test = crossed(name), bricks[1]
    detector.save(tmp_path / "m")
    loaded = anomem.load(tmp_path / "m")
    assert isinstance(loaded, Detector)
    assert loaded.calibration_ == detector.calibration_
    assert (loaded.calibration_.kind, loaded.suspects_) == ("cross", detector.suspects_)
    np.testing.assert_array_equal(loaded.anomaly_score(test, device="cpu"), detector.anomaly_score(test, device="cpu"))


@pytest.fixture(scope="module")
def labelled(bricks: tuple[Images, Images]) -> tuple[Detector, Images]:
    train = bricks[0]
    detector = tiny("anomem", **{"stage_two.weight": 0.4})
    detector.fit(train, alpha=0.2, calibration="cross", device="cpu", workers=0)
    rng = np.random.default_rng(0)
    return detector, np.stack([plant(image, DEFECTS[0], rng, 0.4)[0] for image in bricks[1][:4]])


def test_labels_reach_a_fold_without_its_normals(labelled: tuple[Detector, Images]) -> None:
    detector, defects = labelled
    scorer = detector.scorer_
    assert isinstance(scorer, TwoStageScorer)
    folds = scorer.folds.numpy()
    one, other = (i for i in np.flatnonzero(folds == 2)[:2])
    scores = []
    for amount in (0.0, 3.0):
        changed = copy.copy(detector)
        altered = copy.deepcopy(scorer)
        altered.tune_evidence[other] += amount
        changed._fitted = detector._state().replaced(scorer=altered)
        changed.label(defects, device="cpu", workers=0)
        refitted = changed.scorer_
        assert isinstance(refitted, TwoStageScorer)
        scores.append(refitted.calibration_scores().numpy())
    assert scores[0][one] == scores[1][one]
    assert (scores[0][folds != 2] != scores[1][folds != 2]).all()


def test_labels_are_kept_with_the_kind(labelled: tuple[Detector, Images], tmp_path: Path) -> None:
    detector, defects = copy.copy(labelled[0]), labelled[1]
    detector.save(tmp_path / "before")
    later = anomem.load(tmp_path / "before")
    detector.label(defects, device="cpu", workers=0)
    assert isinstance(later, Detector)
    later.label(defects, device="cpu", workers=0)
    assert later.calibration_ == detector.calibration_
    assert (later.calibration_.kind, later.calibration_.folds, later.calibration_.n) == ("cross", 10, 24)


def test_fresh_normals_calibrate_like_a_split(labelled: tuple[Detector, Images], bricks: tuple[Images, Images]) -> None:
    detector = copy.copy(labelled[0])
    detector.calibrate(bricks[1], 0.2, device="cpu", workers=0)
    assert (detector.calibration_.kind, detector.calibration_.bound, detector.calibration_.n) == ("split", 0.2, 8)
    detector.label(labelled[1], device="cpu", workers=0)
    assert (detector.calibration_.kind, detector.calibration_.n) == ("split", 8)


def test_planted_defects_are_suspects_and_can_be_excluded(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    normals = crops("brick", 40, size=SIDE, half="train", rng=rng)
    normals[7] = 255 - normals[7]
    data = tmp_path / "data"
    data.mkdir()
    for i, image in enumerate(normals):
        write_png(data / f"{i:02d}.png", image)
    detector = tiny("knn").fit(data, alpha=0.1, device="cpu", workers=0)
    worst = detector.suspects_[0]
    assert Path(worst["path"]).name == "07.png"
    assert worst["p_value"] == 1 / 40
    table = tmp_path / "suspects.csv"
    with table.open("w", newline="") as stream:
        csv.writer(stream).writerows([("path", "score", "p_value"), ("data/07.png", 1.0, 0.1)])
    clean = tiny("knn").fit(data, alpha=0.1, exclude=table, device="cpu", workers=0)
    assert (clean.counts_["n_train"], clean.excluded_) == (39, 1)
    assert open_source([data / "07.png"]).digest(0) not in clean.digests_
    with pytest.raises(InputError, match="none of the normal images"):
        tiny("knn").fit(data, exclude=[write_other(tmp_path / "other")], device="cpu")


def write_other(folder: Path) -> Path:
    folder.mkdir()
    write_png(folder / "x.png", np.zeros((SIDE, SIDE, 3), np.uint8))
    return folder / "x.png"


def test_an_extended_fit_calibrates_as_the_earlier(bricks: tuple[Images, Images], tmp_path: Path) -> None:
    for i, image in enumerate(bricks[0]):
        write_png(tmp_path / f"{i:02d}.png", image)
    files = sorted(tmp_path.glob("*.png"))
    with pytest.warns(AnomemWarning, match="a third each"):
        earlier = tiny("knn").fit(files[:20], alpha=0.2, calibration="split", device="cpu", workers=0)
    earlier.save(tmp_path / "m", keep_store=True)
    with pytest.warns(AnomemWarning, match="a third each"):
        more = tiny("knn").fit(files[20:], alpha=0.2, extend=tmp_path / "m", device="cpu", workers=0)
    assert more.calibration_.kind == "split"
    again = tiny("knn").fit(files[20:], alpha=0.2, extend=tmp_path / "m", calibration="cross", device="cpu", workers=0)
    assert (again.calibration_.kind, again.calibration_.n) == ("cross", 24)


def test_kinds_state_their_bound() -> None:
    scores = np.arange(49, dtype=np.float32)
    assert calibrate(scores, 0.1).bound == 0.1
    assert calibrate(scores, 0.1, kind="cross", folds=5).bound is None
    exact = calibrate(scores, 0.1, kind="cross-exact", folds=7).bound
    assert exact == pytest.approx(0.2 + min(2 * (6 / 7) / 8, (1 - 1 / 7) / 8))
    assert calibrate(scores, 0.1) != calibrate(scores, 0.1, kind="cross", folds=5)
    for kind, folds in (("split", 5), ("cross", 0), ("other", 5)):
        with pytest.raises(InputError, match="expected split, cross"):
            Calibration(scores, 0.1, kind=kind, folds=folds)


class Bare(MapScorer):
    """Scorer without network, for the conversion of K scores to one."""

    def __init__(self) -> None:
        super().__init__({})
        self.backbone = torch.nn.Identity()  # type: ignore[assignment]


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("grouped", [False, True])
def test_one_score_has_the_p_value_of_all_folds(ties: bool, grouped: bool) -> None:
    rng = np.random.default_rng(4)
    n, k = 40, 5
    scores = rng.normal(size=n).astype(np.float32).round(0 if ties else 6)
    groups = rng.integers(0, 9, n) if grouped else np.arange(n)
    folds = groups % k
    sizes = np.bincount(groups)
    weights = 1 / sizes[groups]
    scorer = FoldScorer.of(
        [Bare() for _ in range(k)], *(torch.from_numpy(part) for part in (scores, folds.astype(np.int64), weights))
    )
    new = rng.normal(size=(300, k)).astype(np.float32).round(0 if ties else 6)
    new[:3] += 9.0
    new[3:6] -= 9.0
    found = scorer.joined(torch.from_numpy(new)).numpy()
    total = len(set(groups.tolist()))
    expected = [
        (1 + sum(w for s, f, w in zip(scores, folds, weights, strict=True) if s >= x[f])) / (total + 1) for x in new
    ]
    p_values = calibrate(scores, 0.3, groups=groups.tolist(), kind="cross-exact", folds=k).p_value(found)
    assert (p_values >= np.asarray(expected) - 1e-9).all()
    if not ties and not grouped:
        np.testing.assert_allclose(p_values, expected, atol=1e-12)
        free = [x for x, t in zip(new.mean(axis=1), found, strict=True) if x == t]
        assert len(free) > 20, "the mean itself where it has the p-value"


@pytest.mark.parametrize("name", ["knn", "anomem", "padim"])
def test_cross_exact_scores_by_all_folds(name: str, bricks: tuple[Images, Images], tmp_path: Path) -> None:
    train, test = bricks
    detector = tiny(name).fit(train, alpha=0.2, calibration="cross-exact", device="cpu", workers=0)
    np.testing.assert_array_equal(detector.calibration_.scores, crossed(name).calibration_.scores)
    assert (detector.calibration_.kind, detector.calibration_.folds) == ("cross-exact", 10)
    scores = detector.anomaly_score(test, device="cpu")
    detector.save(tmp_path / "m")
    loaded = anomem.load(tmp_path / "m")
    np.testing.assert_array_equal(loaded.anomaly_score(test, device="cpu"), scores)
    assert loaded.calibration_ == detector.calibration_
    with pytest.raises(ExportError, match="calibration='cross'"):
        detector.export(tmp_path / "m.onnx")
    with pytest.raises(InputError, match="takes no labels"):
        detector.label(test, device="cpu")
