"""Workspace of units: keeps image sets open, and caches the fits and observations that units share."""

from __future__ import annotations

import numpy as np

from anomem.benchmark.fits import Fit, Observed, Seen, Settings, conclude, fit_images, observe, refit, score
from anomem.benchmark.image_sets import BenchmarkSet, open_bench_set
from anomem.benchmark.unit import Unit
from anomem.data.labelled_images import Images
from anomem.detectors import get
from anomem.evaluation.confounds import GreyRecorder, Trivial, trivial_features
from anomem.nn.scorer import TwoStageScorer

__all__ = ["Workspace"]


class Workspace:
    """Cache of fits and scores for units that run one by one.

    Shared results are bit for bit those that each unit would compute alone: run lines depend neither on the order of
    units nor on the number of workers.

    Parameters
    ----------
    settings : Settings
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._sets: dict[tuple[str, int | None], BenchmarkSet] = {}
        self._fits: dict[str, Fit] = {}
        self._trivial: dict[str, list[Trivial]] = {}

    def open(self, name: str, limit: int | None) -> BenchmarkSet:
        """Open an image set; the last two are cached."""
        if (name, limit) not in self._sets:
            while len(self._sets) > 1:
                self._sets.pop(next(iter(self._sets)))
            self._sets[name, limit] = open_bench_set(name, self.settings.root).thinned(limit)
        return self._sets[name, limit]

    def one_class(self, unit: Unit, train: Images) -> Fit:
        """Fit the unit's method to normal images; units of one ``fit_key`` share the fit."""
        if unit.fit_key in self._fits:
            self._fits[unit.fit_key].shared = True
        else:
            # One at a time: a fit and its cached answers may fill the memory.
            self._fits.clear()
            self._trivial.clear()
            self._fits[unit.fit_key] = fit_images(unit, train, self.settings)
        return self._fits[unit.fit_key]

    def with_labels(
        self, unit: Unit, train: Images, labelled: Images, *, masks: bool = False, anew: bool = False
    ) -> Fit:
        """Fit the unit's method to normal images and labelled anomalies.

        With a second stage, only that is refitted, on the shared one-class fit.

        Parameters
        ----------
        unit : Unit
        train : Images
            Normal images.
        labelled : Images
            Anomalous images.
        masks : bool
            Pass the masks of the labelled images, too.
        anew : bool
            Fit everything with the labels, first stages that take them included.
        """
        if get(unit.variant.method).supervision == "optional" and not anew:
            first = self.one_class(unit, train)
            if isinstance(first.detector.scorer_, TwoStageScorer):
                return refit(first, labelled, self.settings, masks=masks)
        everything = train.joined(labelled, f"{train.name} with labels")
        return fit_images(unit, everything, self.settings, masks=masks)

    def see(self, fit: Fit, images: Images, *, maps: bool = False) -> Seen:
        """Score images; answers of a one-class fit are cached.

        A refitted second stage scores cached first-stage output, in the batches of standard scoring. The first batch is
        checked for identical scores; where they differ, every image is scored.
        """
        for key in (f"{images.name} with maps", images.name)[: 1 if maps else 2]:
            if key in fit.seen:
                return fit.seen[key]
        if fit.first is not None and not maps:
            observed = self._observed(fit, fit.first, images)
            if observed is not None:
                return conclude(fit, observed, images, self.settings)
        recorder = GreyRecorder(images.source)
        seen = score(fit, images, recorder, self.settings, maps=maps)
        if images.name not in self._trivial:
            self._trivial[images.name] = trivial_features(images, recorder)
        if fit.first is None:
            fit.seen[f"{images.name} with maps" if maps else images.name] = seen
        return seen

    def trivial(self, images: Images) -> list[Trivial]:
        """Return the trivial features of every image; recorded while scoring."""
        if images.name not in self._trivial:
            recorder = GreyRecorder(images.source)
            for i in range(len(images)):
                recorder.load(i)
            self._trivial[images.name] = trivial_features(images, recorder)
        return self._trivial[images.name]

    def _observed(self, fit: Fit, first: Fit, images: Images) -> Observed | None:
        """Return cached first-stage output; None where scoring from it differs from standard scoring."""
        if images.name not in first.observed:
            found = observe(first, images, self.settings)
            if found is not None:
                count = min(self.settings.batch_size, len(images))
                plain = fit.detector.anomaly_score(images.source.subset(range(count)), **self.settings.running)
                concluded = conclude(fit, found, images, self.settings).scores[:count]
                found = found if np.array_equal(plain, concluded) else None
            first.observed[images.name] = found
        return first.observed[images.name]
