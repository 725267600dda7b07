"""Checkpoints: an interrupted fit continues to the same model, and not to another one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from anomem.data.imageset import ImageSet
from anomem.data.sources import open_source
from anomem.data.synthetic import crops
from anomem.detector import Detector
from anomem.detectors import get
from anomem.errors import AnomemWarning, InputError
from anomem.nn import map_cache
from anomem.nn.views import Feed
from anomem.runtime.preprocess import Preprocessing
from anomem.types import Record, UInt8Image

FAST: dict[str, tuple[str, dict[str, Any]]] = {
    "plume, rate searched": ("plume", {"training.lr": None, "training.steps": 25, "training.epochs": 100}),
    "supervised, head": ("supervised", {"train_steps": 25}),
}
SLOW: dict[str, tuple[str, dict[str, Any]]] = {
    "deepsad": ("deepsad", {"pretrain_steps": 15, "train_steps": 15}),
    "plad": ("plad", {"steps": 25}),
    "anomem, frozen": ("anomem", {"stage_one.steps": 25, "stage_one.batch": 4}),
    "anomem, trained": ("anomem", {"stage_one.steps": 25, "stage_one.train_backbone": "last", "stage_one.batch": 2}),
    "simclr": ("simclr", {"training.steps": 25}),
    "deepsad, images": ("deepsad", {"preset": "paper", "pretrain_steps": 15, "train_steps": 15, "train_batch": 16}),
    "supervised, whole": ("supervised", {"train_steps": 25, "train_backbone": "last", "train_batch": 6}),
    "fyd": ("fyd", {"image_aligner.steps": 15, "training.steps": 15}),
    "pmb": ("pmb", {"train_steps": 25}),
    "memae": ("memae", {"train_steps": 25}),
}


class _CtrlCError(Exception):
    """Interruption by the progress callback."""


def detector_of(case: tuple[str, dict[str, Any]], **changes: Any) -> Detector:
    kind = get(case[0])
    tiny = {} if "preset" in case[1] else kind.test_params
    return kind(**{**tiny, **case[1], **changes})


def images_for(detector: Detector) -> tuple[UInt8Image, list[int] | None]:
    normals = crops("brick", 32, size=48, half="train", rng=np.random.default_rng(0))
    if detector.supervision == "none":
        return normals, None
    return np.concatenate([normals, 255 - normals[:4]]), [0] * 32 + [1] * 4


def fit(detector: Detector, progress: Callable[[Record], object] | None = None, **options: Any) -> Detector:
    images, y = images_for(detector)
    given: dict[str, Any] = {"alpha": 0.2, "device": "cpu", "fit_precision": "float32", "calibration": "split"}
    return detector.fit(images, y, progress=progress, **{**given, **options})


def stopped_after(count: int) -> Callable[[Record], None]:
    """Return a callback that raises at the `count`-th record of the training."""
    trained: list[Record] = []

    def progress(record: Record) -> None:
        if "loss" in record.facts:
            trained.append(record)
        if len(trained) == count:
            raise _CtrlCError

    return progress


def assert_same(found: Detector, expected: Detector) -> None:
    """Compare all that the file of a model holds: tensors, calibration, history without times."""
    mine, theirs = found._state(), expected._state()
    assert mine.scorer.state_dict().keys() == theirs.scorer.state_dict().keys()
    for name, value in mine.scorer.state_dict().items():
        assert torch.equal(value, theirs.scorer.state_dict()[name]), name
    np.testing.assert_array_equal(mine.calibration.scores, theirs.calibration.scores)
    assert mine.map_scale == theirs.map_scale
    assert [without_time(r) for r in mine.history] == [without_time(r) for r in theirs.history]


def without_time(record: Record) -> tuple[Any, ...]:
    facts = {k: v for k, v in record.facts.items() if k != "seconds"}
    return record.stage, record.step, record.total, facts


def check_resumed(case: tuple[str, dict[str, Any]], place: Path) -> None:
    """Stop a fit at each of two records, resume it, and compare with an uninterrupted one."""
    whole = fit(detector_of(case))
    every: dict[str, Any] = {"checkpoint": place, "checkpoint_minutes": 0}
    for resume in (False, True):
        with pytest.raises(_CtrlCError):
            fit(detector_of(case), stopped_after(2 if resume else 1), **every, resume=resume)
    assert_same(fit(detector_of(case), **every, resume=True), whole)


@pytest.mark.parametrize("case", FAST.values(), ids=FAST)
def test_a_resumed_fit_equals_an_uninterrupted_one(case: tuple[str, dict[str, Any]], tmp_path: Path) -> None:
    check_resumed(case, tmp_path / "m.checkpoint")


@pytest.mark.slow
@pytest.mark.parametrize("case", SLOW.values(), ids=SLOW)
def test_a_longer_resumed_fit_equals_an_uninterrupted_one(case: tuple[str, dict[str, Any]], tmp_path: Path) -> None:
    check_resumed(case, tmp_path / "m.checkpoint")


@pytest.mark.parametrize(("cache_mb", "tile"), [(64, None), (0, None), (0, 16)])
def test_a_feed_continues_at_its_position(cache_mb: int, tile: int | None) -> None:
    normals = crops("brick", 10, size=24, half="train", rng=np.random.default_rng(0))
    images = ImageSet(open_source(normals), Preprocessing(size=16, tile=tile), workers=0)
    rng = torch.Generator().manual_seed(0)
    drawn = iter(Feed(images, None, 4, cache_mb, rng))
    for _ in range(4):
        next(drawn)
    state, before = drawn.state(), rng.get_state()
    expected = [next(drawn)[0] for _ in range(9)]
    again = iter(Feed(images, None, 4, cache_mb, rng))
    rng.set_state(before)
    again.restore(state)
    for batch in expected:
        assert torch.equal(next(again)[0], batch)


def test_a_fit_without_training_takes_up_its_extraction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = fit(detector_of(("padim", {})), batch_size=4)
    seen: list[Record] = []

    def progress(record: Record) -> None:
        seen.append(record)
        if sum(r.stage == "features" for r in seen) == 3:
            raise _CtrlCError

    every: dict[str, Any] = {"checkpoint": tmp_path / "m.checkpoint", "checkpoint_minutes": 0, "batch_size": 4}
    with pytest.raises(_CtrlCError):
        fit(detector_of(("padim", {})), progress, **every)
    stored = len(list((tmp_path / "m.checkpoint.features").iterdir()))
    caches: list[map_cache.MapCache] = []
    begin = map_cache.MapCache.__init__

    def watched(self: map_cache.MapCache, *given: Any) -> None:
        begin(self, *given)
        caches.append(self)

    monkeypatch.setattr(map_cache.MapCache, "__init__", watched)
    resumed = fit(detector_of(("padim", {})), **every, resume=True)
    assert stored >= 2
    assert caches[0].hits >= stored
    assert_same(resumed, whole)


def test_a_short_fit_leaves_nothing(tmp_path: Path) -> None:
    fit(detector_of(FAST["supervised, head"]), checkpoint=tmp_path / "m.checkpoint")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def stopped(tmp_path: Path) -> dict[str, Any]:
    """Arguments that resume a fit which was stopped in its training."""
    every: dict[str, Any] = {"checkpoint": tmp_path / "m.checkpoint", "checkpoint_minutes": 0}
    with pytest.raises(_CtrlCError):
        fit(detector_of(FAST["supervised, head"]), stopped_after(1), **every)
    return {**every, "resume": True}


def test_another_parameter_is_refused_by_name(stopped: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"m\.checkpoint: train_steps: 25 in it, 26 now; restore it, or fit without"):
        fit(detector_of(FAST["supervised, head"], train_steps=26), **stopped)


def test_another_alpha_is_refused_by_name(stopped: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"alpha: 0\.2 in it, 0\.3 now"):
        fit(detector_of(FAST["supervised, head"]), **{**stopped, "alpha": 0.3})


def test_another_version_is_refused_by_name(stopped: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anomem.fit_steps.__version__", "99")
    with pytest.raises(InputError, match=r"version: .* in it, '99' now"):
        fit(detector_of(FAST["supervised, head"]), **stopped)


def test_another_image_is_refused_by_name(stopped: dict[str, Any]) -> None:
    detector = detector_of(FAST["supervised, head"])
    images, y = images_for(detector)
    images[7, 0, 0, 0] ^= 1
    with pytest.raises(InputError, match=r"image 7: .* in it, .* now"):
        detector.fit(images, y, alpha=0.2, device="cpu", fit_precision="float32", calibration="split", **stopped)


def test_a_damaged_checkpoint_is_one_line(stopped: dict[str, Any]) -> None:
    stopped["checkpoint"].write_bytes(b"\x08\0\0\0\0\0\0\0{}      ")
    with pytest.raises(InputError, match=r"m\.checkpoint: not a readable checkpoint .*; fit without --resume"):
        fit(detector_of(FAST["supervised, head"]), **stopped)


def test_a_checkpoint_that_cannot_be_written_does_not_end_the_fit(tmp_path: Path) -> None:
    case = FAST["supervised, head"]
    whole = fit(detector_of(case))
    place = tmp_path / "m.checkpoint"
    place.mkdir()
    with pytest.warns(AnomemWarning, match=r"m\.checkpoint: no checkpoint is written .*; the fit continues"):
        found = fit(detector_of(case), checkpoint=place, checkpoint_minutes=0)
    assert_same(found, whole)


def test_resuming_needs_a_place(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="resume: there is no checkpoint"):
        fit(detector_of(SLOW["plad"]), resume=True)
