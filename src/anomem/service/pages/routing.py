"""Routes of pages: their errors are pages too, and a reader without a session is sent to the login."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from fastapi.routing import APIRoute

from anomem.errors import AnomemError, one_line
from anomem.service.access.users import Caller
from anomem.service.errors import ServiceError, StoreAwayError, UnauthorisedError
from anomem.service.pages.rendering import page

__all__ = ["page_router"]

_LOGIN = "/login"


class _PageRoute(APIRoute):
    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                return await handler(request)
            except UnauthorisedError:
                return _to_login(request)
            except RequestValidationError:
                return await run_in_threadpool(_problem, request, 404, None)
            except AnomemError as error:
                status = error.status if isinstance(error, ServiceError) else 422
                return await run_in_threadpool(_problem, request, status, error)

        return answer


def page_router() -> APIRouter:
    """Return a router for pages, which the OpenAPI document leaves out."""
    return APIRouter(include_in_schema=False, route_class=_PageRoute)


def _to_login(request: Request) -> Response:
    wanted = f"{request.url.path}?{request.url.query}" if request.url.query else request.url.path
    place = _LOGIN if wanted == "/" else f"{_LOGIN}?{urlencode({'next': wanted})}"
    if "hx-request" in request.headers:
        return Response(status_code=401, headers={"hx-redirect": _LOGIN})
    return RedirectResponse(place, 303)


def _problem(request: Request, status: int, error: AnomemError | None) -> HTMLResponse:
    detail = None if error is None else one_line(error)
    caller = None if isinstance(error, StoreAwayError) else _reader(request)
    return page(request, "problem.html", caller, status=status, detail=detail)


def _reader(request: Request) -> Caller | None:
    try:
        caller: Caller = request.app.state.station.gate.caller(request.method, request.headers, request.cookies)
    except AnomemError:
        return None
    return caller
