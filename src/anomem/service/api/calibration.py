"""Promised false-alarm rate of a model: change, preview."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import Field

from anomem.service.api.deps import Engineer, Id, StationOf, Viewer
from anomem.service.api.schemas import Alpha, ModelOut, _In, _Out
from anomem.service.preview import preview
from anomem.service.store.tables import Model

__all__ = ["router"]

router = APIRouter(prefix="/api/v1/models", tags=["calibration"])


class AlphaIn(_In):
    """New promised false-alarm rate."""

    alpha: Alpha


class PreviewOut(_Out):
    """Consequences of a false-alarm rate, on the recent history of the current version.

    Parameters
    ----------
    alpha, alpha_min, rate_limit_95 : float
    threshold : float or None
        None where each stratum has its own.
    rejects_per_day : float or None
        Expected rejects per day, from the last seven days; None without history.
    missed : list of int
        Inspections labelled defect that would pass.
    caught : int
        Inspections labelled defect that would be rejected.
    false_alarms : int
        Inspections labelled normal that would be rejected.
    histogram : list
        Edges and counts of the scores of recent inspections.
    """

    alpha: float
    alpha_min: float
    threshold: float | None
    rate_limit_95: float
    rejects_per_day: float | None
    missed: list[int]
    caught: int
    false_alarms: int
    edges: list[float] = Field(default=[])
    counts: list[int] = Field(default=[])


@router.put("/{model_id}/alpha", response_model=ModelOut)
def set_alpha(model_id: Id, body: AlphaIn, caller: Engineer, station: StationOf) -> Model:
    """Change the promised false-alarm rate; verdicts of the history stay."""
    return station.lifecycle.set_alpha(model_id, body.alpha, caller.name)


@router.get("/{model_id}/preview")
def preview_of(model_id: Id, _: Viewer, station: StationOf, alpha: float | None = None) -> PreviewOut:
    """Return the consequences of a false-alarm rate, by default the present one."""
    calibration = station.serving.batcher(model_id).served.model.calibration_
    chosen = calibration if alpha is None else calibration.with_alpha(alpha)
    with station.database.reading() as session:
        return PreviewOut.model_validate(preview(session, model_id, chosen))
