"""Evaluation of a fitted detector on labelled images that it was not fitted with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from anomem.data.labelled_images import as_labelled
from anomem.errors import InputError
from anomem.evaluation.confounds import GreyRecorder, trivial_features
from anomem.evaluation.figures import Evaluation, NormalsEvaluation, require_both_classes
from anomem.evaluation.judge import answer_steps, judge, judge_normals, select, with_masks
from anomem.runtime.groups import Groups
from anomem.runtime.progress import Progress, run_to_end
from anomem.types import NORMAL, UNKNOWN, ImagesLike, Record

if TYPE_CHECKING:
    from anomem.loading import Model

__all__ = ["evaluate", "evaluate_normals"]


def evaluate(
    detector: Model,
    images: ImagesLike,
    y: Sequence[int] | None = None,
    *,
    masks: Sequence[Any] | None = None,
    types: Sequence[str | None] | None = None,
    strata: Groups = None,
    fdr: float | None = None,
    maps: bool = True,
    batch_size: int = 16,
    workers: int | None = None,
    skip_bad: bool = False,
    device: str = "auto",
    max_pixels: int | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Return every figure of a model on labelled images.

    Images that the model was fitted, tuned, calibrated or labelled with are recognised by content and
    left out. Images of unknown label are not scored.

    Parameters
    ----------
    detector : Detector or Session
        Fitted.
    images : folder, table, Dataset, sequence of Sample, paths, arrays or tensors
        Labelled images, on disk, inside zips and array files, or in memory. A folder or table is read by its
        layout; of a Dataset the test part is evaluated, or all of it where it has no split.
    y : sequence of int, length N, optional
        0 normal, 1 anomalous, -1 unknown; required where `images` have no labels.
    masks : sequence, length N, optional
        Per image a bool array (H, W) of the image's size, a path, or None.
    types : sequence of str or None, length N, optional
        Defect types.
    strata : sequence, "folder" or regular expression, optional
        Strata of the images, for a model with strata; by default theirs, or as in its calibration.
    fdr : float, optional
        False-discovery rate of verdicts about all images together; see `anomem.runtime.fdr.benjamini_hochberg`.
    maps : bool
        Judge the maps, too. Requires a mask for at least one anomalous image and a method
        that localizes; else pixel figures are None. Every pixel of a normal image counts as
        defect-free. Anomalous images without a mask are left out of the pixel figures. Pixel scores
        stay in memory until the end, 4 bytes per pixel (8 per defective one); maps do not.
    batch_size : int
        Images per forward pass.
    workers : int or None
        Decoding threads.
    skip_bad : bool
        Skip and list unreadable images and masks instead of raising an error.
    device : str
        "auto", or a torch device.
    max_pixels : int, optional
        Images and masks with more pixels are refused before they are decoded; by default 120 million.
    progress : callable, optional
        Called with a Record per image.

    Returns
    -------
    Evaluation

    Raises
    ------
    InputError
        Labels are missing, or no normal or no anomalous image is left.
    ImageError
        An image or mask cannot be read, and `skip_bad` is off.
    """
    given = as_labelled(images, y, masks=masks, types=types, strata=strata, max_pixels=max_pixels)
    labelled = given.subset(np.flatnonzero(given.labels != UNKNOWN), given.name)
    n_normal = int((labelled.labels == 0).sum())
    require_both_classes(n_normal, len(labelled) - n_normal)
    recorder = GreyRecorder(labelled.source)
    steps = answer_steps(
        detector,
        labelled,
        source=recorder,
        strata=strata if isinstance(strata, str) else None,
        maps=maps and detector.localizes and with_masks(labelled),
        batch_size=batch_size,
        workers=workers,
        skip_bad=skip_bad,
        device=device,
    )
    answers = run_to_end(steps, progress and (lambda step: progress(Record("evaluate", *step))))
    selection = select(answers, detector.digests_)
    trivial = trivial_features(labelled, recorder, of=selection.kept)
    found = judge(labelled, answers, selection, detector.calibration_, trivial, method=detector.name, fdr=fdr)
    return replace(found, n_unlabelled=len(given) - len(labelled))


def evaluate_normals(
    detector: Model,
    images: ImagesLike,
    *,
    strata: Groups = None,
    fdr: float | None = None,
    batch_size: int = 16,
    workers: int | None = None,
    skip_bad: bool = False,
    device: str = "auto",
    max_pixels: int | None = None,
    progress: Progress | None = None,
) -> NormalsEvaluation:
    """Return the false-alarm rate of a model on normal images alone; parameters as for `evaluate`.

    Images that are labelled anomalous or unknown are not scored.

    Raises
    ------
    InputError
        No normal image, or none that the model was not fitted with.
    """
    given = as_labelled(images, strata=strata, max_pixels=max_pixels)
    normals = given.subset(given.positions(NORMAL), given.name)
    if not len(normals):
        raise InputError("0 normal images; add some, or use `score` for images without labels")
    steps = answer_steps(
        detector,
        normals,
        strata=strata if isinstance(strata, str) else None,
        maps=False,
        batch_size=batch_size,
        workers=workers,
        skip_bad=skip_bad,
        device=device,
    )
    answers = run_to_end(steps, progress and (lambda step: progress(Record("evaluate", *step))))
    selection = select(answers, detector.digests_)
    found = judge_normals(normals, answers, selection, detector.calibration_, method=detector.name, fdr=fdr)
    return replace(found, n_unlabelled=len(given) - len(normals))
