"""Parts of a fit, and its result."""

from __future__ import annotations

import dataclasses
from collections.abc import Generator, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch

from anomem.data.corpus import Corpus
from anomem.data.imageset import ImageSet
from anomem.data.labels import LabelRow
from anomem.data.store import Stored
from anomem.errors import InputError, ParameterError
from anomem.framing import Framed
from anomem.framing import read_preprocessing as read_preprocessing
from anomem.nn.devices import copy_scorer, find_device, has_native_bfloat16
from anomem.nn.inference import ImageResult, score_images
from anomem.nn.scorer import Scorer, TwoStageScorer
from anomem.runtime.calibration import Calibration, calibrate, group_numbers
from anomem.runtime.frame import Frame
from anomem.runtime.preprocess import Preprocessing
from anomem.runtime.recalibration import Fresh, MapScale, calibrated_anew, fresh_normals, seen_before
from anomem.runtime.scoring import PreparedImages
from anomem.runtime.suspects import Suspect, find_suspects
from anomem.types import ANOMALOUS, NORMAL, BoolArray, FloatArray, IntArray, Record


class Shared(Framed, Protocol):
    """Resolved hyperparameters common to all methods."""

    @property
    def precision(self) -> str:
        """Arithmetic used for scoring."""

    @property
    def seed(self) -> int:
        """Random seed for splitting and fitting."""


P = TypeVar("P", bound=Shared)
P_co = TypeVar("P_co", bound=Shared, covariant=True)


@dataclass(frozen=True)
class Run(Generic[P_co]):
    """Circumstances of one fit: resolved hyperparameters, randomness, device, precision, memory for features."""

    params: P_co
    rng: torch.Generator
    device: torch.device
    fit_precision: str
    batch_size: int
    workers: int | None = None
    features_mb: int = 1024


@dataclass(frozen=True)
class Labelled:
    """Labelled images for the second stage, in one order: the set, labels (N,), defect types (None where unknown)."""

    images: ImageSet
    labels: IntArray
    types: tuple[str | None, ...]
    corpus: Corpus

    def mask(self, position: int, height_width: tuple[int, int]) -> BoolArray | None:
        """Return the mask of the image at `position`, in the image's own size, or None."""
        return self.corpus.mask_of(int(self.images.indices[position]), height_width)

    def masked(self) -> list[int]:
        """Return positions of the images that have a mask."""
        return [i for i, index in enumerate(self.images.indices) if self.corpus.masks[index] is not None]

    def anomalies(self) -> ImageSet:
        """Return the images that are labelled anomalous."""
        return self.images.subset(np.flatnonzero(self.labels == ANOMALOUS))

    @cached_property
    def n_anomalous(self) -> int:
        """Number of images that are labelled anomalous."""
        return int((self.labels == ANOMALOUS).sum())


def gather_labelled(
    corpus: Corpus,
    chosen: IntArray,
    preprocessing: Preprocessing,
    digests: Mapping[str, frozenset[int]],
    run: Run[Shared],
) -> tuple[Labelled, frozenset[int]]:
    """Gather labelled images in one order, with their content hashes.

    Raises
    ------
    InputError
        If one of them is also a normal of the fit (training, tuning or calibration).
    """
    hashes = frozenset(corpus.digests[i] for i in chosen)
    shared = hashes & (digests["learn"] | digests["tune"] | digests["calibration"])
    if shared:
        name = next(corpus.source.name(i) for i in chosen if corpus.digests[i] in shared)
        raise InputError(f"{name}: image is both labelled and used as a normal; remove one of the two")
    by_label = {
        label: {corpus.digests[i] for i in chosen if corpus.labels[i] == label} for label in (NORMAL, ANOMALOUS)
    }
    both = by_label[NORMAL] & by_label[ANOMALOUS]
    if both:
        name = next(corpus.source.name(i) for i in chosen if corpus.digests[i] in both)
        raise InputError(f"{name}: image is labelled both normal and anomalous; remove one of the two")
    images = ImageSet(corpus.source, preprocessing, chosen, workers=run.workers)
    return Labelled(images, corpus.labels[chosen], tuple(corpus.types[i] for i in chosen), corpus), hashes


@dataclass(frozen=True)
class Fitted:
    """Result of a fit; never changed in place.

    Parameters
    ----------
    scorer : Scorer
        Fitted scorer, in evaluation mode.
    resolved : dict
        Hyperparameters with the preset's values filled in.
    preprocessing : Preprocessing
        Steps from a decoded image to the network's input.
    calibration : Calibration
        Calibration scores and alpha.
    map_scale : tuple of float
        Colour scale (low, high) of this model's maps; (0, 1) without maps.
    digests : dict
        Content hashes of the images by role: learn, tune, calibration, labelled.
    skipped : tuple of str
        Lines that name the images that could not be read.
    history : tuple of Record
        Records of the fit.
    labels : tuple of mapping
        Files that the second stage is fitted to; see :func:`anomem.data.labels.label_rows`.
    calibration_groups : tuple of int or None
        Group of each calibration image, in a two-stage scorer's order; None: no groups.
    calibration_strata : tuple of str or None
        Stratum of each calibration image, in the same order; None: no strata.
    normals : tuple of Stored
        Files of the fit's normals, for a store beside the model; no part of the model file.
    wanted : str
        Calibration that was asked for: "auto", "split", "cross" or "cross-exact".
    suspects : tuple of Suspect
        Normals of the fit with an extreme out-of-sample score, worst first.
    excluded : int
        Number of normals that a person left out.
    frame : Frame or None
        Size at which the normals are seen; None: the file is older than this fact.
    grouping : mapping
        Groups among the normals; see :func:`anomem.runtime.groups.group_facts`.
    call : mapping
        Arguments of the fit that a later one with ``extend`` repeats; see :func:`anomem.data.store.call_facts`.
    """

    scorer: Scorer
    resolved: dict[str, Any]
    preprocessing: Preprocessing
    calibration: Calibration
    map_scale: tuple[float, float]
    digests: dict[str, frozenset[int]]
    skipped: tuple[str, ...] = ()
    history: tuple[Record, ...] = ()
    labels: tuple[LabelRow, ...] = ()
    calibration_groups: tuple[int, ...] | None = None
    calibration_strata: tuple[str, ...] | None = None
    normals: tuple[Stored, ...] = ()
    wanted: str = "split"
    suspects: tuple[Suspect, ...] = ()
    excluded: int = 0
    frame: Frame | None = None
    grouping: Mapping[str, Any] = field(default_factory=dict)
    call: Mapping[str, Any] = field(default_factory=dict)

    @property
    def counts(self) -> dict[str, int]:
        """Images by role."""
        n = {role: len(hashes) for role, hashes in self.digests.items()}
        return {
            "n_train": n["learn"],
            "n_tune": n["tune"],
            "n_calibration": self.calibration.n,
            "n_labelled": n["labelled"],
        }

    def replaced(self, **changes: Any) -> Fitted:
        """Return a copy with some parts replaced."""
        return dataclasses.replace(self, **changes)


def make_run(
    params: P, *, device: str, fit_precision: str, batch_size: int, workers: int | None, features_mb: int = 1024
) -> Run[P]:
    """Validate the call arguments of a fit.

    Raises
    ------
    ParameterError
        For a device or precision that does not exist here, or a batch size below 1.
    """
    if batch_size < 1:
        raise ParameterError(f"batch_size={batch_size} is not allowed; expected an integer >= 1")
    if fit_precision not in ("auto", "float32", "bfloat16"):
        raise ParameterError(f"fit_precision={fit_precision!r} is not allowed; expected auto, float32 or bfloat16")
    where = find_device(device)
    if fit_precision == "auto":
        fit_precision = "bfloat16" if has_native_bfloat16(where) else "float32"
    rng = torch.Generator().manual_seed(int(params.seed))
    return Run(params, rng, where, fit_precision, batch_size, workers, features_mb)


def calibration_pass(
    scorer: Scorer, images: PreparedImages, run: Run[Shared], *, stage: str = "calibrate"
) -> Generator[Record, None, tuple[list[ImageResult], tuple[float, float]]]:
    """Score held-out normals along the scoring path, and derive the colour scale from their maps."""
    results: list[ImageResult] = []
    scale = MapScale()
    precision = run.params.precision
    for result in score_images(
        scorer, images, precision=precision, batch_size=run.batch_size, maps=True, evidence=True
    ):
        scale.add(result)
        results.append(dataclasses.replace(result, tile_map=None))
        yield Record(stage, len(results), len(images))
    return results, scale.result()


def recalibrated(
    state: Fitted, images: PreparedImages, fresh: Fresh, run: Run[Shared]
) -> Generator[Record, None, Fitted]:
    """Calibrate on normals that the model has not used; others are left out with a warning.

    Raises
    ------
    InputError
        If all images are already known to the model.
    CalibrationError
        If alpha is too small for their number.
    """
    chosen, wanted = fresh_normals(images, seen_before(state.digests, fresh), fresh)
    scorer = copy_scorer(state.scorer, run.device)
    scored, scale = yield from calibration_pass(scorer, chosen, run)
    kept = [i for i, result in enumerate(scored) if result.error is None]
    if not kept:
        raise InputError("none of the images to calibrate on can be read; check their files")
    results, wanted = [scored[i] for i in kept], wanted.subset(kept)
    remember_calibration(scorer, results)
    digests = frozenset(r.digest for r in results) | (state.digests["calibration"] if fresh.blend else frozenset())
    return state.replaced(
        scorer=scorer,
        calibration=calibrated_anew(final_scores(scorer, results), wanted, state.calibration),
        map_scale=scale,
        digests={**state.digests, "calibration": digests},
        calibration_groups=None if wanted.groups is None else only_groups(wanted.groups),
        calibration_strata=None if wanted.strata is None else tuple(wanted.strata),
    )


def suspects_among(
    scorer: Scorer, results: Sequence[ImageResult], calibration: ImageSet, tune: ImageSet
) -> tuple[Suspect, ...]:
    """Find suspects among the normals that were scored by memories without them, labels aside.

    Of a split these are the calibration normals and, where their scores are kept, the tune normals.
    """
    scored = [(calibration.source.name(r.index), r.one_class) for r in results]
    if isinstance(scorer, TwoStageScorer) and scorer.folds is None:
        names = [tune.source.name(int(i)) for i in tune.indices]
        scored += zip(names, scorer.tune_one_class.tolist(), strict=True)
    return find_suspects([name for name, _ in scored], [score for _, score in scored])


def only_groups(groups: Sequence[Hashable | None]) -> tuple[int, ...] | None:
    """Return the number of each image's group; None where every image is a group by itself."""
    numbers = tuple(group_numbers(groups).tolist())
    return None if len(set(numbers)) == len(numbers) else numbers


def final_scores(scorer: Scorer, results: Iterable[ImageResult]) -> FloatArray:
    """Return scores of calibration normals by the current scorer; a second stage is recomputed from kept evidence."""
    if isinstance(scorer, TwoStageScorer):
        return conclude(scorer)
    return np.asarray([r.score for r in results], dtype=np.float32)


@torch.inference_mode()
def conclude(scorer: TwoStageScorer) -> FloatArray:
    """Return scores of the calibration normals that a two-stage scorer carries, (n,) float32."""
    return np.asarray(scorer.calibration_scores().float().cpu().numpy(), dtype=np.float32)


def reconcluded(scorer: TwoStageScorer, state: Fitted) -> Calibration:
    """Calibrate a refitted scorer on the normals that it carries.

    Raises
    ------
    InputError
        If the calibration is blended: the earlier scores cannot be computed anew.
    """
    known = state.calibration
    if known.blended:
        raise InputError(
            "labels: the calibration is blended with fresh normals; label the model before, then calibrate"
        )
    return calibrate(
        conclude(scorer),
        known.alpha,
        known.precision,
        state.calibration_groups,
        kind=known.kind,
        folds=known.folds,
        strata=state.calibration_strata,
        strata_by="" if known.strata is None else known.strata.by,
    )


def remember_calibration(scorer: Scorer, results: list[ImageResult]) -> None:
    """Store in a two-stage scorer what recalibration after a refit needs."""
    if not isinstance(scorer, TwoStageScorer):
        return
    evidence = [r.evidence for r in results if r.evidence is not None]
    scorer.remember("calibration", torch.tensor([r.one_class for r in results]), torch.stack(evidence))
