"""Images, fitted detectors and refusal messages that the contract's checks share."""

from __future__ import annotations

import copy
import random
import warnings
from collections.abc import Callable, Hashable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch

from anomem.data.sources import open_source
from anomem.data.synthetic import DEFECTS, crops, plant
from anomem.detector import Detector
from anomem.types import FloatArray, ImagesLike, Record, UInt8Image

SIDE = 64
TOLERANCE = 1e-4
"""Tolerance relative to the range of scores, for a changed order of additions."""


class Example:
    """Photographs of bricks, some with planted defects, and detectors fitted to them on demand.

    Parameters
    ----------
    cls : type
        Detector class.
    calibration : {"split", "auto"}
        Calibration of the fits.

    Attributes
    ----------
    train : ndarray
        Normal images, (48, 64, 64, 3) uint8.
    normal, defective : ndarray
        Images to score, (15, 64, 64, 3) uint8 each; ``masks`` (15, 64, 64) are the defects' pixels.
    labelled : ndarray
        Defects to learn from, (8, 64, 64, 3) uint8.
    """

    def __init__(self, cls: type[Detector], calibration: str = "split") -> None:
        self.cls, self.calibration = cls, calibration
        rng = np.random.default_rng(0)
        self.train = crops("brick", 48, size=SIDE, half="train", rng=rng)
        self.normal = crops("brick", 15, size=SIDE, half="test", rng=rng)
        found = planted(crops("brick", 15, size=SIDE, half="test", rng=rng), rng)
        self.defective, self.masks = (np.stack(part) for part in zip(*found, strict=True))
        self.labelled = np.stack([image for image, _ in planted(self.train[:8], rng)])
        self.mixed = np.concatenate([self.normal, self.defective])
        self.required = cls.supervision == "required"

    def new(self, **params: Any) -> Detector:
        """Return an unfitted detector with tiny parameters."""
        return self.cls(**{**self.cls.test_params, **params})

    def fit(
        self,
        detector: Detector | None = None,
        images: ImagesLike = None,
        y: Sequence[int] | None = None,
        *,
        alpha: float | None = 0.2,
        groups: Sequence[Hashable | None] | None = None,
        batch_size: int = 16,
    ) -> Detector:
        """Fit to normals (with labelled defects where the method requires them)."""
        images, y = self.given(self.train if images is None else images, y)
        chosen = detector or self.new()
        options: dict[str, Any] = {"groups": groups, "alpha": alpha, "batch_size": batch_size}
        return chosen.fit(images, y, calibration=self.calibration, device="cpu", **options)

    def given(self, images: Any, y: Sequence[int] | None = None, *, labels: bool = False) -> tuple[Any, Any]:
        """Add labelled defects to normals where they are required, or asked for."""
        if y is not None or not (labels or self.required):
            return images, y
        return np.concatenate([images, self.labelled]), [0] * len(images) + [1] * len(self.labelled)

    def score(
        self, detector: Detector, images: ImagesLike = None, *, batch_size: int = 16, workers: int | None = None
    ) -> FloatArray:
        """Score on the CPU, by default the images of :attr:`mixed`."""
        images = self.mixed if images is None else images
        return detector.anomaly_score(images, batch_size=batch_size, workers=workers, device="cpu")

    @cached_property
    def fitted(self) -> Detector:
        """Fitted detector that all checks share; none may change it."""
        return self.fit()

    @cached_property
    def scores(self) -> FloatArray:
        """Scores of :attr:`mixed` by the shared detector."""
        return self.score(self.fitted)

    @cached_property
    def again(self) -> tuple[Detector, Detector, list[str]]:
        """Second fit under another global random state, with four images labelled -1 beside the others.

        Returned value, detector, stages that changed that state.
        """
        detector = self.new()
        changed: list[str] = []
        images, y = self.given(self.train)
        y = [*([0] * len(images) if y is None else y), *[-1] * 4]
        images = np.concatenate([images, self.normal[:4]])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(20_000)
            state = random_state()

            def watch(record: Record) -> None:
                if random_state() != state:
                    changed.append(record.stage)

            options: dict[str, Any] = {"calibration": self.calibration, "alpha": 0.2, "batch_size": 16}
            found = detector.fit(images, y, device="cpu", progress=watch, **options)
        return found, detector, changed

    @cached_property
    def smaller(self) -> Detector:
        """Shared detector fitted to two thirds of the normal images."""
        return self.fit(images=self.train[:32])

    @cached_property
    def reduced(self) -> Detector:
        """Shared detector of bfloat16 and another seed."""
        return self.fit(self.new(precision="bfloat16", seed=1))

    @cached_property
    def with_labels(self) -> tuple[Detector, list[str]]:
        """Shared detector fitted to normals and labelled defects, and the warnings of that fit."""
        images, y = self.given(self.train, labels=True)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            detector = self.fit(images=images, y=y)
        return detector, [str(w.message) for w in caught]

    @cached_property
    def refitted(self) -> Detector:
        """Shared copy of :attr:`fitted` whose second stage is refitted to the labelled defects."""
        return copy.copy(self.fitted).label(self.labelled, device="cpu")

    def calibration_images(self, detector: Detector) -> UInt8Image:
        """Return the images of :attr:`train` that `detector` was calibrated on."""
        source = open_source(self.train)
        return self.train[[source.digest(i) in digests(detector)["calibration"] for i in range(len(source))]]


def planted(images: UInt8Image, rng: np.random.Generator) -> list[tuple[Any, Any]]:
    """Plant one large defect in each image: pairs of image and mask."""
    return [plant(image, DEFECTS[i % len(DEFECTS)], rng, 0.4) for i, image in enumerate(images)]


def require(condition: object, promise: str) -> None:
    """Raise AssertionError with the broken claim, unless it holds."""
    if not condition:
        raise AssertionError(promise)


def refused(kind: type[Exception], call: Callable[[], object], what: str) -> str:
    """Return the one-line message with which `call` is refused."""
    try:
        call()
    except kind as error:
        require("\n" not in str(error), f"{what}: the error is one line")
        return str(error)
    raise AssertionError(f"{what}: {kind.__name__} was expected, nothing was raised")


def require_close(found: FloatArray, wanted: FloatArray, scale: FloatArray, promise: str) -> None:
    """Require equality up to rounding: :data:`TOLERANCE` of the range of the scores `scale`."""
    require(found.shape == wanted.shape, f"{promise}: {found.shape} instead of {wanted.shape}")
    apart = float(np.abs(found - wanted).max() / max(float(np.ptp(scale)), 1e-12))
    require(apart <= TOLERANCE, f"{promise}: they differ by {apart:.1e} of the range of scores")


def digests(detector: Detector) -> dict[str, frozenset[int]]:
    """Return content hashes of the images that a detector has used, by role."""
    return dict(detector.digests_by_role_)


class StoppedError(Exception):
    """A call was stopped by its progress callback."""


class StopAfter:
    """Progress callback that stops a call at its `count`-th record."""

    def __init__(self, count: int) -> None:
        self.left = count

    def __call__(self, record: Record) -> None:
        """Count one record, and raise :class:`StoppedError` at the last."""
        self.left -= 1
        if self.left <= 0:
            raise StoppedError(record.stage)


def random_state() -> tuple[object, ...]:
    """Return the states of the global generators of torch, numpy and Python."""
    _, key, *rest = np.random.get_state()  # noqa: NPY002 - the global state is what must stay
    return torch.get_rng_state().numpy().tobytes(), np.asarray(key).tobytes(), *rest, random.getstate()
