"""Errors of requests as answers: {"detail": one line}, with the status of the error."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from sqlalchemy.exc import DataError, IntegrityError
from starlette.exceptions import HTTPException

from anomem.errors import AnomemError, one_line
from anomem.runtime.neutral import printable
from anomem.service.errors import ServiceError

__all__ = ["PROBLEMS", "Problem", "add_handlers"]

_LONGEST = 500


class Problem(BaseModel):
    """Error: subject, problem and fix on one line."""

    detail: str


PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem} for status in (400, 401, 403, 404, 409, 413, 422, 429, 503)
}
"""Answers that every route may give, for the OpenAPI document."""


def add_handlers(app: FastAPI) -> None:
    """Answer errors of anomem, of validation and of the database by one line."""
    app.add_exception_handler(AnomemError, _told)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(IntegrityError, _conflict)
    app.add_exception_handler(DataError, _unusable)
    app.add_exception_handler(UnicodeEncodeError, _unusable)


def _answer(status: int, detail: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"detail": printable(one_line(detail, _LONGEST))}, status, headers)


def _told(_: Request, error: Exception) -> JSONResponse:
    status, headers = 422, {}
    if isinstance(error, ServiceError):
        status = error.status
        if error.retry_after is not None:
            headers["retry-after"] = str(error.retry_after)
        if status == 401:
            headers["www-authenticate"] = "Bearer"
    return _answer(status, one_line(error), headers)


def _invalid(_: Request, error: Exception) -> JSONResponse:
    """Name the first field that is wrong; its value is not repeated."""
    found = error.errors() if isinstance(error, RequestValidationError) else []
    if not found:
        return _answer(422, "request: is not valid; see /api/v1/openapi.json")
    place = ".".join(map(str, found[0]["loc"])) or "request"
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return _answer(422, f"{place}: {found[0]['msg']}{more}; see /api/v1/openapi.json")


def _http(_: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, HTTPException):
        return _answer(500, "station: unexpected error; see its log")
    return _answer(error.status_code, f"request: {error.detail}", dict(error.headers or {}))


def _conflict(_: Request, __: Exception) -> JSONResponse:
    return _answer(409, "request: another one has changed the same; look again, then repeat it")


def _unusable(_: Request, __: Exception) -> JSONResponse:
    return _answer(422, "request: holds characters or numbers that cannot be kept; leave them out")
