"""Users and tokens, the audit, and the station itself."""

from __future__ import annotations

from fastapi import Request
from fastapi.responses import HTMLResponse
from sqlalchemy import func, select

from anomem.service.access.users import ROLES
from anomem.service.api.deps import Engineer, QueryId, StationOf
from anomem.service.pages.rendering import is_fragment, page
from anomem.service.pages.routing import page_router
from anomem.service.retention import read_limits
from anomem.service.store.tables import Audit, Image, Token, User
from anomem.version import __version__

__all__ = ["router"]

router = page_router()

_ENTRIES = 50


@router.get("/users")
def users(request: Request, caller: Engineer, station: StationOf) -> HTMLResponse:
    """Show users and API tokens."""
    with station.database.reading() as session:
        people = session.scalars(select(User).order_by(User.name)).all()
        tokens = session.scalars(select(Token).order_by(Token.id)).all()
    return page(request, "users.html", caller, people=people, tokens=tokens, roles=ROLES)


@router.get("/audit")
def audit(request: Request, caller: Engineer, station: StationOf, before: QueryId = None) -> HTMLResponse:
    """Show a page of the audit, newest first."""
    query = select(Audit).order_by(Audit.id.desc()).limit(_ENTRIES)
    with station.database.reading() as session:
        rows = session.scalars(query if before is None else query.where(Audit.id < before)).all()
    older = rows[-1].id if len(rows) == _ENTRIES else None
    name = "parts/audit.html" if is_fragment(request) else "audit.html"
    return page(request, name, caller, rows=rows, older=older)


@router.get("/station")
def station_facts(request: Request, caller: Engineer, station: StationOf) -> HTMLResponse:
    """Show retention, backup and facts of the station."""
    with station.database.reading() as session:
        limits = read_limits(session)
        kept = select(func.count(), func.coalesce(func.sum(Image.size), 0)).where(Image.deleted.is_(None))
        number, size = session.execute(kept).one()
    return page(
        request,
        "station.html",
        caller,
        limits=limits,
        number_of_images=number,
        megabytes=size / 1e6,
        root=str(station.folder.root),
        own_database=station.settings.db is None,
        version=__version__,
    )
