"""Verdicts about groups of images: the highest score judges the group."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, replace

import numpy as np

from anomem.errors import InputError
from anomem.runtime.calibration import Calibration
from anomem.runtime.fdr import benjamini_hochberg
from anomem.runtime.scored import Scored

__all__ = ["ScoredGroup", "judge_groups"]


@dataclass(frozen=True)
class ScoredGroup:
    """Verdict about one group.

    Parameters
    ----------
    group : hashable
        The group; the image's name for an image that is a group of its own.
    images : tuple of str
        Names of its readable images.
    score : float
        Highest score of them.
    p_value : float
        P-value of the highest score; see `anomem.runtime.calibration.Calibration.group_p_value`.
    anomalous : bool or None
        True if p_value <= alpha; None where too few calibration groups have as many images to reject any at alpha.
    alpha_min : float
        Smallest alpha that the calibration groups of as many images carry; 1 where there are none.
    anomalous_fdr : bool or None
        Verdict at a false-discovery rate, groups as hypotheses; None unless requested.
    stratum : str or None
        Stratum of its images.
    """

    group: Hashable
    images: tuple[str, ...]
    score: float
    p_value: float
    anomalous: bool | None
    alpha_min: float
    anomalous_fdr: bool | None = None
    stratum: str | None = None


def judge_groups(
    results: Iterable[Scored], calibration: Calibration, fdr: float | None = None
) -> tuple[ScoredGroup, ...]:
    """Judge each group of scored images.

    Parameters
    ----------
    results : iterable of Scored
        Results with groups; unreadable images are left out.
    calibration : Calibration
        Calibration of the model, of groups of at least as many images.
    fdr : float, optional
        False-discovery rate of further verdicts by `benjamini_hochberg` over the groups.

    Raises
    ------
    InputError
        A group with images of two strata.
    """
    members: dict[tuple[str, Hashable], list[Scored]] = {}
    for result in results:
        key = ("alone", result.name) if result.group is None else ("group", result.group)
        if result.error is None:
            members.setdefault(key, []).append(result)
    found = tuple(_judged(name, of_group, calibration) for (_, name), of_group in members.items())
    if fdr is None:
        return found
    rejected = benjamini_hochberg([group.p_value for group in found], fdr)
    return tuple(replace(group, anomalous_fdr=bool(r)) for group, r in zip(found, rejected, strict=True))


def _judged(name: Hashable, of_group: list[Scored], calibration: Calibration) -> ScoredGroup:
    strata = {result.stratum for result in of_group}
    if len(strata) > 1:
        raise InputError(
            f"group {name}: images of two strata, {', '.join(sorted(map(str, strata)))}; name groups within"
        )
    stratum, scores = strata.pop(), np.asarray([result.score for result in of_group])
    p_value, least = (
        calibration.group_p_value(scores, stratum),
        calibration.group_p_value(np.full(scores.shape, np.inf), stratum),
    )
    anomalous = None if least > calibration.alpha else p_value <= calibration.alpha
    images = tuple(result.name for result in of_group)
    return ScoredGroup(name, images, float(scores.max()), p_value, anomalous, least, None, stratum)
