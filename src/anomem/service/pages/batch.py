"""Batch: the latest parts judged together, so that few of the rejected ones are good."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query, Request
from fastapi.responses import HTMLResponse
from sqlalchemy import select

from anomem.service.api.calibration import BatchIn, judge_batch
from anomem.service.api.deps import Id, Operator, StationOf
from anomem.service.pages.places import model_page
from anomem.service.pages.routing import page_router
from anomem.service.store.models import get_model
from anomem.service.store.tables import Inspection

__all__ = ["router"]

router = page_router()

SIZES = (50, 100, 200, 500, 1000, 5000)
_SHOWN = 96


@router.get("/models/{model_id}/batch")
def batch(
    request: Request,
    model_id: Id,
    caller: Operator,
    station: StationOf,
    n: Annotated[int, Query(ge=1, le=5000)] = 200,
    fdr: Annotated[float, Query(gt=0, lt=1)] = 0.1,
) -> HTMLResponse:
    """Judge the latest parts of the current version together; nothing is recorded."""
    with station.database.reading() as session:
        model = get_model(session, model_id)
        own = select(Inspection).where(Inspection.model_id == model_id, Inspection.version_id == model.current_id)
        rows = session.scalars(own.where(Inspection.score.is_not(None)).order_by(Inspection.id.desc()).limit(n)).all()
    found = None
    if rows:
        body = BatchIn(inspections=[row.id for row in rows], fdr=fdr)
        found = judge_batch(model_id, body, caller, station)
    rejected = set(found.rejected if found is not None else ())
    shown = sorted((row for row in rows if row.id in rejected), key=lambda row: -(row.score or 0.0))
    content = {"n": n, "fdr": fdr, "found": found, "rows": shown[:_SHOWN], "sizes": SIZES}
    return model_page(request, "batch.html", caller, station, model_id, **content)
