"""Drift of a model's images."""

from __future__ import annotations

from datetime import datetime

from fastapi import APIRouter
from sqlalchemy import select

from anomem.service.api.deps import Id, StationOf, Viewer
from anomem.service.api.schemas import _Out
from anomem.service.drift import DriftRule
from anomem.service.store.models import get_model
from anomem.service.store.tables import Drift

__all__ = ["router"]

router = APIRouter(prefix="/api/v1/models", tags=["drift"])


class DriftState(_Out):
    """State of one version and stratum; an alarm comes at `log10_evidence` = -log10(chance)."""

    version_id: int
    stratum: str
    n: int
    log10_evidence: float
    alarms: int
    alarmed: datetime | None
    alarm_inspection_id: int | None


class DriftOut(_Out):
    """States of the current version, and the bound on false alarms per 10,000 drawn images."""

    states: list[DriftState]
    chance: float
    false_alarms_per_10000: float


@router.get("/{model_id}/drift")
def drift(model_id: Id, _: Viewer, station: StationOf) -> DriftOut:
    """Return the drift of the unselected sample, per stratum."""
    rule = DriftRule()
    with station.database.reading() as session:
        model = get_model(session, model_id)
        rows = session.scalars(select(Drift).where(Drift.version_id == model.current_id).order_by(Drift.stratum)).all()
    states = [DriftState.model_validate(row) for row in rows]
    return DriftOut(states=states, chance=rule.chance, false_alarms_per_10000=rule.false_alarms_per_10000)
