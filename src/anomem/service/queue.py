"""Review queue: inspections ordered by the worth of their label."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from sqlalchemy import select
from sqlalchemy.orm import Session

from anomem.service.store.tables import Inspection, Model

__all__ = ["review_queue", "worth_order"]

_RECENT = 2000


def review_queue(session: Session, model: Model, limit: int) -> list[Inspection]:
    """Return unlabelled inspections among the recent ones of the current version, one per image."""
    query = (
        select(Inspection)
        .where(Inspection.model_id == model.id, Inspection.label.is_(None), Inspection.score.is_not(None))
        .order_by(Inspection.id.desc())
        .limit(_RECENT)
    )
    found: dict[str, Inspection] = {}
    for row in session.scalars(query):
        if row.version_id == model.current_id:
            found.setdefault(row.image_sha256, row)
    rows = list(found.values())
    scores, p_values = [row.score or 0.0 for row in rows], [row.p_value or 1.0 for row in rows]
    return [rows[i] for i in worth_order(scores, p_values, model.alpha, limit)]


def worth_order(
    scores: Sequence[float], p_values: Sequence[float], alpha: float, limit: int | None = None
) -> list[int]:
    """Return positions in turns: the most extreme, the most uncertain, and the one least like those chosen.

    Parameters
    ----------
    scores : sequence of float
        Higher is more anomalous.
    p_values : sequence of float
    alpha : float
        The verdict changes there: uncertain are p-values near it, on a logarithmic scale.
    limit : int, optional
        Number of positions.

    Examples
    --------
    >>> worth_order([9.0, 1.0, 5.0, 5.1], [0.01, 0.9, 0.1, 0.09], 0.1)
    [0, 2, 1, 3]
    """
    values = np.asarray(scores, np.float64)
    extreme = np.argsort(-values, kind="stable").tolist()
    uncertain = np.argsort([abs(math.log(p / alpha)) for p in p_values], kind="stable").tolist()
    chosen: list[int] = []
    left = set(range(len(values)))
    while left and (limit is None or len(chosen) < limit):
        turn = len(chosen) % 3
        pick = _farthest(values, chosen, left) if turn == 2 else _first(extreme if turn == 0 else uncertain, left)
        chosen.append(pick)
        left.remove(pick)
    return chosen


def _first(order: Sequence[int], left: set[int]) -> int:
    return next(i for i in order if i in left)


def _farthest(values: npt.NDArray[np.float64], chosen: Sequence[int], left: set[int]) -> int:
    among = np.asarray(sorted(left))
    distance = np.abs(values[among, None] - values[list(chosen[-50:])]).min(axis=1)
    return int(among[distance.argmax()])
