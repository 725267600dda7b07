"""History of a model with filters, paging and export."""

from __future__ import annotations

from urllib.parse import urlencode

from fastapi import Request
from fastapi.responses import HTMLResponse
from pydantic import ValidationError
from sqlalchemy import select

from anomem.errors import InputError
from anomem.service.api.deps import Id, StationOf, Viewer
from anomem.service.api.history import WantedPage
from anomem.service.pages.places import model_page
from anomem.service.pages.rendering import is_fragment
from anomem.service.pages.routing import page_router
from anomem.service.store.inspections import page
from anomem.service.store.models import get_model
from anomem.service.store.tables import Version

__all__ = ["router"]

router = page_router()

_PLACE = frozenset({"before", "after", "limit"})
_ROWS = 25


@router.get("/models/{model_id}/history")
def history(request: Request, model_id: Id, caller: Viewer, station: StationOf) -> HTMLResponse:
    """Show a page of the history; empty fields of the form are no condition."""
    given = {name: value for name, value in request.query_params.items() if value}
    wanted = _wanted(given)
    with station.database.reading() as session:
        get_model(session, model_id)
        rows = page(session, wanted.of(model_id), before=wanted.before, after=wanted.after, limit=wanted.limit)
        versions = session.scalars(select(Version).where(Version.model_id == model_id).order_by(Version.id)).all()
    filters = {name: _timed(name, value) for name, value in given.items() if name not in _PLACE}
    full = len(rows) == wanted.limit
    content = {
        "rows": rows,
        "versions": {version.id: version.number for version in versions},
        "given": given,
        "filters": urlencode(filters),
        "older": rows[-1].id if rows and (full or wanted.after is not None) else None,
        "newer": rows[0].id if rows and (wanted.before is not None or (wanted.after is not None and full)) else None,
    }
    name = "parts/history.html" if is_fragment(request) else "history.html"
    return model_page(request, name, caller, station, model_id, **content)


def _wanted(given: dict[str, str]) -> WantedPage:
    values = {name: _timed(name, value) for name, value in given.items()}
    try:
        return WantedPage.model_validate({"limit": _ROWS, **values})
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}; change the filter") from error


def _timed(name: str, value: str) -> str:
    """Return a day of the form as its start, UTC."""
    return f"{value}T00:00:00Z" if name in ("since", "until") and len(value) == len("2026-01-01") else value
