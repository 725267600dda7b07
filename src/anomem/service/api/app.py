"""Application: routers, errors, checks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.concurrency import run_in_threadpool
from fastapi.staticfiles import StaticFiles

from anomem.service.access.rate_limit import RateLimit
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
from anomem.service.api.problems import PROBLEMS, add_handlers
from anomem.service.pages import PAGES
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
        app.include_router(module.router, responses=PROBLEMS)
    for router in PAGES:
        app.include_router(router)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    add_handlers(app)
    limits = station.settings
    rate = RateLimit(limits.rate)
    app.add_middleware(Guard, max_bytes=limits.max_request_bytes, rate=rate, metrics=station.metrics)
    return app
