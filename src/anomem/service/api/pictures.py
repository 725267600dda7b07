"""Pictures of inspections."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import FileResponse, Response

from anomem.service.api.deps import Id, StationOf, Viewer
from anomem.service.pictures import Layer
from anomem.service.store.inspections import get_inspection
from anomem.service.store.tables import Image

__all__ = ["router"]

router = APIRouter(prefix="/api/v1/inspections", tags=["pictures"])

_KEPT = {"cache-control": "private, max-age=86400, immutable"}


@router.get("/{inspection_id}/picture.png", response_class=Response)
def picture(
    inspection_id: Id,
    _: Viewer,
    station: StationOf,
    layer: Layer = "image",
    width: Annotated[int | None, Query(ge=16, le=4096)] = None,
    opacity: Annotated[float, Query(ge=0, le=1)] = 0.5,
) -> Response:
    """Return the image, its heatmap, or both, as PNG, at most `width` pixels wide."""
    content = station.pictures.png(inspection_id, layer, width, round(opacity, 2))
    return Response(content, media_type="image/png", headers=_KEPT)


@router.get("/{inspection_id}/original", response_class=FileResponse)
def original(inspection_id: Id, _: Viewer, station: StationOf) -> FileResponse:
    """Return the image file as it was received."""
    with station.database.reading() as session:
        image = session.get_one(Image, get_inspection(session, inspection_id).image_sha256)
    return FileResponse(station.images.path(image.sha256), media_type=image.media, headers=_KEPT)
