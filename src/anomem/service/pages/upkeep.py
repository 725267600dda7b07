"""Drift of a model, its settings, sources and sinks."""

from __future__ import annotations

import math

from fastapi import Request
from fastapi.responses import HTMLResponse
from sqlalchemy import func, select

from anomem.service.api.deps import Engineer, Id, StationOf, Viewer
from anomem.service.api.drift import drift as drift_of
from anomem.service.api.schemas import ModelSettings
from anomem.service.pages.jobs_shown import latest_job
from anomem.service.pages.places import model_page
from anomem.service.pages.rendering import is_fragment
from anomem.service.pages.routing import page_router
from anomem.service.store.labels import unselected
from anomem.service.store.models import get_model
from anomem.service.store.tables import Outbox, Sink, Watch

__all__ = ["router"]

router = page_router()

_FRESH = 200


@router.get("/models/{model_id}/drift")
def drift(request: Request, model_id: Id, caller: Viewer, station: StationOf) -> HTMLResponse:
    """Show the drift of the unselected sample, and what to do."""
    state = drift_of(model_id, caller, station)
    with station.database.reading() as session:
        drawn = unselected(session, model_id, _FRESH)
        job = latest_job(session, model_id)
    confirmed = sum(row.label == "normal" for row in drawn)
    name = "parts/drift.html" if is_fragment(request) else "drift.html"
    content = {"drift": state, "full": -math.log10(state.chance), "drawn": drawn, "confirmed": confirmed, "job": job}
    return model_page(request, name, caller, station, model_id, **content)


@router.get("/models/{model_id}/settings")
def settings(request: Request, model_id: Id, caller: Engineer, station: StationOf) -> HTMLResponse:
    """Show the settings of a model, its watched folders, and the sinks of its product."""
    with station.database.reading() as session:
        model = get_model(session, model_id)
        watches = session.scalars(select(Watch).where(Watch.model_id == model_id).order_by(Watch.id)).all()
        sinks = session.scalars(select(Sink).where(Sink.product_id == model.product_id).order_by(Sink.id)).all()
        waiting = {sink.id: session.scalar(select(func.count()).where(Outbox.sink_id == sink.id)) for sink in sinks}
    return model_page(
        request,
        "settings.html",
        caller,
        station,
        model_id,
        settings=ModelSettings.model_validate(model.settings),
        watches=watches,
        sinks=sinks,
        waiting=waiting,
        folders=[str(folder) for folder in station.settings.folders],
    )
