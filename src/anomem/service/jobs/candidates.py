"""Judgement of a candidate: labelled defects, each scored by a refit without it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from anomem.detector import Detector
from anomem.service.jobs.scoring import scored
from anomem.service.jobs.spec import ImageRow, Spec
from anomem.types import Record

__all__ = ["folds_of", "judged", "on_sample"]

_FOLDS = 5
_ROUNDING = 1e-9


def folds_of(hashes: Sequence[str]) -> list[int]:
    """Return the fold of each image, at most five folds, by content and not by order; equal content shares one.

    Examples
    --------
    >>> folds_of(["c", "a", "b"]), folds_of(["a"])
    ([2, 0, 1], [0])
    """
    order = {sha256: i for i, sha256 in enumerate(sorted(set(hashes)))}
    return [order[sha256] % _FOLDS for sha256 in hashes]


def judged(base: Detector, spec: Spec, defects: Sequence[ImageRow], report: Callable[[Record], None]) -> dict[str, Any]:
    """Return cross-validated figures of a refit to labelled defects, and those of the base on the same images.

    Parameters
    ----------
    base : Detector
        Current version; its second stage is refitted per fold.
    spec : Spec
    defects : sequence of ImageRow
        Labelled defects that the fit has not seen.
    report : callable
        Progress.

    Returns
    -------
    dict
        `cross_validated` and `before`: n, detection at alpha, AUROC against the calibration normals; `out_of_fold`:
        p-value by image hash; `not_worse`, and `better` in one figure too. With one defect there is
        nothing to cross-validate: None.

    Notes
    -----
    Calibration normals are no part of a refit, so that their scores are out of sample in every fold. The base is judged
    on its own out-of-fold p-values of images that it was refitted to, on its scores of the others.
    """
    before = _before(base, spec, defects)
    if len({row.sha256 for row in defects}) < 2:
        return {"cross_validated": None, "before": before, "out_of_fold": {}, "not_worse": None, "better": None}
    fold_of = folds_of([row.sha256 for row in defects])
    p_values: dict[str, float] = {}
    areas: list[float] = []
    folds = sorted(set(fold_of))
    for done, fold in enumerate(folds, start=1):
        kept = [row.sample() for row, own in zip(defects, fold_of, strict=True) if own != fold]
        held = [row for row, own in zip(defects, fold_of, strict=True) if own == fold]
        base.label(kept, max_pixels=spec.max_pixels)
        found = _placed(base, held, spec)
        p_values |= {row.sha256: p for row, (p, _) in zip(held, found, strict=True)}
        areas += [area for _, area in found]
        report(Record("cross-validate", done, len(folds)))
    after = _figures(list(p_values.values()), areas, _alpha(base, spec))
    gains = [after[name] - before[name] for name in ("detection", "auroc")]
    verdicts = {"not_worse": min(gains) >= -_ROUNDING, "better": min(gains) >= -_ROUNDING and max(gains) > _ROUNDING}
    return {"cross_validated": after, "before": before, "out_of_fold": p_values, **verdicts}


def on_sample(rows: Sequence[ImageRow], rejected: Sequence[bool]) -> dict[str, int]:
    """Return the verdicts on the unselected sample: a false alarm is a rejected part that is confirmed normal.

    Parameters
    ----------
    rows : sequence of ImageRow
        With the verdicts so far.
    rejected : sequence of bool
        Verdicts of the candidate.
    """
    verdicts = [(row.anomalous, after, row.label) for row, after in zip(rows, rejected, strict=True)]
    confirmed = [verdict for verdict in verdicts if verdict[2] == "normal"]
    return {
        "confirmed": len(confirmed),
        "false_alarms_before": sum(before for before, _, _ in confirmed),
        "false_alarms": sum(after for _, after, _ in confirmed),
        "rejected_unlabelled": sum(after for _, after, label in verdicts if label is None),
    }


def _before(base: Detector, spec: Spec, defects: Sequence[ImageRow]) -> dict[str, Any]:
    found = _placed(base, defects, spec)
    known = spec.out_of_fold
    p_values = [known.get(row.sha256, p) for row, (p, _) in zip(defects, found, strict=True)]
    # 1 - p is the share of normals below, but for the image itself.
    areas = [
        min(1.0, 1 - known[row.sha256] + base.calibration_.alpha_min) if row.sha256 in known else area
        for row, (_, area) in zip(defects, found, strict=True)
    ]
    return _figures(p_values, areas, _alpha(base, spec))


def _placed(model: Detector, rows: Sequence[ImageRow], spec: Spec) -> list[tuple[float, float]]:
    """Return the p-value of each image, and the share of calibration normals with a lower score (ties count half)."""
    calibration = model.calibration_
    placed = []
    for result in scored(model, rows, spec, lambda _: None, "labels"):
        if result.error is not None:
            placed.append((1.0, 0.5))
            continue
        below = float((calibration.scores < np.float32(result.score)).mean())
        ties = float((calibration.scores == np.float32(result.score)).mean())
        placed.append((result.p_value, below + ties / 2))
    return placed


def _figures(p_values: Sequence[float], areas: Sequence[float], alpha: float) -> dict[str, Any]:
    return {
        "n": len(p_values),
        "detection": float(np.mean(np.asarray(p_values) <= alpha)),
        "auroc": float(np.mean(areas)),
        "alpha": alpha,
    }


def _alpha(model: Detector, spec: Spec) -> float:
    return max(spec.alpha, model.calibration_.alpha_min)
