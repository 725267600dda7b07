"""Drift alarm: a restarted conformal martingale on the unselected sample.

Each new score is ranked among the calibration scores and all earlier scores of the sample. As long as all of them are
exchangeable, the smoothed ranks are independent and uniform on [0, 1], however small the calibration set is [1]_. A
martingale that starts at 1 and bets against uniformity stays below 1 / d for ever with probability 1 - d (Ville's
inequality); it is restarted every `restart` images, so that old images do not dilute a new change [2]_.

References
----------
.. [1] Vovk, Gammerman and Shafer, "Algorithmic Learning in a Random World", 2005, ch. 7.
.. [2] Vovk, Petej, Nouretdinov, Ahlberg, Carlsson and Gammerman, "Retrain or not retrain: conformal test martingales
   for change-point detection", 2021: the simple jumper.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["DriftRule", "DriftTracker"]

_BETS = np.asarray([-1.5, -0.5, 0.0, 0.5, 1.5])
"""Slopes of the betting functions 1 + slope (p - 1/2); negative ones gain from high scores."""


@dataclass(frozen=True)
class DriftRule:
    """Strength of the alarm.

    Parameters
    ----------
    chance : float
        d, the highest probability of a false alarm between two restarts.
    restart : int
        Images between two restarts.
    jump : float
        Share of the capital that is spread anew over all bets before each image.
    """

    chance: float = 1e-3
    restart: int = 1000
    jump: float = 0.01

    @property
    def false_alarms_per_10000(self) -> float:
        """Bound on the expected number of false alarms per 10,000 images."""
        return 10_000 / self.restart * self.chance / (1 - self.chance)


class DriftTracker:
    """Martingale of one version and stratum.

    Parameters
    ----------
    calibration : iterable of float
        Calibration scores.
    rule : DriftRule
    upward : bool
        Bet on higher scores only. Calibration scores by models without a fold are a little higher than those of new
        normals: such bets lose by that on average, and the bound holds.

    Examples
    --------
    >>> tracker = DriftTracker(range(50))
    >>> [tracker.add(100.0 + i, 0.5) for i in range(40)].index(True)
    15
    """

    def __init__(self, calibration: Iterable[float], rule: DriftRule | None = None, *, upward: bool = False) -> None:
        self.rule = rule or DriftRule()
        self._bets = _BETS[_BETS <= 0] if upward else _BETS
        self.n, self.alarms = 0, 0
        self._known = sorted(float(score) for score in calibration)
        self._since = 0
        self._capital = self._even()

    @property
    def log10_evidence(self) -> float:
        """Common logarithm of the martingale; 0 without evidence."""
        return math.log10(float(self._capital.sum()))

    def add(self, score: float, tie: float) -> bool:
        """Add a score of the sample, and return True for an alarm.

        Parameters
        ----------
        score : float
        tie : float
            Uniform on [0, 1], independent of everything else: places the score among equal ones.
        """
        p = self._p_value(score, tie)
        self.n, self._since = self.n + 1, self._since + 1
        total = self._capital.sum()
        self._capital = (1 - self.rule.jump) * self._capital + self.rule.jump * total / len(self._bets)
        self._capital = self._capital * (1 + self._bets * (p - 0.5))
        alarm = bool(self._capital.sum() >= 1 / self.rule.chance)
        self.alarms += alarm
        if alarm or self._since >= self.rule.restart:
            self._since, self._capital = 0, self._even()
        return alarm

    def _p_value(self, score: float, tie: float) -> float:
        """Return the smoothed rank of a score, high scores low, and remember the score."""
        first, last = bisect.bisect_left(self._known, score), bisect.bisect_right(self._known, score)
        above, equal = len(self._known) - last, last - first
        p = (above + tie * (equal + 1)) / (len(self._known) + 1)
        self._known.insert(first, score)
        return p

    def _even(self) -> npt.NDArray[np.float64]:
        """Return a capital of 1, spread over all bets."""
        return np.full(len(self._bets), 1 / len(self._bets))
