"""Live view: the latest inspection, large."""

from __future__ import annotations

from fastapi import Request
from fastapi.responses import RedirectResponse, Response

from anomem.service.api.deps import Id, StationOf, Viewer
from anomem.service.pages.places import model_page
from anomem.service.pages.rendering import is_fragment
from anomem.service.pages.routing import page_router
from anomem.service.store.inspections import Filters, get_inspection, page
from anomem.service.store.models import get_model

__all__ = ["router"]

router = page_router()

_RECENT = 100
_STRIP = 12


@router.get("/models/{model_id}")
def live(request: Request, model_id: Id, caller: Viewer, station: StationOf) -> Response:
    """Show the latest inspections; a model without a version is sent to its good parts."""
    with station.database.reading() as session:
        model = get_model(session, model_id)
        recent = page(session, Filters(model_id), limit=_RECENT)
    if model.current_id is None:
        return RedirectResponse(f"/models/{model_id}/parts", 303)
    content = {
        "recent": recent,
        "strip": recent[:_STRIP],
        "rejected": sum(row.anomalous for row in recent),
        "most": station.settings.max_request_images,
    }
    name = "parts/live.html" if is_fragment(request) else "live.html"
    return model_page(request, name, caller, station, model_id, **content)


@router.get("/inspections/{inspection_id}")
def inspection(inspection_id: Id, _: Viewer, station: StationOf) -> RedirectResponse:
    """Go to an inspection on the review page of its model."""
    with station.database.reading() as session:
        found = get_inspection(session, inspection_id)
    return RedirectResponse(f"/models/{found.model_id}/review?inspection={inspection_id}", 303)

