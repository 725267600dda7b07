"""Confound check: image AUROC per set of grey mean, grey deviation, image size and file size alone."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from anomem.benchmark.unit import canonical
from anomem.evaluation.confounds import FEATURES, check_confound
from anomem.report.benchmark.runs import Column, Run

__all__ = ["Check", "Confounds"]


@dataclass(frozen=True)
class Check:
    """Confound check of one column's test images.

    Parameters
    ----------
    areas : mapping of str to float or None
        AUROC of each of `FEATURES`, in its better direction; None: not measured.
    best_method : float or None
        Image AUROC of the best method, at its best setting, on the same images.
    confounded : bool
        True where a trivial feature comes near the best method and exceeds chance.
    """

    areas: Mapping[str, float | None]
    best_method: float | None
    confounded: bool

    @property
    def measured(self) -> bool:
        """True where any feature was measured."""
        return any(area is not None for area in self.areas.values())


class Confounds:
    """Trivial features of all test images of a report.

    Lines of peers need not have them: features of one line apply to every line with the same images.

    Parameters
    ----------
    runs : iterable of Run
    """

    def __init__(self, runs: Iterable[Run]) -> None:
        self._areas: dict[str, dict[str, float]] = {}
        self._counts: dict[str, tuple[float, float]] = {}
        for run in runs:
            if run.images is None:
                continue
            for name, area in run.trivial.items():
                self._areas.setdefault(run.images, {}).setdefault(name, area)
            normal, anomalous = run.n_normal, run.n_anomalous
            if normal is not None and anomalous is not None and min(normal, anomalous) >= 1:
                self._counts.setdefault(run.images, (normal, anomalous))

    def check(self, runs: Sequence[Run]) -> Check:
        """Check the test images of some lines: means over their different test images.

        Parameters
        ----------
        runs : sequence of Run
            Lines of one column, all methods.
        """
        images = dict.fromkeys(run.images for run in runs if run.images is not None)
        known = [self._areas[name] for name in images if name in self._areas]
        areas = {name: _mean([found[name] for found in known if name in found]) for name in FEATURES}
        by_setting: dict[tuple[str, ...], list[float]] = {}
        for run in runs:
            if "image_auroc" in run.values:
                setting = (run.label, run.parameters, canonical(run.facts))
                by_setting.setdefault(setting, []).append(run.values["image_auroc"])
        best = max((statistics.fmean(values) for values in by_setting.values()), default=None)
        counts = [self._counts[name] for name in images if name in self._counts]
        confounded = False
        if best is not None and counts:
            n_normal, n_anomalous = (round(statistics.fmean(column)) for column in zip(*counts, strict=True))
            confounded = check_confound(areas, best, n_normal, n_anomalous).confounded
        return Check(areas, best, confounded)


def column_runs(runs: Iterable[Run]) -> list[list[Run]]:
    """Group lines by protocol and column, trials separately, in order of first appearance."""
    found: dict[tuple[str, Column, tuple[Any, Any]], list[Run]] = {}
    for run in runs:
        found.setdefault((run.protocol, run.column, run.trial), []).append(run)
    return list(found.values())


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None
