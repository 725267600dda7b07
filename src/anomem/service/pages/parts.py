"""Good parts of a model: add them, fit, see what was found."""

from __future__ import annotations

from fastapi import Request
from fastapi.responses import HTMLResponse

from anomem.errors import AnomemError
from anomem.service.api.deps import Id, StationOf, Viewer
from anomem.service.pages.jobs_shown import latest_job
from anomem.service.pages.places import model_page, place_of
from anomem.service.pages.routing import page_router
from anomem.service.station import Station
from anomem.service.store.normals import list_normals
from anomem.service.store.tables import Version

__all__ = ["router"]

router = page_router()

_SHOWN = 48


@router.get("/models/{model_id}/parts")
def parts(request: Request, model_id: Id, caller: Viewer, station: StationOf) -> HTMLResponse:
    """Show the good parts, the fit and its findings."""
    with station.database.reading() as session:
        place = place_of(session, model_id)
        normals = list_normals(session, model_id, excluded=True)
        job = latest_job(session, model_id, ("fit",))
    suspects = [] if place.current is None else place.current.figures.get("suspects", [])
    return model_page(
        request,
        "parts.html",
        caller,
        station,
        model_id,
        normals=normals[:_SHOWN],
        total=len(normals),
        excluded={row.id for row in normals if row.excluded},
        job=job,
        suspects=suspects[:_SHOWN],
        frame=_frame(station, place.current),
        folders=[str(folder) for folder in station.settings.folders],
        most=station.settings.max_request_images,
    )


@router.get("/models/{model_id}/job")
def job_panel(request: Request, model_id: Id, caller: Viewer, station: StationOf) -> HTMLResponse:
    """Show the latest job of a model, as a part of a page."""
    with station.database.reading() as session:
        job = latest_job(session, model_id)
    return model_page(request, "parts/job.html", caller, station, model_id, job=job)


def _frame(station: Station, version: Version | None) -> list[str]:
    """Return what the current version can see, in words; empty without a version or frame."""
    if version is None:
        return []
    try:
        frame = station.serving.batcher(version.model_id).served.model.frame_
    except AnomemError:
        return []
    return [] if frame is None else frame.sentences()
