"""Verdicts about batches: share of normals among the images that Benjamini-Hochberg rejects."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np

from anomem.benchmark.image_sets import BenchmarkSet
from anomem.benchmark.judging import Findings, unseen_scores
from anomem.benchmark.protocols.base import Opener, Protocol, own_normals
from anomem.benchmark.unit import Task, Unit
from anomem.benchmark.workspace import Workspace
from anomem.params import Each, Range, param, parameters
from anomem.runtime.calibration import Calibration
from anomem.runtime.fdr import benjamini_hochberg, largest_stratum, least_rejected
from anomem.types import ANOMALOUS, NORMAL, FloatArray

__all__ = ["Batches", "false_discoveries"]


@parameters
class Batches(Protocol):
    """False discoveries in batches of test images that are judged together.

    Batches of m images, a share of them anomalous, are drawn repeatedly from the test images. The bound is an average
    over calibrations: a fit is one of them, so read the mean over seeds.

    Parameters
    ----------
    fdrs : tuple of float, default (0.1, 0.2)
        Rates Q: the share of normals among the rejected must not exceed Q (1 - share of anomalous images).
    sizes : tuple of int, default (20, 50)
        Numbers m of images in a batch.
    anomalous : tuple of float, default (0.1, 0.3)
        Shares of anomalous images in a batch.
    redraws : int, default 200
        Batches per size and share.
    """

    name: ClassVar[str] = "batches"
    seeds: ClassVar[tuple[int, ...]] = (0, 1, 2, 3, 4)

    fdrs: tuple[float, ...] = param((0.1, 0.2), Each(Range(0.0, 1.0, low_open=True)), doc="False-discovery rates.")
    sizes: tuple[int, ...] = param((20, 50), Each(Range(2, 10_000, integer=True)), doc="Numbers of images in a batch.")
    anomalous: tuple[float, ...] = param((0.1, 0.3), Each(Range(0.0, 1.0)), doc="Shares of anomalous images.")
    redraws: int = param(200, Range(1, 100_000, integer=True), doc="Batches per size and share.")

    def tasks(self, data: BenchmarkSet, opened: Opener) -> Iterator[Task | str]:
        """Yield the only task."""
        own_normals(data, self.name)
        yield Task(self.name, data.name, data.category, facts=self.options())

    def run(self, unit: Unit, work: Workspace) -> Findings:
        """Fit, score, judge batches of test images."""
        facts, data = unit.task.facts, work.open(unit.task.data, unit.limit)
        fit = work.one_class(unit, data.train)
        seen = work.see(fit, data.test)
        scores = unseen_scores(fit, data.test, seen)
        rng, calibration = np.random.default_rng(unit.seed), fit.detector.calibration_
        found = [
            false_discoveries(calibration, scores[NORMAL], scores[ANOMALOUS], fdr, m, share, facts["redraws"], rng)
            for fdr in facts["fdrs"]
            for m in facts["sizes"]
            for share in facts["anomalous"]
        ]
        return Findings(fit, {"batches": found}, seen, np.arange(len(seen.scores)))


def false_discoveries(
    calibration: Calibration,
    normal: FloatArray,
    anomalous: FloatArray,
    fdr: float,
    m: int,
    share: float,
    redraws: int,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """Judge random batches of m images, drawn with replacement, `share` of them anomalous.

    Returns
    -------
    dict
        ``fdr``, ``m``, ``n_anomalous``; ``bound`` = fdr (1 - share); ``false`` share of normals among the rejected, and
        ``detection``, means over batches, 0 for a batch without a rejection; ``least_rejected``.
    """
    n_anomalous = round(share * m)
    truth = np.arange(m) < n_anomalous
    false, detected = [], []
    for _ in range(redraws):
        scores = np.concatenate([rng.choice(anomalous, n_anomalous), rng.choice(normal, m - n_anomalous)])
        rejected = benjamini_hochberg(calibration.p_value(scores), fdr)
        false.append((rejected & ~truth).sum() / max(rejected.sum(), 1))
        detected.append((rejected & truth).sum() / n_anomalous if n_anomalous else np.nan)
    return {
        "fdr": fdr,
        "m": m,
        "n_anomalous": n_anomalous,
        "bound": fdr * (1 - n_anomalous / m),
        "false": float(np.mean(false)),
        "detection": float(np.mean(detected)),
        "least_rejected": least_rejected(largest_stratum(calibration), m, fdr),
    }
