"""Start page and login."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from sqlalchemy import select

from anomem.service.api.deps import StationOf
from anomem.service.errors import UnauthorisedError
from anomem.service.pages.rendering import page
from anomem.service.store.tables import Model

__all__ = ["router"]

router = APIRouter(include_in_schema=False)


@router.get("/")
def start(request: Request, station: StationOf) -> HTMLResponse:
    """Show the models, or the login to a reader without a session."""
    try:
        caller = station.gate.caller(request.method, request.headers, request.cookies)
    except UnauthorisedError:
        return page(request, "login.html", None)
    with station.database.reading() as session:
        models = session.scalars(select(Model).order_by(Model.name)).all()
    return page(request, "start.html", caller, models=models)
