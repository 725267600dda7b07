"""Application: routers, errors, checks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from fastapi.staticfiles import StaticFiles

from anomem.errors import AnomemError, one_line
from anomem.service.api import (
    calibration,
    drift,
    health,
    history,
    inference,
    inspections,
    jobs,
    labels,
    normals,
    pictures,
    products,
    retention,
    session,
    sinks,
    users,
    versions,
    watches,
)
from anomem.service.api.guard import Guard
from anomem.service.errors import ServiceError
from anomem.service.pages import start
from anomem.service.pages.rendering import STATIC
from anomem.service.station import Station
from anomem.version import __version__

__all__ = ["create_app"]

ROUTERS = (
    session,
    products,
    versions,
    inspections,
    history,
    inference,
    pictures,
    labels,
    normals,
    jobs,
    calibration,
    drift,
    sinks,
    watches,
    retention,
    users,
    health,
)


def create_app(station: Station) -> FastAPI:
    """Return the application of a station; its lifespan starts and stops the station's threads."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await run_in_threadpool(station.start)
        yield
        await run_in_threadpool(station.stop)

    app = FastAPI(
        title="anomem inspection station",
        version=__version__,
        lifespan=lifespan,
        openapi_url="/api/v1/openapi.json",
        docs_url=None,  # its page loads scripts from elsewhere
        redoc_url=None,
    )
    app.state.station = station
    for module in ROUTERS:
        app.include_router(module.router)
    app.include_router(start.router)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    app.add_exception_handler(AnomemError, _told)
    app.add_middleware(Guard, max_bytes=station.settings.max_request_bytes, metrics=station.metrics)
    return app


def _told(_: Request, error: Exception) -> JSONResponse:
    """Return an error as one line with its status."""
    status, headers = 422, {}
    if isinstance(error, ServiceError):
        status = error.status
        if error.retry_after is not None:
            headers["retry-after"] = str(error.retry_after)
        if status == 401:
            headers["www-authenticate"] = "Bearer"
    return JSONResponse({"detail": one_line(error)}, status, headers)
