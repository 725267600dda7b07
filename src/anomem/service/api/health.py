"""Health, readiness, metrics and events."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response, StreamingResponse
from sqlalchemy import text

from anomem.service.api.deps import StationOf, Viewer

__all__ = ["router"]

router = APIRouter(tags=["health"])


@router.get("/healthz")
def healthy() -> dict[str, str]:
    """Answer while the process runs."""
    return {"status": "ok"}


@router.get("/readyz")
def ready(station: StationOf) -> JSONResponse:
    """Answer 200 when the database answers too, else 503."""
    with station.database.reading() as session:
        session.execute(text("SELECT 1"))
    return JSONResponse({"status": "ok"})


@router.get("/metrics", response_class=Response)
def metrics(_: Viewer, station: StationOf) -> Response:
    """Return metrics in Prometheus' text format."""
    content = station.metrics.text(station.serving.waiting())
    return Response(content, media_type="text/plain; version=0.0.4; charset=utf-8")


@router.get("/api/v1/events", response_class=StreamingResponse)
def events(_: Viewer, station: StationOf) -> StreamingResponse:
    """Stream results, labels, jobs and versions as server-sent events."""
    return StreamingResponse(
        station.events.stream(), media_type="text/event-stream", headers={"x-accel-buffering": "no"}
    )
