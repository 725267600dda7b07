"""Consequences of a threshold on the recent history."""

from __future__ import annotations

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
    """Return verdict counts at another alpha, from recent and labelled inspections of the current version.

    Parameters
    ----------
    session : Session
    model_id : int
    calibration : Calibration
        Current calibration at the alpha to preview.
    """
    version = current_version(session, get_model(session, model_id))
    own = (
        select(Inspection.id, Inspection.score, Inspection.label, Inspection.created)
        .where(Inspection.model_id == model_id, Inspection.version_id == version.id, Inspection.score.is_not(None))
        .order_by(Inspection.id.desc())
    )
    recent = session.execute(own.limit(_RECENT)).all()
    labelled = session.execute(own.where(Inspection.label.in_(("normal", "defect"))).limit(_LABELLED)).all()
    rejected = {row.id: bool(calibration.decide([row.score])[0]) for row in labelled}
    defects = [row.id for row in labelled if row.label == "defect"]
    edges, counts = _histogram([row.score for row in recent], calibration)
    return {
        "alpha": calibration.alpha,
        "alpha_min": calibration.alpha_min,
        "threshold": calibration.threshold,
        "rate_limit_95": calibration.rate_limit_95,
        "rejects_per_day": _per_day(recent, calibration),
        "missed": [i for i in defects if not rejected[i]],
        "caught": sum(rejected[i] for i in defects),
        "false_alarms": sum(rejected[row.id] for row in labelled if row.label == "normal"),
        "edges": edges,
        "counts": counts,
    }


def _per_day(rows: Any, calibration: Calibration) -> float | None:
    since = now() - timedelta(days=_DAYS)
    scores = [(row.score, row.created) for row in rows if row.created >= since]
    if not scores:
        return None
    oldest = min(created for _, created in scores)
    days = max((now() - oldest) / timedelta(days=1), 1 / 24)
    return float(calibration.decide([score for score, _ in scores]).sum() / days)


def _histogram(scores: list[float], calibration: Calibration) -> tuple[list[float], list[int]]:
    if not scores:
        return [], []
    low, high = min(*scores, float(calibration.scores[0])), max(*scores, calibration.threshold)
    counts, edges = np.histogram(scores, bins=_BINS, range=(low, high if high > low else low + 1))
    return [float(edge) for edge in edges], [int(count) for count in counts]
