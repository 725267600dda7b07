"""Findings of a unit: the judge's figures in the layout of a run line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from anomem.benchmark.fits import Fit, Seen
from anomem.data.labelled_images import Images
from anomem.evaluation.confounds import Trivial
from anomem.evaluation.figures import Evaluation
from anomem.evaluation.judge import judge, select
from anomem.types import ANOMALOUS, NORMAL, FloatArray, IntArray

__all__ = ["Findings", "findings", "line_figures", "unseen_scores"]

FEW, MANY_DRAWS, FEW_DRAWS = 2000, 1000, 200
"""Number of images above which intervals use fewer resamples: they are narrow, and resampling is slow."""
ROC_POINTS = 200
"""Maximum number of ROC corners in a run line."""


@dataclass(frozen=True)
class Findings:
    """Result of a unit.

    Parameters
    ----------
    fit : Fit
        The fit that was judged.
    figures : mapping
        Plain values of the run line.
    seen : Seen or None
        Answers that were judged.
    positions : ndarray of intp or None
        Positions in `images` of the judged ones.
    images : Images or None
    """

    fit: Fit
    figures: Mapping[str, Any]
    seen: Seen | None = None
    positions: IntArray | None = None
    images: Images | None = field(default=None, repr=False)

    @property
    def scores(self) -> FloatArray:
        """Scores of the judged images, in order; empty where images were not judged one by one."""
        if self.seen is None or self.positions is None:
            return np.zeros(0, np.float32)
        return self.seen.scores[self.positions]


def unseen_scores(fit: Fit, images: Images, seen: Seen) -> dict[int, FloatArray]:
    """Return the scores by label, normal and anomalous, of the images that the fit has not learnt from."""
    new = np.asarray([digest not in fit.detector.digests_ for digest in seen.digests], dtype=bool)
    return {label: seen.scores[new & (images.labels == label)] for label in (NORMAL, ANOMALOUS)}


def line_figures(found: Evaluation, draws: int) -> dict[str, Any]:
    """Return the figures of an evaluation in the layout of a run line."""
    return {
        "n_test": {"normal": found.n_normal, "anomalous": found.n_anomalous, "left_out": found.n_left_out},
        "image": {**asdict(found.image), "draws": draws},
        "pixel": found.pixel and asdict(found.pixel),
        "types": {name: asdict(of_type) for name, of_type in found.types.items()},
        "at_alpha": asdict(found.at_alpha),
        "promise": asdict(found.promise),
        "trivial": asdict(found.trivial),
        "roc": asdict(found.roc),
    }


def findings(
    fit: Fit,
    seen: Seen,
    images: Images,
    trivial: Sequence[Trivial],
    *,
    among: Sequence[int] | IntArray | None = None,
    unseen: frozenset[int] = frozenset(),
    extra: Mapping[str, Any] | None = None,
) -> Findings:
    """Judge a fit's answers about images, in the layout of a run line.

    Parameters
    ----------
    fit : Fit
    seen : Seen
        Answers for all of `images`.
    images : Images
    trivial : sequence of Trivial
        One per image of `images`.
    among : sequence of int, optional
        Positions to judge; by default all.
    unseen : frozenset of int
        Content hashes of further images to leave out.
    extra : mapping, optional
        Further figures.

    Returns
    -------
    Findings
        Without images that the detector was fitted with, recognised by content.

    Raises
    ------
    InputError
        Normal or anomalous images are missing.
    """
    selection = select(seen.answers, fit.detector.digests_ | unseen, among)
    draws = MANY_DRAWS if len(selection.kept) <= FEW else FEW_DRAWS
    calibration = fit.detector.calibration_
    found = judge(images, seen.answers, selection, calibration, trivial, draws=draws, corners=ROC_POINTS)
    return Findings(fit, {**line_figures(found, draws), **(extra or {})}, seen, selection.kept, images)
