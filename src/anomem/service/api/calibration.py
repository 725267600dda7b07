"""Promised false-alarm rate of a model: change, preview."""

from __future__ import annotations

import math
from typing import Annotated

from fastapi import APIRouter
from pydantic import Field
from sqlalchemy import select

from anomem.errors import InputError
from anomem.runtime.fdr import benjamini_hochberg, least_rejected
from anomem.service.api.deps import Engineer, Id, Operator, StationOf, Viewer
from anomem.service.api.schemas import Alpha, ModelOut, _In, _Out
from anomem.service.errors import MissingError
from anomem.service.preview import preview
from anomem.service.store.tables import Inspection, Model

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
    edges, counts : list
        Histogram of the scores of recent inspections.
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


class BatchIn(_In):
    """Inspections judged together; `fdr` is the largest expected share of good parts among the rejected."""

    inspections: Annotated[list[Annotated[int, Field(ge=1, le=2**62)]], Field(min_length=1, max_length=5000)]
    fdr: Alpha


class BatchOut(_Out):
    """Verdicts of a batch: the rejected inspections, and the smallest number that can be rejected together."""

    n: int
    rejected: list[int]
    least: int


@router.post("/{model_id}/batch")
def judge_batch(model_id: Id, body: BatchIn, _: Operator, station: StationOf) -> BatchOut:
    """Judge recorded inspections of one version together, by Benjamini and Hochberg; nothing is recorded."""
    query = select(Inspection.id, Inspection.p_value, Inspection.version_id)
    wanted = list(dict.fromkeys(body.inspections))
    with station.database.reading() as session:
        chosen = query.where(Inspection.model_id == model_id, Inspection.id.in_(wanted)).order_by(Inspection.id)
        rows = session.execute(chosen).all()
    if len(rows) < len(wanted):
        raise MissingError(f"inspections: {len(wanted) - len(rows)} are not of this model; see its history")
    if len({row.version_id for row in rows}) > 1:
        raise InputError("inspections: scored by several versions; re-score them with one")
    rejected = benjamini_hochberg([math.nan if row.p_value is None else row.p_value for row in rows], body.fdr)
    n = station.serving.batcher(model_id).served.model.calibration_.n
    return BatchOut(
        n=len(rows),
        rejected=[row.id for row, out in zip(rows, rejected, strict=True) if out],
        least=least_rejected(n, len(rows), body.fdr),
    )


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
