"""Review: label the inspections whose label teaches most."""

from __future__ import annotations

from fastapi import Request
from fastapi.responses import HTMLResponse
from sqlalchemy import select

from anomem.service.api.deps import Id, QueryId, StationOf, Viewer
from anomem.service.errors import MissingError
from anomem.service.pages.places import model_page
from anomem.service.pages.routing import page_router
from anomem.service.queue import review_queue
from anomem.service.store.inspections import get_inspection
from anomem.service.store.models import get_model
from anomem.service.store.tables import Label

__all__ = ["router"]

router = page_router()

_QUEUE = 24


@router.get("/models/{model_id}/review")
def review(
    request: Request, model_id: Id, caller: Viewer, station: StationOf, inspection: QueryId = None
) -> HTMLResponse:
    """Show the review queue, with `inspection` first."""
    with station.database.reading() as session:
        rows = review_queue(session, get_model(session, model_id), _QUEUE)
        if inspection is not None:
            chosen = get_inspection(session, inspection)
            if chosen.model_id != model_id:
                raise MissingError(f"inspection {inspection}: is not of this model; see the history")
            rows = [chosen, *(row for row in rows if row.id != inspection)]
        types = session.scalars(
            select(Label.type).where(Label.model_id == model_id, Label.type.is_not(None)).distinct().limit(100)
        ).all()
    return model_page(request, "review.html", caller, station, model_id, rows=rows, types=sorted(map(str, types)))
