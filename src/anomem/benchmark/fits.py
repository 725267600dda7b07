"""Fitting and scoring of any method through the detector interface, with their cost."""

from __future__ import annotations

import copy
import re
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
"""Hyperparameters that count optimiser steps; a dry run reduces them."""


@dataclass(frozen=True)
class Settings:
    """Execution settings; not part of a unit's identity.

    They change the speed, and the last digits where the arithmetic differs.

    Parameters
    ----------
    root : Path or None
        Folder of the sets of the catalogue; by default ``$ANOMEM_DATA``.
    device : str
        "auto", or a torch device.
    threads : int
        Threads of torch and of linear algebra.
    batch_size : int
        Images per forward pass.
    workers : int
        Decoding threads.
    scores : Path or None
        Folder for the scores of every unit.
    features : Path or None
        Cache folder for feature maps of frozen backbones.
    features_mb : int
        Size limit of the cache, megabytes.
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
        """Call arguments for fitting and scoring."""
        return {"batch_size": self.batch_size, "workers": self.workers, "device": self.device}


@dataclass(frozen=True)
class Seen:
    """A detector's answers about some images, and their cost.

    Parameters
    ----------
    answers : Answers
    meter : Meter
    concluded : bool
        True where only the second stage ran, on stored observations of the first.
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
    """First-stage output for images: (N,) one-class scores, (N, D) evidence, content hashes."""

    one_class: Tensor
    evidence: Tensor
    digests: tuple[int, ...]


@dataclass
class Fit:
    """A fitted detector and facts about its fit.

    Parameters
    ----------
    detector : Detector
    meter : Meter
        Cost of the fit.
    notes : tuple of str
        Warnings of the fit.
    first : Fit or None
        The one-class fit whose first stage this fit shares; None where it has its own.
    shared : bool
        True where an earlier unit ran the fit.
    seen : dict
        Cached answers by image-set name; one-class fits only.
    observed : dict
        Cached first-stage output by image-set name; None where a second stage cannot score from it.
    """

    detector: Detector
    meter: Meter
    notes: tuple[str, ...] = ()
    first: Fit | None = None
    shared: bool = False
    seen: dict[str, Seen] = field(default_factory=dict)
    observed: dict[str, Observed | None] = field(default_factory=dict)


def fit_params(unit: Unit) -> dict[str, Any]:
    """Return the hyperparameters of a unit's detector, seed included.

    Inputs are square unless the variant names another aspect, so that lines of all versions can be compared.
    A dry run reduces optimiser steps and replaces weights that would be downloaded by random ones: it shows that a
    recipe runs, and nothing about its accuracy.
    """
    params = {"aspect": "square", **unit.variant.params, "seed": unit.seed}
    if unit.dry_steps is None:
        return params
    resolved = get(unit.variant.method)(**params).resolve()
    names = dict(resolved.declared_deep())
    known = names.keys() >= {"weights", "backbone"}
    dry: dict[str, Any] = {"weights": None} if known and _is_fetched(resolved) else {}
    budgets = {name: resolved[name] for name in names if name.rpartition(".")[2] in STEPS and _is_on(resolved, name)}
    cut = {name: min(steps or unit.dry_steps, unit.dry_steps) for name, steps in budgets.items() if steps != 0}
    return params | dry | cut


def _is_fetched(resolved: Detector) -> bool:
    """Return true where the weights of the backbone are neither random, nor in a package, nor a file."""
    weights, backbone = resolved["weights"], resolved["backbone"]
    packaged = weights == "default" and backbone == DEFAULT_BACKBONE
    return weights is not None and not packaged and not Path(weights).is_file()


def _is_on(resolved: Detector, name: str) -> bool:
    """Return true unless a parameter belongs to a group that is off."""
    head = name.rpartition(".")[0]
    return not head or resolved[head] is not None


def fit_images(unit: Unit, images: Images, settings: Settings, *, masks: bool = False) -> Fit:
    """Fit a unit's method to labelled images; `masks` passes the masks of anomalous ones, too."""
    detector = get(unit.variant.method)(**fit_params(unit))
    with metered() as meter, _gathered_notes() as notes:
        detector.fit(
            images.source,
            images.labels.tolist(),
            types=[kind or None for kind in images.kinds],
            groups=images.groups or None,
            masks=_mask_arrays(images) if masks else None,
            calibration=unit.task.train.get("calibration", "split"),
            **settings.running,
        )
    return Fit(detector, meter, tuple(notes))


def refit(first: Fit, labelled: Images, settings: Settings, *, masks: bool = False) -> Fit:
    """Refit the second stage of a copy to labelled images; the one-class fit is not changed."""
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
    """Score images on the standard path; `recorder` is their source."""
    steps = answer_steps(fit.detector, images, source=recorder, maps=maps, **settings.running)
    with metered() as meter:
        answers = run_to_end(steps)
    return Seen(answers, meter)


def observe(fit: Fit, images: Images, settings: Settings) -> Observed | None:
    """Compute first-stage output for images on the scoring path; None where the method has no evidence."""
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
    """Score stored first-stage output with a refitted second stage, in the same batches as standard scoring."""
    scorer = fit.detector.scorer_
    if not isinstance(scorer, TwoStageScorer):
        raise TypeError("second-stage scoring needs a two-stage scorer")
    device, size = find_device(settings.device), settings.batch_size
    with metered() as meter:
        batches = zip(observed.one_class.split(size), observed.evidence.split(size), strict=True)
        parts = [scorer.conclude(one.to(device), seen.to(device)).float().cpu() for one, seen in batches]
        scores: FloatArray = np.asarray(torch.cat(parts).numpy())
    for i in np.flatnonzero(~np.isfinite(scores)):
        raise InputError(
            f"{images.source.name(int(i))}: score is {scores[i]}; fit the model again with other parameters"
        )
    return Seen(Answers(scores, observed.digests), meter, concluded=True)


def _mask_arrays(images: Images) -> list[Any]:
    """Return masks of the anomalous images as arrays, since some paths point inside an archive."""
    found: list[Any] = [None] * len(images)
    for i in map(int, images.positions(ANOMALOUS)):
        if images.masks and images.masks[i] is not None:
            height, width, _ = images.source.load(i).shape
            found[i] = images.mask(i, (height, width))
    return found


_FOLDER = re.compile(r"(?<![\w.])/(?:[^/\s]+/)+(?=[^/\s])")
"""Folder of an absolute path; lines are published, and name files without the machine's folders."""


@contextmanager
def _gathered_notes() -> Iterator[list[str]]:
    """Collect anomem's warnings; hide those of libraries."""
    notes: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", AnomemWarning)
        yield notes
    messages = (str(w.message) for w in caught if issubclass(w.category, AnomemWarning))
    notes += dict.fromkeys(_FOLDER.sub("", message) for message in messages)
