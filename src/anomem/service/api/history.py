"""History of a model: pages and export."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from anomem.service.api.deps import Id, StationOf, Viewer
from anomem.service.api.schemas import InspectionOut, InspectionPage
from anomem.service.api.text import Line
from anomem.service.exporting import MEDIA, chunks
from anomem.service.store.inspections import Filters, export_rows, page
from anomem.service.store.models import get_model

__all__ = ["router"]

router = APIRouter(prefix="/api/v1", tags=["history"])

Start = Annotated[Line, Field(max_length=400)]


class Wanted(BaseModel):
    """Conditions on inspections; times carry a time zone."""

    model_config = ConfigDict(extra="forbid")

    anomalous: bool | None = None
    sampled: bool | None = None
    unreadable: bool | None = None
    label: Literal["normal", "defect", "unsure", "any", "none"] | None = None
    stratum: Start | None = None
    name: Start | None = None
    source: Start | None = None
    version_id: Annotated[int, Field(ge=1, le=2**62)] | None = None
    since: AwareDatetime | None = None
    until: AwareDatetime | None = None

    def of(self, model_id: int) -> Filters:
        """Return the conditions for one model."""
        facts: dict[str, datetime | str | bool | int | None] = {
            name: getattr(self, name) for name in Wanted.model_fields
        }
        return Filters(model_id, **facts)  # type: ignore[arg-type]


class WantedPage(Wanted):
    """Conditions, and the place of a page."""

    before: Annotated[int, Field(ge=1, le=2**62)] | None = None
    after: Annotated[int, Field(ge=0, le=2**62)] | None = None
    limit: Annotated[int, Field(ge=1, le=500)] = 50


@router.get("/models/{model_id}/inspections", response_model=InspectionPage)
def history(model_id: Id, wanted: Annotated[WantedPage, Query()], _: Viewer, station: StationOf) -> InspectionPage:
    """Return a page of the history, newest first, `before` or `after` an inspection's id."""
    with station.database.reading() as session:
        get_model(session, model_id)
        rows = page(session, wanted.of(model_id), before=wanted.before, after=wanted.after, limit=wanted.limit)
    full = len(rows) == wanted.limit
    return InspectionPage(
        items=[InspectionOut.model_validate(row) for row in rows], before=rows[-1].id if full else None
    )


@router.get("/models/{model_id}/inspections.{form}", response_class=StreamingResponse)
def export(
    model_id: Id,
    form: Literal["csv", "parquet"],
    wanted: Annotated[Wanted, Query()],
    _: Viewer,
    station: StationOf,
) -> StreamingResponse:
    """Return the history as a CSV or Parquet file, oldest first, streamed."""
    with station.database.reading() as session:
        model = get_model(session, model_id)
    rows = export_rows(station.database, wanted.of(model_id))
    content: Iterator[bytes] = chunks(rows, form)
    headers = {"content-disposition": f'attachment; filename="{model.name}.{form}"'}
    return StreamingResponse(content, media_type=MEDIA[form], headers=headers)
