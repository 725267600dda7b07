"""Login, logout and the present session."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from anomem.service.access.sessions import COOKIE, SESSION_S
from anomem.service.access.users import authenticate
from anomem.service.api.deps import StationOf, Viewer, address_of
from anomem.service.api.schemas import Name, Password, _In, _Out
from anomem.service.errors import UnauthorisedError
from anomem.service.store.audit import record
from anomem.service.store.tables import User

__all__ = ["router"]

router = APIRouter(prefix="/api/v1/session", tags=["session"])


class LoginIn(_In):
    """Name and password."""

    name: Name
    password: Password


class SessionOut(_Out):
    """Caller, and the token that unsafe requests of a session repeat in X-CSRF-Token."""

    name: str
    role: str
    csrf: str | None


@router.post("")
def log_in(body: LoginIn, request: Request, response: Response, station: StationOf) -> SessionOut:
    """Open a session: sets its cookie."""
    address = address_of(request)
    keys = [f"user {body.name.lower()}", *([] if address is None else [address])]
    station.logins.check(*keys)
    with station.database.reading() as session:
        user = authenticate(session, body.name, body.password)
    with station.database.writing() as session:
        record(session, body.name, "login" if user else "login.failed", "station")
    if user is None:
        station.logins.failed(*keys)
        raise UnauthorisedError("login: name or password is wrong; try again")
    station.logins.succeeded(*keys)
    cookie, claims = station.sessions.issue(user.id, user.epoch)
    secure = station.settings.secure or request.headers.get("x-forwarded-proto") == "https"
    response.set_cookie(COOKIE, cookie, max_age=SESSION_S, httponly=True, samesite="strict", secure=secure, path="/")
    return SessionOut(name=user.name, role=user.role, csrf=claims.csrf)


@router.get("")
def who_am_i(caller: Viewer) -> SessionOut:
    """Return the caller."""
    return SessionOut(name=caller.name, role=caller.role, csrf=caller.csrf)


@router.delete("", status_code=204)
def log_out(request: Request, response: Response, caller: Viewer, station: StationOf) -> None:
    """End all sessions of the caller."""
    claims = station.sessions.read(request.cookies.get(COOKIE, ""))
    with station.database.writing() as session:
        if claims is not None:
            session.get_one(User, claims.user_id).epoch += 1
        record(session, caller.name, "logout", "station")
    response.delete_cookie(COOKIE, path="/")
