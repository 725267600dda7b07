"""Consequences of a false-alarm rate on the recent history."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from anomem.runtime.calibration import Calibration
from anomem.service.store.models import current_version, get_model
from anomem.service.store.tables import Inspection, now

__all__ = ["preview"]

_DAYS = 7
_RECENT = 5000
_LABELLED = 2000
_BINS = 60


def preview(session: Session, model_id: int, calibration: Calibration) -> dict[str, Any]:
    """Return verdict counts at another alpha, from the p-values of recent and labelled inspections.

    Parameters
    ----------
    session : Session
    model_id : int
    calibration : Calibration
        Current calibration at the alpha to preview.
    """
    version = current_version(session, get_model(session, model_id))
    row = Inspection
    own = (
        select(row.id, row.score, row.p_value, row.label, row.created)
        .where(row.model_id == model_id, row.version_id == version.id, row.score.is_not(None))
        .order_by(row.id.desc())
    )
    recent = session.execute(own.limit(_RECENT)).all()
    labelled = session.execute(own.where(row.label.in_(("normal", "defect"))).limit(_LABELLED)).all()
    alpha = calibration.alpha
    defects = [found for found in labelled if found.label == "defect"]
    missed = [found.id for found in defects if found.p_value > alpha]
    threshold = calibration.threshold if calibration.strata is None else None
    edges, counts = _histogram([found.score for found in recent], threshold)
    return {
        "alpha": alpha,
        "alpha_min": calibration.alpha_min,
        "threshold": threshold,
        "rate_limit_95": calibration.rate_limit_95,
        "rejects_per_day": _per_day(recent, alpha),
        "missed": missed,
        "caught": len(defects) - len(missed),
        "false_alarms": sum(found.p_value <= alpha for found in labelled if found.label == "normal"),
        "edges": edges,
        "counts": counts,
    }


def _per_day(rows: Sequence[Any], alpha: float) -> float | None:
    end = now()
    recent = [row for row in rows if row.created >= end - timedelta(days=_DAYS)]
    if not recent:
        return None
    days: float = max((end - min(row.created for row in recent)) / timedelta(days=1), 1 / 24)
    return sum(bool(row.p_value <= alpha) for row in recent) / days


def _histogram(scores: Sequence[float], threshold: float | None) -> tuple[list[float], list[int]]:
    if not scores:
        return [], []
    shown = [*scores, *([] if threshold is None else [threshold])]
    low, high = min(shown), max(shown)
    counts, edges = np.histogram(scores, bins=_BINS, range=(low, high if high > low else low + 1))
    return [float(edge) for edge in edges], [int(count) for count in counts]
