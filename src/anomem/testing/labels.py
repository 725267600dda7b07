"""Checks of labels, calibration and the promised false-alarm rate."""

from __future__ import annotations

import copy
import warnings
from itertools import combinations

import numpy as np

from anomem.cross_fitting import chosen_kind
from anomem.data.sources import open_source
from anomem.detector import Detector
from anomem.errors import AnomemWarning, CalibrationError, InputError
from anomem.metrics import auroc
from anomem.nn.scorer import TwoStageScorer
from anomem.testing.example import (
    Example,
    StopAfter,
    StoppedError,
    digests,
    random_state,
    refused,
    require,
    require_close,
)


def labels_count_as_the_class_says(example: Example) -> None:
    """Check that labels are ignored where supervision is "none", used where "optional", required where "required"."""
    if example.required:
        refused(InputError, lambda: example.new().fit(example.train, device="cpu"), "a fit without labels")
        return
    detector, caught = example.with_labels
    ignored = example.cls.supervision == "none"
    require(not ignored or any("learns from normal" in message for message in caught), "unused labels are warned of")
    if ignored:
        require(_fitted_alike(example, detector), "labels are ignored")
    else:
        changed = not np.array_equal(example.score(detector), example.scores)
        require(changed, "labels change the scores")
    require(detector.counts_["n_labelled"] == (0 if ignored else len(example.labelled)), "labels are counted")


def _fitted_alike(example: Example, detector: Detector) -> bool:
    """Return True for a fit that other images in the corpus did not change: the same roles, and scores to the last bit.

    Bits of a trained model depend on the number of threads. Where the scores are not those of the shared fit, they are
    compared with a second fit made now, under the same circumstances.
    """
    if digests(detector) != digests(example.fitted):
        return False
    scores = example.score(detector)
    return np.array_equal(scores, example.scores) or np.array_equal(scores, example.score(example.fit()))


def unknown_labels_are_left_out(example: Example) -> None:
    """Check that images labelled -1 take no part in a fit."""
    require(_fitted_alike(example, example.again[1]), "the fit is that without the unknown images")


def wrong_labels_are_refused(example: Example) -> None:
    """Check that labels of another number or kind are refused."""
    n = len(example.train)
    for y in ([0] * (n - 1), [0] * (n - 1) + [2], ["good"] * n, [[0]] * n):
        refused(InputError, lambda y=y: example.fit(images=example.train, y=y), "y")  # type: ignore[misc]
    refused(InputError, lambda: example.fit(images=example.train, y=[1] * n), "no normals at all")


def roles_share_no_image(example: Example) -> None:
    """Check that no image has two roles, copies included, and that contradictory labels are refused."""
    twice = np.concatenate([example.train, example.train[:6]])
    images, y = example.given(twice, labels=example.cls.supervision != "none")
    parts = digests(example.fit(images=images, y=y))
    require(not any(a & b for a, b in combinations(parts.values(), 2)), "no content has two roles")
    if example.cls.supervision == "none":
        return
    both = np.concatenate([images, example.train[:1]])
    labels = [*([0] * len(images) if y is None else y), 1]
    refused(InputError, lambda: example.fit(images=both, y=labels), "an image labelled both ways")


def calibration_scores_are_scores(example: Example) -> None:
    """Check that the model is calibrated on scores of held-out normals, and p-values and verdicts follow from them."""
    detector = example.fitted
    _require_calibrated(example, detector)
    scores, held_out = example.scores, detector.calibration_.scores
    counted = (1 + (held_out[None, :] >= scores[:, None]).sum(axis=1)) / (len(held_out) + 1)
    p_values = detector.p_value(example.mixed, device="cpu")
    require(np.allclose(p_values, counted, rtol=0, atol=1e-12), "p = (1 + #{s_i >= s}) / (n + 1)")
    rejected = detector.predict(example.mixed, device="cpu")
    require(np.array_equal(rejected, p_values <= detector.calibration_.alpha), "rejected iff p <= alpha")
    refused(CalibrationError, lambda: example.fit(alpha=0.001), "an alpha too small for the normals")


def _require_calibrated(example: Example, detector: Detector) -> None:
    held_out = example.calibration_images(detector)
    require(len(held_out) == detector.counts_["n_calibration"] > 0, "calibration images are normals of the fit")
    found = np.sort(example.score(detector, held_out))
    now = example.score(detector)
    require_close(found, detector.calibration_.scores, now, "calibration scores are the scores of held-out normals")


def calibrating_leaves_out_what_was_learnt_from(example: Example) -> None:
    """Check that ``calibrate`` takes fresh normals only and names the others; without images it changes alpha alone."""
    detector = copy.copy(example.fitted)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        detector.calibrate(np.concatenate([example.train, example.normal]), alpha=0.1, device="cpu")
    require(any(issubclass(w.category, AnomemWarning) for w in caught), "images left out are warned of")
    kept = len(example.normal) + example.fitted.calibration_.n
    require(detector.calibration_.n == kept, f"{kept} images are new to the model, not {detector.calibration_.n}")
    require(np.array_equal(example.score(detector), example.scores), "calibrating changes no score")
    detector.set_alpha(0.5)
    require((detector.calibration_.n, detector.calibration_.alpha) == (kept, 0.5), "alpha alone changes")
    refused(CalibrationError, lambda: detector.set_alpha(1e-6), "an alpha too small for the normals")


def labels_refit_the_second_stage(example: Example) -> None:
    """Check that defects alone refit the second stage: scores change, and the new score is calibrated."""
    if not isinstance(example.fitted.scorer_, TwoStageScorer):
        refused(InputError, lambda: copy.copy(example.fitted).label(example.labelled, device="cpu"), "no second stage")
        return
    detector = copy.copy(example.refitted)
    scores = example.score(detector)
    require(not np.array_equal(scores, example.scores), "labels change the scores")
    labels = [0] * len(example.normal) + [1] * len(example.defective)
    require(auroc(scores, labels) > 0.8, "defects still rank above normals: AUROC above 0.8")
    require(detector.counts_ == {**example.fitted.counts_, "n_labelled": len(example.labelled)}, "labels are counted")
    _require_calibrated(example, detector)
    require(detector.label(example.labelled[:5], device="cpu") is detector, "label returns self")
    detector.label(example.labelled, device="cpu")
    require(np.array_equal(example.score(detector), scores), "labels replace earlier ones")
    stop = StopAfter(1)
    refused(StoppedError, lambda: detector.label(example.labelled[:4], device="cpu", progress=stop), "a stopped refit")
    require(np.array_equal(example.score(detector), scores), "an abandoned refit changes nothing")
    require(np.array_equal(example.score(example.fitted), example.scores), "the original detector is unchanged")
    held_out = example.calibration_images(detector)[:1]
    refused(InputError, lambda: detector.label(held_out, device="cpu"), "labelling a calibration normal")
    refused(InputError, lambda: detector.label(example.normal, [0] * 15, device="cpu"), "no defect at all")


def refitting_equals_fitting_with_labels(example: Example) -> None:
    """Check that labels for the second stage alone lead to the same scores, given to ``fit`` or later."""
    if not isinstance(example.fitted.scorer_, TwoStageScorer):
        return
    (at_once, _), later = example.with_labels, example.refitted
    found = example.score(at_once)
    require_close(found, example.score(later), found, "labels count the same, early or late")
    source = open_source(example.labelled)
    named = {source.digest(i) for i in range(len(source))}
    require(digests(later)["labelled"] == digests(at_once)["labelled"] == named, "labelled images are known by content")


def cross_fitted_normals_have_all_roles(example: Example) -> None:
    """Check that with the default calibration, where it is cross, every normal learns and calibrates, once."""
    twice = np.concatenate([example.train, example.train[:6]])
    images, y = example.given(twice)
    detector = example.new()
    if chosen_kind("auto", detector, detector.name, detector.resolve(), len(images)) == "split":
        return
    state = random_state()
    detector.fit(images, y, alpha=0.2, device="cpu")
    require(random_state() == state, "the global random state is unchanged")
    require(detector.calibration_.kind == "cross", "the default calibration is cross")
    source = open_source(example.train)
    everything = {source.digest(i) for i in range(len(source))}
    parts = digests(detector)
    require(all(parts[role] == everything for role in ("learn", "tune", "calibration")), "normals have all three roles")
    require(detector.calibration_.n == len(everything), "each content calibrates once")
    require(detector.calibration_.bound is None, "no bound is stated, as none is proven")
    p_values = detector.p_value(example.mixed, device="cpu")
    counted = (1 + (detector.calibration_.scores[None, :] >= example.score(detector)[:, None]).sum(axis=1)) / (
        len(everything) + 1
    )
    require(np.allclose(p_values, counted, rtol=0, atol=1e-12), "p = (1 + #{s_i >= s}) / (n + 1)")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AnomemWarning)  # All images are left out.
        refused(InputError, lambda: detector.calibrate(example.train, device="cpu"), "calibrating on learnt images")
