"""Login, and the start page with all products."""

from __future__ import annotations

from fastapi import Request
from fastapi.responses import HTMLResponse
from sqlalchemy import Select, select

from anomem.service.api.deps import StationOf, Viewer
from anomem.service.api.text import Line
from anomem.service.pages.rendering import page
from anomem.service.pages.routing import page_router
from anomem.service.store.tables import Inspection, Model, Product, Version

__all__ = ["router"]

router = page_router()


@router.get("/login")
def login(request: Request, next: Line = "/") -> HTMLResponse:
    """Show the login; `next` is the page to go on to, on this station only."""
    own = next.startswith("/") and not next.startswith("//") and "\\" not in next
    return page(request, "login.html", None, target=next if own else "/")


@router.get("/")
def start(request: Request, caller: Viewer, station: StationOf) -> HTMLResponse:
    """Show products and models, or how to begin."""
    with station.database.reading() as session:
        products = session.scalars(select(Product).order_by(Product.name)).all()
        models = session.scalars(select(Model).order_by(Model.name)).all()
        versions = {row.id: row for row in session.scalars(select(Version).where(Version.state == "current"))}
        latest = {model.id: session.scalar(_latest(model.id)) for model in models}
    return page(request, "start.html", caller, products=products, models=models, versions=versions, latest=latest)


def _latest(model_id: int) -> Select[Inspection]:
    return select(Inspection).where(Inspection.model_id == model_id).order_by(Inspection.id.desc()).limit(1)
