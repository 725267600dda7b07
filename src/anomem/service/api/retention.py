"""Retention of image files."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter
from pydantic import Field

from anomem.service.api.deps import Engineer, StationOf, Viewer
from anomem.service.api.schemas import _In
from anomem.service.retention import Limits, read_limits, write_limits
from anomem.service.store.audit import record

__all__ = ["router"]

router = APIRouter(prefix="/api/v1/retention", tags=["retention"])


class LimitsBody(_In):
    """Age in days and size in megabytes of image files that no label and no fit needs; null: no limit."""

    days: Annotated[int, Field(ge=1, le=36_500)] | None = None
    megabytes: Annotated[int, Field(ge=1, le=10**9)] | None = None


@router.get("")
def limits(_: Viewer, station: StationOf) -> LimitsBody:
    """Return the limits."""
    with station.database.reading() as session:
        found = read_limits(session)
    return LimitsBody(days=found.days, megabytes=found.megabytes)


@router.put("")
def set_limits(body: LimitsBody, caller: Engineer, station: StationOf) -> LimitsBody:
    """Set the limits; they are applied once per hour. Results and labels are kept for ever."""
    with station.database.writing() as session:
        write_limits(session, Limits(body.days, body.megabytes))
        record(session, caller.name, "retention", "station", days=body.days, megabytes=body.megabytes)
    return body
