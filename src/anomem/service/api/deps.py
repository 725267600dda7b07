"""Dependencies of routes: the station, and the caller with the rights that a route needs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Depends, Path, Query, Request
from fastapi.concurrency import run_in_threadpool

from anomem.service.access.sessions import COOKIE
from anomem.service.access.users import Caller, Role
from anomem.service.errors import DeniedError, UnauthorisedError
from anomem.service.settings import LOOPBACK
from anomem.service.station import Station

__all__ = ["Engineer", "Id", "Operator", "QueryId", "StationOf", "Viewer", "address_of", "needs"]


async def _station(request: Request) -> Station:  # async: without a hop to another thread
    station: Station = request.app.state.station
    return station


StationOf = Annotated[Station, Depends(_station)]
"""Station of the application."""


async def _caller(request: Request, station: StationOf) -> Caller:
    given = "authorization" in request.headers or COOKIE in request.cookies
    key = address_of(request)
    if given and key is not None:
        station.logins.check(key)
    known = station.gate.known(request.headers)
    if known is not None:  # without a hop to another thread
        return known
    try:
        return await run_in_threadpool(station.gate.caller, request.method, request.headers, request.cookies)
    except UnauthorisedError:
        if given and key is not None:
            station.logins.failed(key)
        raise


def address_of(request: Request) -> str | None:
    """Return the key under which failures of an address are counted; None for this machine, where a proxy may run."""
    if request.client is None or request.client.host in LOOPBACK:
        return None
    return f"address {request.client.host}"


def needs(role: Role) -> Callable[[Caller], Awaitable[Caller]]:
    """Return a dependency that refuses callers without the rights of `role`, and returns the others."""

    async def allowed(caller: Annotated[Caller, Depends(_caller)]) -> Caller:
        if not caller.may(role):
            raise DeniedError(f"{caller.name}: is {caller.role}, and this needs {role}; ask an engineer")
        return caller

    return allowed


Viewer = Annotated[Caller, Depends(needs("viewer"))]
"""Any caller with valid credentials."""
Operator = Annotated[Caller, Depends(needs("operator"))]
"""Caller who may score and label."""
Engineer = Annotated[Caller, Depends(needs("engineer"))]
"""Caller who may fit, set alpha, promote and administer."""

Id = Annotated[int, Path(ge=1, le=2**62)]
"""Id in a path."""
QueryId = Annotated[int | None, Query(ge=1, le=2**62)]
"""Id in a query."""
