"""False-alarm rate after a shift: another capture, or disturbed images; before and after a calibration on few."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from anomem.benchmark.image_sets import BenchmarkSet
from anomem.benchmark.judging import Findings, unseen_scores
from anomem.benchmark.protocols.base import Opener, Protocol, own_normals
from anomem.benchmark.unit import Task, Unit
from anomem.benchmark.workspace import Workspace
from anomem.data.disturbance import SHIFTS
from anomem.data.labelled_images import Images
from anomem.errors import AnomemWarning, CalibrationError, InputError
from anomem.params import Each, OneOf, Range, param, parameters
from anomem.runtime.calibration import Calibration
from anomem.runtime.recalibration import Fresh, calibrated_anew
from anomem.runtime.shift import find_shift
from anomem.types import ANOMALOUS, NORMAL, FloatArray

__all__ = ["CAPTURES", "Shift", "recalibrations"]

CAPTURES = {"magnetic_tile": r"(exp\d+)", "aitex_tiles": r"_(\d+)_t\d+[^/]*$"}
"""Capture of an image by its path: the experiment; the fabric."""

BATCH = 50
"""Number of images of the batches that are tested for a shift."""

_LEAST_LEFT_OUT = 40
"""Minimum number of normals of a capture that is left out."""


@parameters
class Shift(Protocol):
    """Rate on normals unlike those of the fit, and after calibrating on few of them.

    A shift is a capture that the fit has not seen (`CAPTURES`), or the test images brighter, blurred or moved
    (`anomem.data.disturbance.SHIFTS`). Of the shifted normals, m are drawn repeatedly to calibrate on; the others are
    counted. Where m normals alone do not carry alpha, they are blended with the fit's own scores.

    Parameters
    ----------
    kinds : tuple of str, default ("capture", "brighter", "blurred", "moved")
        Shifts.
    fresh : tuple of int, default (10, 20, 50)
        Numbers m of fresh normals.
    alphas : tuple of float, default (0.01, 0.02, 0.05, 0.1)
        False-alarm rates.
    redraws : int, default 20
        Draws of the fresh normals.
    """

    name: ClassVar[str] = "shift"
    seeds: ClassVar[tuple[int, ...]] = (0, 1, 2)

    kinds: tuple[str, ...] = param(
        ("capture", *SHIFTS), Each(OneOf(("capture", *SHIFTS))), doc="Shifts: another capture, or disturbed images."
    )
    fresh: tuple[int, ...] = param((10, 20, 50), Each(Range(10, 1000, integer=True)), doc="Numbers of fresh normals.")
    alphas: tuple[float, ...] = param(
        (0.01, 0.02, 0.05, 0.10), Each(Range(0.0, 0.5, low_open=True)), doc="False-alarm rates."
    )
    redraws: int = param(20, Range(1, 10_000, integer=True), doc="Draws of the fresh normals.")

    def tasks(self, data: BenchmarkSet, opened: Opener) -> Iterator[Task | str]:
        """Yield a task per left-out capture and per disturbance."""
        own_normals(data, self.name)
        options = self.options()
        facts = {name: options[name] for name in ("fresh", "alphas", "redraws")}
        for kind in options["kinds"]:
            if kind != "capture":
                yield Task(self.name, data.name, data.category, facts={**facts, "shift": kind})
                continue
            if data.name not in CAPTURES:
                yield f"{data.name}: its captures are not known"
                continue
            counted = np.unique(captures(data.name, _normals(data)), return_counts=True)
            for capture, n in zip(*counted, strict=True):
                if n >= _LEAST_LEFT_OUT:
                    train = {"without": str(capture)}
                    yield Task(self.name, data.name, data.category, train, {**facts, "shift": str(capture)})

    def run(self, unit: Unit, work: Workspace) -> Findings:
        """Fit, score shifted images, calibrate on few of them, count false alarms of the others."""
        facts, data = unit.task.facts, work.open(unit.task.data, unit.limit)
        without = unit.task.train.get("without")
        if without is None:
            fit = work.one_class(unit, data.train)
            alike, shifted = (
                data.test,
                data.test.disturbed(SHIFTS[facts["shift"]], 0, f"{data.test.name} {facts['shift']}"),
            )
        else:
            train, alike, shifted = _left_out(data, without)
            fit = work.one_class(unit, train)
        before, seen = unseen_scores(fit, alike, work.see(fit, alike)), work.see(fit, shifted)
        after = unseen_scores(fit, shifted, seen)
        found = recalibrations(fit.detector.calibration_, before, after, facts, unit.seed)
        return Findings(fit, {"shift": found}, seen, np.arange(len(seen.scores)))


def captures(name: str, images: Images) -> list[str]:
    """Return the capture of each image.

    Raises
    ------
    InputError
        A path without one.
    """
    found = [re.search(CAPTURES[name], images.source.name(i)) for i in range(len(images))]
    if not all(found):
        raise InputError(f"{name}: a path names no capture; check the set")
    return [match[1] for match in found if match is not None]


def _normals(data: BenchmarkSet) -> Images:
    test = data.test.subset(data.test.positions(NORMAL), "")
    return data.train.joined(test, f"{data.name} normals")


def _left_out(data: BenchmarkSet, capture: str) -> tuple[Images, Images, Images]:
    """Return training images and test images of the other captures, and all images of this one not learnt from."""
    of_train, of_test = (np.asarray(captures(data.name, part)) for part in (data.train, data.test))
    train = data.train.subset(np.flatnonzero(of_train != capture), f"{data.train.name} without {capture}")
    alike = data.test.subset(np.flatnonzero(of_test != capture), f"{data.test.name} without {capture}")
    own = [
        part.subset(np.flatnonzero(of == capture), "") for part, of in ((data.train, of_train), (data.test, of_test))
    ]
    return train, alike, own[0].joined(own[1], f"{data.name} of {capture}")


def recalibrations(
    calibration: Calibration,
    alike: Mapping[int, FloatArray],
    shifted: Mapping[int, FloatArray],
    facts: Mapping[str, Any],
    seed: int,
) -> dict[str, Any]:
    """Return rates before and after calibrating on m shifted normals, and how often a shift is found.

    Returns
    -------
    dict
        ``n_alike``, ``n_shifted`` normals; ``found``: share of batches called shifted, of either kind; ``before`` and,
        by m, ``after``: per alpha ``rate`` on normals not drawn, its standard ``error`` over draws, ``detection`` and
        ``by`` ("fresh" normals alone or "blend"; absent where alpha is not attained).
    """
    rng = np.random.default_rng(seed)
    sides = {"alike": alike[NORMAL], "shifted": shifted[NORMAL]}
    return {
        **{f"n_{name}": len(scores) for name, scores in sides.items()},
        "found": {name: _found(calibration, scores, facts["redraws"], rng) for name, scores in sides.items()},
        "alike": _rates(calibration, alike, facts["alphas"]),
        "before": _rates(calibration, shifted, facts["alphas"]),
        "after": {
            str(m): [
                entry for alpha in facts["alphas"] if (entry := _after(calibration, shifted, m, alpha, facts, rng))
            ]
            for m in facts["fresh"]
            if m < len(sides["shifted"])
        },
    }


def _found(calibration: Calibration, scores: FloatArray, redraws: int, rng: np.random.Generator) -> float:
    batches = (rng.choice(scores, min(BATCH, len(scores)), replace=False) for _ in range(redraws))
    found = [find_shift(calibration, batch) for batch in batches]
    return float(np.mean([shift is not None and shift.shifted for shift in found]))


def _rates(
    calibration: Calibration, scores: Mapping[int, FloatArray], alphas: tuple[float, ...]
) -> list[dict[str, Any]]:
    found = []
    for alpha in alphas:
        if alpha >= calibration.alpha_min:
            decide = calibration.with_alpha(alpha).decide
            found.append(
                {"alpha": alpha, "rate": _mean(decide(scores[NORMAL])), "detection": _mean(decide(scores[ANOMALOUS]))}
            )
    return found


def _after(
    calibration: Calibration,
    shifted: Mapping[int, FloatArray],
    m: int,
    alpha: float,
    facts: Mapping[str, Any],
    rng: np.random.Generator,
) -> dict[str, Any] | None:
    blend = alpha < 1 / (m + 1)
    # Groups are not blended; fresh normals are few single images.
    former = replace(calibration, groups=None) if blend and calibration.groups is not None else calibration
    rates, detections = [], []
    for _ in range(facts["redraws"]):
        order = rng.permutation(len(shifted[NORMAL]))
        chosen, left = shifted[NORMAL][order[:m]], shifted[NORMAL][order[m:]]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", AnomemWarning)
                decide = calibrated_anew(chosen, Fresh(alpha, blend=blend), former).decide
        except CalibrationError:
            return None
        rates.append(_mean(decide(left)))
        detections.append(_mean(decide(shifted[ANOMALOUS])))
    error = float(np.std(rates, ddof=1) / np.sqrt(len(rates))) if len(rates) > 1 else 0.0
    by = "blend" if blend else "fresh"
    return {"alpha": alpha, "rate": _mean(rates), "error": error, "detection": _mean(detections), "by": by}


def _mean(values: Any) -> float:
    return float(np.mean(values)) if len(values) else float("nan")
