"""Judge: every figure from a model's answers about labelled images."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from anomem.data.labelled_images import Images
from anomem.data.sources import ImageSource
from anomem.errors import ImageError, InputError
from anomem.evaluation.chance import false_alarms_chance
from anomem.evaluation.confounds import Trivial, trivial_figures
from anomem.evaluation.figures import (
    AtAlpha,
    Evaluation,
    ImageRow,
    NormalsEvaluation,
    Promise,
    SkippedImage,
    at_alpha,
    at_fdr,
    image_figures,
    require_both_classes,
    roc_points,
    type_figures,
)
from anomem.evaluation.pixels import PixelTally
from anomem.runtime.calibration import Calibration
from anomem.runtime.fdr import benjamini_hochberg, largest_stratum
from anomem.runtime.groups import Groups, image_strata
from anomem.runtime.shift import Shift, find_shift
from anomem.types import ANOMALOUS, NORMAL, FloatArray, IntArray

if TYPE_CHECKING:
    from anomem.loading import Model

__all__ = ["Answers", "Selection", "answer_steps", "judge", "select", "with_masks"]


@dataclass(frozen=True, eq=False)
class Answers:
    """Answers of a model about labelled images, one entry per image, in order.

    Parameters
    ----------
    scores : ndarray of float32, shape (N,)
        NaN where an image was skipped.
    digests : tuple of int
        Content hashes; 0 where an image was skipped.
    pixels : PixelTally or None
        Map pixels of all images that the model was not fitted with, where maps were requested.
    skipped : mapping of int to str
        Position of each unreadable image or mask -> error.
    strata : tuple of str, or None
        Stratum of each image; None for a model without strata.
    """

    scores: FloatArray
    digests: tuple[int, ...]
    pixels: PixelTally | None = None
    skipped: Mapping[int, str] = field(default_factory=dict)
    strata: tuple[str, ...] | None = None


def answer_steps(
    model: Model,
    images: Images,
    *,
    source: ImageSource | None = None,
    strata: Groups = None,
    maps: bool = False,
    batch_size: int = 16,
    workers: int | None = None,
    device: str = "auto",
    skip_bad: bool = False,
) -> Generator[tuple[int, int], None, Answers]:
    """Score labelled images on the standard path; yields progress, returns the answers.

    Parameters
    ----------
    model : Model
    images : Images
    source : ImageSource, optional
        Replaces the source of `images`, such as a `GreyRecorder` of it.
    strata : sequence, "folder" or regular expression, optional
        Strata of the images, for a model with strata; by default theirs, or as in its calibration.
    maps : bool
        Collect the maps' pixels, too, except for images that the model was fitted with.
    batch_size, workers, device, skip_bad
        As for scoring. `skip_bad` also skips images with an unreadable mask.

    Yields
    ------
    done, total : int
        Images scored so far, and in all.

    Raises
    ------
    ImageError
        An image or mask cannot be read, and `skip_bad` is off.
    InputError
        A score is not finite.
    """
    used, named, options = model.digests_, None, dict[str, Any]()
    if model.calibration_.strata is not None:
        named = options["strata"] = image_strata(model.calibration_, strata or images.strata or None, images.source)
    tally = PixelTally(images) if maps else None
    scores = np.full(len(images), np.nan, np.float32)
    digests, skipped = [0] * len(images), dict[int, str]()
    results = model.score(
        images.source if source is None else source,
        maps=maps,
        batch_size=batch_size,
        workers=workers,
        device=device,
        skip_bad=skip_bad,
        **options,
    )
    for done, result in enumerate(results, start=1):
        i = result.index
        digests[i] = result.digest
        if result.error is not None:
            skipped[i] = result.error
        elif not np.isfinite(result.score):
            raise InputError(f"{images.source.name(i)}: score is {result.score}; fit the model again")
        else:
            scores[i] = result.score
            if tally is not None and result.map is not None and result.digest not in used:
                try:
                    tally.add(i, result.map)
                except ImageError as error:
                    if not skip_bad:
                        raise
                    skipped[i] = str(error)
        yield done, len(images)
    return Answers(scores, tuple(digests), tally, skipped, None if named is None else tuple(map(str, named)))


def with_masks(images: Images) -> bool:
    """Return True where at least one anomalous image has a mask, as judging maps requires."""
    return bool(images.masks) and any(images.masks[i] is not None for i in images.positions(ANOMALOUS))


class Selection(NamedTuple):
    """Positions of the images to judge, and the numbers left out.

    Parameters
    ----------
    kept : ndarray of intp
    n_left_out : int
        Images that the model was fitted with.
    n_skipped : int
        Unreadable images.
    """

    kept: IntArray
    n_left_out: int
    n_skipped: int


def select(answers: Answers, used: frozenset[int], among: Sequence[int] | IntArray | None = None) -> Selection:
    """Select images to judge, without those that the model was fitted with (by content hash) and unreadable ones.

    Parameters
    ----------
    answers : Answers
    used : frozenset of int
        Content hashes of images that must not be judged.
    among : sequence of int, optional
        Positions that may be judged; by default all.
    """
    asked = np.arange(len(answers.digests)) if among is None else np.asarray(among, dtype=np.intp)
    read = [int(i) for i in asked if int(i) not in answers.skipped]
    kept = np.asarray([i for i in read if answers.digests[i] not in used], dtype=np.intp)
    return Selection(kept, len(read) - len(kept), len(asked) - len(read))


def judge(
    images: Images,
    answers: Answers,
    selection: Selection,
    calibration: Calibration,
    trivial: Sequence[Trivial],
    *,
    method: str = "",
    draws: int = 1000,
    corners: int | None = None,
    fdr: float | None = None,
) -> Evaluation:
    """Return every figure of a model's answers about labelled images.

    Parameters
    ----------
    images : Images
        N labelled images.
    answers : Answers
        Answers about all of `images`.
    selection : Selection
        Images to judge, of both labels. Pixel figures are over all collected maps.
    calibration : Calibration
        Source of decisions and p-values.
    trivial : sequence of Trivial, length N
    method : str
        Name of the method.
    draws : int
        Bootstrap resamples per image-level interval.
    corners : int, optional
        Maximum number of ROC corners.
    fdr : float, optional
        False-discovery rate of verdicts about all judged images together.

    Returns
    -------
    Evaluation

    Raises
    ------
    InputError
        Normal or anomalous images are missing.
    """
    kept = selection.kept
    labels = images.labels[kept].tolist()
    n_normal, n_anomalous = labels.count(NORMAL), labels.count(ANOMALOUS)
    out = f", besides {selection.n_left_out} that the model was fitted with and {selection.n_skipped} unreadable ones"
    require_both_classes(n_normal, n_anomalous, out)
    rows = _rows(images, answers, kept, calibration, fdr)
    decided = at_alpha(rows, calibration.alpha)
    return Evaluation(
        method=method,
        n_normal=n_normal,
        n_anomalous=n_anomalous,
        n_left_out=selection.n_left_out,
        n_unlabelled=0,
        image=image_figures(rows, draws=draws),
        at_alpha=decided,
        promise=_promise(rows, decided, calibration),
        shift=_shift(rows, calibration),
        at_fdr=None if fdr is None else at_fdr(rows, fdr, largest_stratum(calibration)),
        pixel=None if answers.pixels is None else answers.pixels.figures(),
        types=type_figures(rows),
        trivial=trivial_figures([trivial[i] for i in kept], labels),
        roc=roc_points(rows, corners),
        results=tuple(rows),
        skipped=_skipped(images, answers),
        images=images.subset(kept, f"{images.name} judged"),
    )


def judge_normals(
    images: Images,
    answers: Answers,
    selection: Selection,
    calibration: Calibration,
    *,
    method: str = "",
    fdr: float | None = None,
) -> NormalsEvaluation:
    """Return the false-alarm rate on normal images alone; parameters as for `judge`.

    Raises
    ------
    InputError
        No image is left to judge.
    """
    if not len(selection.kept):
        raise InputError(
            f"0 normal images are left: the model was fitted with {selection.n_left_out}, and {selection.n_skipped} "
            "cannot be read; give normal images that it was not fitted with"
        )
    rows = _rows(images, answers, selection.kept, calibration, fdr)
    decided = at_alpha(rows, calibration.alpha)
    return NormalsEvaluation(
        method=method,
        n_normal=len(rows),
        n_left_out=selection.n_left_out,
        n_unlabelled=0,
        at_alpha=decided,
        promise=_promise(rows, decided, calibration),
        shift=_shift(rows, calibration),
        at_fdr=None if fdr is None else at_fdr(rows, fdr, largest_stratum(calibration)),
        results=tuple(rows),
        skipped=_skipped(images, answers),
    )


def _promise(rows: Sequence[ImageRow], decided: AtAlpha, calibration: Calibration) -> Promise:
    normals = Counter(row.stratum for row in rows if row.label == NORMAL)
    sets = [(n, calibration.of(stratum).n) for stratum, n in normals.items()]
    chance = false_alarms_chance(decided.n_false, sets, calibration.alpha)
    threshold = calibration.threshold if calibration.strata is None else math.nan
    return Promise(calibration.n, threshold, calibration.rate_limit_95, chance)


def _shift(rows: Sequence[ImageRow], calibration: Calibration) -> Shift | None:
    """Compare the normals alone, since their labels are known."""
    normals = [row for row in rows if row.label == NORMAL]
    strata = None if calibration.strata is None else [str(row.stratum) for row in normals]
    return find_shift(calibration, [row.score for row in normals], strata)


def _skipped(images: Images, answers: Answers) -> tuple[SkippedImage, ...]:
    return tuple(SkippedImage(images.source.name(i), answers.skipped[i]) for i in sorted(answers.skipped))


def _rows(
    images: Images, answers: Answers, kept: IntArray, calibration: Calibration, fdr: float | None
) -> list[ImageRow]:
    scores, strata = answers.scores[kept], None if answers.strata is None else [answers.strata[i] for i in kept]
    p_values, rejected = calibration.p_value(scores, strata), calibration.decide(scores, strata)
    together = None if fdr is None else benjamini_hochberg(p_values, fdr)
    masks = images.masks or (None,) * len(images)
    return [
        ImageRow(
            path=images.source.name(int(i)),
            label=int(images.labels[i]),
            type=images.kinds[i] or None,
            score=float(scores[place]),
            p_value=float(p_values[place]),
            anomalous=bool(rejected[place]),
            mask=str(masks[i]) if isinstance(masks[i], (str, Path)) else None,
            stratum=None if strata is None else strata[place],
            anomalous_fdr=None if together is None else bool(together[place]),
        )
        for place, i in enumerate(kept)
    ]
