"""Live view: the latest inspection, large."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import Request
from fastapi.responses import RedirectResponse, Response

from anomem.service.api.deps import Id, StationOf, Viewer
from anomem.service.pages.charts import gauge
from anomem.service.pages.places import model_page
from anomem.service.pages.rendering import is_fragment
from anomem.service.pages.routing import page_router
from anomem.service.store.inspections import Filters, get_inspection, page
from anomem.service.store.models import current_version, get_model
from anomem.service.store.tables import Inspection

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
        current = None if model.current_id is None else current_version(session, model)
    if current is None:
        return RedirectResponse(f"/models/{model_id}/parts", 303)
    content = {
        "recent": recent,
        "strip": recent[:_STRIP],
        "gauge": _gauge(recent, current.figures.get("threshold")),
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


def _gauge(recent: Sequence[Inspection], threshold: float | None) -> tuple[float, float] | None:
    """Return the places of the latest score and of the threshold; None without both."""
    if threshold is None or not recent or recent[0].score is None:
        return None
    return gauge(recent[0].score, threshold, [row.score for row in recent if row.score is not None])
