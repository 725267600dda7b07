"""Fitting and scoring through the one contract that every method keeps, with what it took."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from anomem.benchmark.environment import Meter, metered
from anomem.benchmark.unit import Unit
from anomem.data.imageset import ImageSet
from anomem.data.labelled_images import Images
from anomem.detector import Detector
from anomem.detectors import get
from anomem.errors import AnomemWarning, InputError
from anomem.evaluation.confounds import GreyRecorder
from anomem.evaluation.judge import Answers, answer_steps
from anomem.nn.backbones import DEFAULT_BACKBONE
from anomem.nn.devices import find_device
from anomem.nn.inference import score_images
from anomem.nn.scorer import TwoStageScorer
from anomem.runtime.progress import run_to_end
from anomem.types import ANOMALOUS, FloatArray

__all__ = ["Fit", "Observed", "Seen", "Settings", "conclude", "fit_images", "fit_params", "observe", "refit", "score"]

STEPS = ("steps", "train_steps", "pretrain_steps")
"""Hyperparameters that are budgets of optimiser steps: what a dry run cuts down."""


@dataclass(frozen=True)
class Settings:
    """What changes how fast units run, and in the last digits with which arithmetic, but not what they are.

    Parameters
    ----------
    root : Path or None
        Folder of the sets of the catalogue; by default ``$ANOMEM_DATA``.
    device : str
        "auto", or a torch device.
    threads : int
        Of torch and of linear algebra.
    batch_size : int
        Images a forward pass.
    workers : int
        Decoding threads.
    scores : Path or None
        Folder that keeps the scores of every unit.
    features : Path or None
        Folder that keeps the maps of frozen backbones.
    features_mb : int
        Room in it, megabytes.
    """

    root: Path | None = None
    device: str = "auto"
    threads: int = 1
    batch_size: int = 16
    workers: int = 1
    scores: Path | None = None
    features: Path | None = None
    features_mb: int = 4096

    @property
    def running(self) -> dict[str, Any]:
        """Call arguments of fits and scores."""
        return {"batch_size": self.batch_size, "workers": self.workers, "device": self.device}


@dataclass(frozen=True)
class Seen:
    """A detector's answers about some images, and what they took.

    Parameters
    ----------
    answers : Answers
    meter : Meter
    concluded : bool
        True where the second stage alone was asked, about what the first had observed before.
    """

    answers: Answers
    meter: Meter
    concluded: bool = False

    @property
    def scores(self) -> FloatArray:
        """Scores of all images, (N,) float32."""
        return self.answers.scores

    @property
    def digests(self) -> tuple[int, ...]:
        """Content hashes of all images."""
        return self.answers.digests

    def without_maps(self) -> Seen:
        """Return the answers at image level."""
        return replace(self, answers=replace(self.answers, pixels=None))


@dataclass(frozen=True)
class Observed:
    """What a first stage saw of images: (N,) one-class scores, (N, D) evidence, content hashes."""

    one_class: Tensor
    evidence: Tensor
    digests: tuple[int, ...]


@dataclass
class Fit:
    """A fitted detector and what is known of its fit.

    Parameters
    ----------
    detector : Detector
    meter : Meter
        What the fit took.
    notes : tuple of str
        Warnings of the fit.
    first : Fit or None
        The one-class fit whose first stage this one has, its second stage alone being its own.
    shared : bool
        Whether an earlier unit did the fit.
    seen : dict
        What it said of images, by their name; one-class fits keep it.
    observed : dict
        What its first stage observed of them; None where a second stage cannot conclude from that.
    """

    detector: Detector
    meter: Meter
    notes: tuple[str, ...] = ()
    first: Fit | None = None
    shared: bool = False
    seen: dict[str, Seen] = field(default_factory=dict)
    observed: dict[str, Observed | None] = field(default_factory=dict)


def fit_params(unit: Unit) -> dict[str, Any]:
    """Hyperparameters of a unit's detector: as declared, and its seed.

    A dry run cuts the budgets of optimiser steps down, and takes random weights in place of those that it would have to
    fetch: it shows that a recipe runs, and nothing about what it reaches.
    """
    params = {**unit.variant.params, "seed": unit.seed}
    if unit.dry_steps is None:
        return params
    resolved = get(unit.variant.method)(**params).resolve()
    names = dict(resolved.declared_deep())
    known = ("weights", "backbone")
    fetched = names.keys() >= set(known) and [resolved[n] for n in known] == ["default", resolved["backbone"]]
    dry: dict[str, Any] = {"weights": None} if fetched and resolved["backbone"] != DEFAULT_BACKBONE else {}
    budgets = {name: resolved[name] for name in names if name.rpartition(".")[2] in STEPS and _is_on(resolved, name)}
    cut = {name: min(steps or unit.dry_steps, unit.dry_steps) for name, steps in budgets.items() if steps != 0}
    return params | dry | cut


def _is_on(resolved: Detector, name: str) -> bool:
    """Return true unless a parameter belongs to a group that is off."""
    head = name.rpartition(".")[0]
    return not head or resolved[head] is not None


def fit_images(unit: Unit, images: Images, settings: Settings, *, masks: bool = False) -> Fit:
    """Fit a unit's method to images; the labels of anomalous ones are given, and their masks where `masks` is set."""
    detector = get(unit.variant.method)(**fit_params(unit))
    with metered() as meter, _gathered_notes() as notes:
        detector.fit(
            images.source,
            images.labels.tolist(),
            types=[kind or None for kind in images.kinds],
            groups=images.groups or None,
            masks=_mask_arrays(images) if masks else None,
            **settings.running,
        )
    return Fit(detector, meter, tuple(notes))


def refit(first: Fit, labelled: Images, settings: Settings, *, masks: bool = False) -> Fit:
    """Refit the second stage of a copy to labelled images; the one-class fit stays as it is."""
    detector = copy.copy(first.detector)
    with metered() as meter, _gathered_notes() as notes:
        detector.label(
            labelled.source,
            labelled.labels.tolist(),
            types=[kind or None for kind in labelled.kinds],
            masks=_mask_arrays(labelled) if masks else None,
            **settings.running,
        )
    return Fit(detector, meter, (*first.notes, *notes), first)


def score(fit: Fit, images: Images, recorder: GreyRecorder, settings: Settings, *, maps: bool) -> Seen:
    """Score images on the ordinary path; `recorder` is their source."""
    steps = answer_steps(fit.detector, images, source=recorder, maps=maps, **settings.running)
    with metered() as meter:
        answers = run_to_end(steps)
    return Seen(answers, meter)


def observe(fit: Fit, images: Images, settings: Settings) -> Observed | None:
    """Keep what a first stage sees of images, on the scoring path; None where it gives no evidence."""
    detector = fit.detector
    prepared = ImageSet(images.source, detector.preprocessing_, workers=settings.workers)
    options: dict[str, Any] = {"precision": detector.calibration_.precision, "batch_size": settings.batch_size}
    results = list(score_images(detector.scorer_, prepared, **options, evidence=True))
    evidence = [result.evidence for result in results if result.evidence is not None]
    if len(evidence) < len(results):
        return None
    one_class = torch.tensor([result.one_class for result in results])
    return Observed(one_class, torch.stack(evidence), tuple(result.digest for result in results))


@torch.inference_mode()
def conclude(fit: Fit, observed: Observed, images: Images, settings: Settings) -> Seen:
    """Scores of a refitted second stage for what its first stage has observed, in the batches of ordinary scoring."""
    scorer = fit.detector.scorer_
    if not isinstance(scorer, TwoStageScorer):
        raise TypeError("only a scorer of two stages concludes")
    device, size = find_device(settings.device), settings.batch_size
    with metered() as meter:
        batches = zip(observed.one_class.split(size), observed.evidence.split(size), strict=True)
        parts = [scorer.conclude(one.to(device), seen.to(device)).float().cpu() for one, seen in batches]
        scores: FloatArray = np.asarray(torch.cat(parts).numpy())
    for i in np.flatnonzero(~np.isfinite(scores)):
        raise InputError(f"{images.source.name(int(i))}: its score is {scores[i]}: the fit has failed")
    return Seen(Answers(scores, observed.digests), meter, concluded=True)


def _mask_arrays(images: Images) -> list[Any]:
    """Masks of the anomalous images as arrays, since some paths go on inside a file."""
    found: list[Any] = [None] * len(images)
    for i in map(int, images.positions(ANOMALOUS)):
        if images.masks and images.masks[i] is not None:
            height, width, _ = images.source.load(i).shape
            found[i] = images.mask(i, (height, width))
    return found


@contextmanager
def _gathered_notes() -> Iterator[list[str]]:
    """Gather our own warnings; those of libraries are not shown."""
    notes: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", AnomemWarning)
        yield notes
    notes += dict.fromkeys(str(w.message) for w in caught if issubclass(w.category, AnomemWarning))
