"""Detector interface beyond the checks that run for every method; the checks can fail."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image

import anomem
from anomem.data.samples import Sample
from anomem.data.sources import ArraySource
from anomem.data.synthetic import crops, plant
from anomem.detectors.anomem.detector import AnoMem
from anomem.detectors.baselines.knn import KNN, KNNScorer
from anomem.errors import (
    AnomemWarning,
    CalibrationError,
    ImageError,
    InputError,
    NotFittedError,
    ParameterError,
)
from anomem.nn.scorer import Output
from anomem.runtime.model import Scored
from anomem.testing import CHECKS, Example, check_detector
from anomem.testing.example import StopAfter, StoppedError
from anomem.types import Record, UInt8Image

TINY: dict[str, Any] = {"size": 32, "memory_size": (8,)}


@pytest.fixture(scope="module")
def images() -> UInt8Image:
    return crops("brick", 40, size=32, half="train", rng=np.random.default_rng(0))


@pytest.fixture(scope="module")
def defects(images: UInt8Image) -> UInt8Image:
    rng = np.random.default_rng(1)
    return np.stack([plant(image, "hole", rng, 0.5)[0] for image in images[:6]])


@pytest.fixture(scope="module")
def fitted(images: UInt8Image) -> AnoMem:
    return AnoMem(**TINY).fit(images, calibration="split", alpha=0.2)


def _written(folder: Path, images: UInt8Image) -> list[Path]:
    folder.mkdir(parents=True)
    paths = [folder / f"{i:02d}.png" for i in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).save(path)
    return paths


# ------------------------------------------------------------- the checks can fail


@dataclass(kw_only=True, repr=False, eq=False)
class _Eager(KNN):
    def __post_init__(self) -> None:
        self.ready = True


class _Averaging(KNNScorer):
    def forward(self, images: torch.Tensor) -> Output:
        score = super().forward(images).score
        return Output(score + score.mean())


@dataclass(kw_only=True, repr=False, eq=False)
class _BatchBound(KNN):
    def _fit(self, *parts: Any) -> Any:
        scorer = yield from super()._fit(*parts)
        averaging = _Averaging(scorer.config)
        averaging.load_state_dict(scorer.state_dict())
        return averaging


@dataclass(kw_only=True, repr=False, eq=False)
class _Careless(KNN):
    def _memorise(self, *parts: Any) -> Any:
        np.random.random()  # noqa: NPY002
        return (yield from super()._memorise(*parts))


@dataclass(kw_only=True, repr=False, eq=False)
class _Inverted(KNN):
    supervision: ClassVar[Any] = "optional"

    def _fit(self, *parts: Any) -> Any:
        scorer = yield from super()._fit(*parts)
        scorer.embed = lambda features: torch.zeros(len(features[-1]), 1280)
        return scorer


@pytest.mark.parametrize(
    ("cls", "check"),
    [
        (_Eager, "init_only_assigns"),
        (_BatchBound, "batch_size_and_order_do_not_matter"),
        (_Careless, "fit_returns_self_and_spares_the_global_random_state"),
        (_Inverted, "defects_rank_above_normals"),
        (_Inverted, "labels_count_as_the_class_says"),
    ],
)
def test_a_broken_detector_is_caught(cls: type[KNN], check: str) -> None:
    with pytest.raises(AssertionError) as caught:
        check_detector(cls, only=[check])
    assert any(cls.__name__ in note and check in note for note in caught.value.__notes__)


def test_a_skip_stands_on_the_class_with_its_reason() -> None:
    class Excused(_Eager):
        contract_skips: ClassVar[dict[str, str]] = {"init_only_assigns": "it is a test"}

    assert check_detector(Excused, only=["init_only_assigns"]) == {"init_only_assigns": "skipped: it is a test"}
    with pytest.raises(KeyError):
        check_detector(Excused, only=["no_such_check"])


def test_examples_are_made_once() -> None:
    example = Example(KNN)
    assert example.fitted is example.fitted
    assert all(check.__doc__ for check in CHECKS.values())


# ------------------------------------------------------------- images in


def test_every_way_to_give_the_same_images(tmp_path: Path, images: UInt8Image) -> None:
    paths = _written(tmp_path / "normal", images)
    by_path = KNN(size=32).fit(paths, calibration="split", alpha=0.2)
    samples = KNN(size=32).fit([Sample(path, label=0) for path in paths], calibration="split", alpha=0.2)
    folder = KNN(size=32).fit(tmp_path / "normal", calibration="split", alpha=0.2)
    wanted = by_path.anomaly_score(images[:5])
    for other in (samples, folder):
        assert np.array_equal(other.anomaly_score(images[:5]), wanted)
    tensor = torch.from_numpy(images[:5]).permute(0, 3, 1, 2)
    for given in (tmp_path / "normal" / "00.png", tensor, list(images[:5])):
        found = by_path.anomaly_score(given)
        assert found == pytest.approx(wanted[: len(found)], rel=1e-3)


def test_a_fit_never_reads_test_images(tmp_path: Path, images: UInt8Image) -> None:
    _written(tmp_path / "train" / "good", images)
    _written(tmp_path / "test" / "hole", images[:2])[0].write_bytes(b"unreadable")
    assert sum(KNN(size=32).fit(tmp_path, calibration="split", alpha=0.2).counts_.values()) == 40


def test_unreadable_images_are_left_out_of_a_fit_on_request(tmp_path: Path, images: UInt8Image) -> None:
    paths = _written(tmp_path / "normal", images)
    paths[3].write_bytes(paths[3].read_bytes()[:100])
    with pytest.raises(ImageError, match=r"03\.png"):
        KNN(size=32).fit(paths, calibration="split", alpha=0.2)
    with pytest.warns(AnomemWarning, match="left out 1 unreadable"):
        detector = KNN(size=32).fit(paths, calibration="split", alpha=0.2, skip_bad=True)
    assert sum(detector.counts_.values()) == 39


def test_unreadable_images_are_left_out_of_labels_on_request(
    tmp_path: Path, fitted: AnoMem, defects: UInt8Image
) -> None:
    paths = _written(tmp_path / "defects", defects)
    bad = tmp_path / "defects" / "bad.png"
    bad.write_bytes(b"\x89PNG and nothing")
    one, other = (copy.copy(fitted) for _ in range(2))
    with pytest.warns(AnomemWarning, match="left out 1 unreadable"):
        one.label([*paths, bad], skip_bad=True)
    other.label(paths)
    assert one.counts_["n_labelled"] == len(paths)
    assert np.array_equal(one.anomaly_score(defects), other.anomaly_score(defects))


@pytest.mark.parametrize("n", [0, 1, 2])
def test_too_few_images(images: UInt8Image, n: int) -> None:
    with pytest.raises(InputError):
        KNN(size=32).fit(images[:n])


def test_equal_images_are_one(images: UInt8Image) -> None:
    with pytest.raises(InputError, match="only 1 that may be separated"):
        KNN(size=32).fit(np.repeat(images[:1], 40, axis=0))


def test_masks_of_another_size_are_refused(images: UInt8Image, defects: UInt8Image, fitted: AnoMem) -> None:
    detector = copy.copy(fitted)
    with pytest.raises(InputError, match="masks have their image's size"):
        detector.label(defects, masks=[np.ones((5, 5), bool)] * len(defects))
    with pytest.raises(InputError, match="masks has 1 entries for 6 images"):
        detector.label(defects, masks=[None])


# ------------------------------------------------------------- call arguments


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"batch_size": 0}, "batch_size=0"),
        ({"fit_precision": "int8"}, "fit_precision='int8'"),
        ({"device": "warp drive"}, "device='warp drive'"),
        ({"workers": -1}, "workers"),
    ],
)
def test_wrong_call_arguments_are_named(images: UInt8Image, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ParameterError, match=said):
        KNN(size=32).fit(images, **options)


def test_an_unknown_call_argument_is_a_type_error(images: UInt8Image) -> None:
    with pytest.raises(TypeError, match="epochs"):
        KNN(size=32).fit(images, epochs=3)


def test_alpha_by_default_and_on_demand(images: UInt8Image) -> None:
    with pytest.warns(AnomemWarning) as caught:
        detector = KNN(size=32).fit(images)
    assert len(caught) == 1
    assert detector.calibration_.alpha == pytest.approx(1 / 41)
    with pytest.raises(CalibrationError, match=r"9 more|needs|need"):
        KNN(size=32).fit(images, calibration="split", alpha=0.05)


class Untouched(ArraySource):
    """Images that nobody may load."""

    def load_with_digest(self, i: int) -> tuple[UInt8Image, int]:
        raise RuntimeError("decoded")


def test_a_wrong_alpha_is_found_before_the_work(images: UInt8Image) -> None:
    with pytest.raises(CalibrationError):
        KNN(size=32).fit(Untouched(images), calibration="split", alpha=0.001)


def test_fresh_normals_keep_the_present_alpha_where_they_carry_it(images: UInt8Image) -> None:
    detector = KNN(size=32).fit(images[:30], calibration="split", alpha=0.3)
    detector.calibrate(images[30:], batch_size=4)
    assert detector.calibration_.alpha == 0.3
    with pytest.warns(AnomemWarning, match="allow a false-alarm rate of 0.333, not 0.01; add 97 more"):
        detector.calibrate(images[30:32])
    assert detector.calibration_.alpha == pytest.approx(1 / 3)
    with pytest.raises(ParameterError, match="batch_size"):
        detector.anomaly_score(images[:1], batch_size=0)


def test_every_file_is_a_step_of_the_fit_and_of_calibrating(images: UInt8Image) -> None:
    detector = KNN(size=32)
    steps: list[tuple[str, int, int]] = []

    def told(record: Record) -> None:
        steps.append((record.stage, record.step, record.total))

    detector.fit(images[:30], calibration="split", alpha=0.3, progress=told)
    assert [step for step in steps if step[0] == "files"] == [("files", i, 30) for i in range(1, 31)]
    before = detector.calibration_
    with pytest.raises(StoppedError):
        detector.calibrate(images[30:], 0.2, progress=StopAfter(2))
    assert detector.calibration_ is before, "an interrupted calibration changes nothing"
    steps.clear()
    detector.calibrate(images[30:], 0.2, progress=told)
    assert steps == [("calibrate", i + 1, len(images) - 30) for i in range(len(images) - 30)]
    assert detector.calibration_.n == len(images) - 30


def test_a_wrong_alpha_of_fresh_normals_is_found_before_the_work(images: UInt8Image, fitted: AnoMem) -> None:
    with pytest.raises(CalibrationError):
        copy.copy(fitted).calibrate(Untouched(images), 0.001)


# ------------------------------------------------------------- results


def test_scoring_is_lazy_and_in_order(images: UInt8Image, fitted: AnoMem) -> None:
    loaded: list[int] = []

    class Watched(ArraySource):
        def load_with_digest(self, i: int) -> tuple[UInt8Image, int]:
            loaded.append(i)
            return super().load_with_digest(i)

    results = fitted.score(Watched(images), batch_size=2, workers=0)
    assert next(iter(results)).index == 0
    assert loaded == [0, 1]
    assert [r.index for r in results] == list(range(1, 40))


def test_a_result_says_all_that_is_asked(tmp_path: Path, images: UInt8Image, fitted: AnoMem) -> None:
    (path,) = _written(tmp_path / "one", images[:1])
    (result,) = fitted.score(path, maps=True)
    assert isinstance(result, Scored)
    assert (result.name, result.error) == (str(path), None)
    assert (result.map.shape, result.map.dtype) == ((32, 32), np.float32)
    assert fitted.score(path, maps=False).__next__().map is None  # type: ignore[attr-defined]


def test_maps_of_different_sizes_are_a_list(fitted: AnoMem) -> None:
    sizes = [(40, 30), (30, 40), (64, 64)]
    maps = fitted.anomaly_map([np.full((*size, 3), 90, np.uint8) for size in sizes])
    assert isinstance(maps, list)
    assert [m.shape for m in maps] == sizes


def test_history_counts_and_scale(images: UInt8Image, fitted: AnoMem) -> None:
    assert fitted.counts_ == {"n_train": 22, "n_tune": 8, "n_calibration": 10, "n_labelled": 0}
    assert len(fitted.digests_) == 40
    assert len(fitted.history_) < 30, "one line a stage, not one a batch"
    assert fitted.history_[-1].stage == "calibrate"
    low, high = fitted.map_scale_
    maps = np.asarray(fitted.anomaly_map(images))
    assert low < high
    assert 0.05 < (maps > low).mean() < 0.8, "dark is a normal pixel"


def test_every_step_is_told(images: UInt8Image) -> None:
    records: list[Record] = []
    AnoMem(**TINY).fit(images, calibration="split", alpha=0.2, progress=records.append)
    assert {r.stage for r in records} >= {"features", "memory", "tune", "calibrate"}
    assert all(1 <= r.step <= r.total for r in records)


def test_a_wrong_parameter_unfits_nothing_silently(images: UInt8Image, fitted: AnoMem) -> None:
    detector = copy.copy(fitted)
    detector.set_params(size=1)
    with pytest.raises(ParameterError, match="size=1"):
        detector.fit(images)
    with pytest.raises(NotFittedError):
        detector.anomaly_score(images)


@pytest.mark.parametrize("how", [np.asarray, torch.tensor, list, tuple])
def test_labels_of_every_kind(images: UInt8Image, how: Callable[[list[int]], Any]) -> None:
    detector = KNN(size=32).fit(images, how([0] * 38 + [-1] * 2), calibration="split", alpha=0.2)
    assert sum(detector.counts_.values()) == 38


# ------------------------------------------------------------- labels that accumulate


def test_added_labels_are_as_all_at_once(
    images: UInt8Image, fitted: AnoMem, defects: UInt8Image, tmp_path: Path
) -> None:
    paths = _written(tmp_path / "defects", defects)
    together, added = copy.copy(fitted), copy.copy(fitted)
    together.label(paths[:5])
    added.label(paths[:3])
    added.save(tmp_path / "m")
    added = anomem.load(tmp_path / "m")  # type: ignore[assignment]
    added.label(paths[2:5], add=True)
    assert added.counts_["n_labelled"] == 5
    assert np.array_equal(added.calibration_.scores, together.calibration_.scores)
    assert np.array_equal(added.anomaly_score(images[:3]), together.anomaly_score(images[:3]))


def test_labels_are_added_to_files_that_are_as_they_were(fitted: AnoMem, defects: UInt8Image, tmp_path: Path) -> None:
    paths = _written(tmp_path / "defects", defects)
    detector = copy.copy(fitted).label(paths[:2])
    with pytest.raises(InputError, match="as image files, not as arrays"):
        copy.copy(detector).label(defects[2:3], add=True)
    with pytest.raises(InputError, match="does not know the files of its earlier labels"):
        copy.copy(fitted).label(defects[:2]).label(paths[2:3], add=True)
    Image.fromarray(defects[5]).save(paths[0])
    with pytest.raises(InputError, match=r"00\.png: has changed since it was labelled"):
        copy.copy(detector).label(paths[2:3], add=True)
    paths[0].unlink()
    with pytest.raises(InputError, match=r"00\.png: .*it was labelled earlier; put it back"):
        copy.copy(detector).label(paths[2:3], add=True)
