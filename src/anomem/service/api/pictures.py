"""Pictures of inspections."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query
from fastapi.responses import FileResponse, Response

from anomem.service.alike import Similar
from anomem.service.api.deps import Id, StationOf, Viewer
from anomem.service.api.schemas import _Out
from anomem.service.errors import MissingError
from anomem.service.pictures import Layer
from anomem.service.store.inspections import get_inspection
from anomem.service.store.tables import Image, Normal

__all__ = ["router"]

router = APIRouter(prefix="/api/v1", tags=["pictures"])

Width = Annotated[int | None, Query(ge=16, le=4096)]

_KEPT = {"cache-control": "private, max-age=86400, immutable"}


@router.get("/inspections/{inspection_id}/picture.png", response_class=Response)
def picture(
    inspection_id: Id,
    _: Viewer,
    station: StationOf,
    layer: Layer = "image",
    width: Width = None,
    opacity: Annotated[float, Query(ge=0, le=1)] = 0.5,
) -> Response:
    """Return the image, its heatmap, or both, as PNG, at most `width` pixels wide."""
    content = station.pictures.png(inspection_id, layer, width, round(opacity, 2))
    return Response(content, media_type="image/png", headers=_KEPT)


@router.get("/inspections/{inspection_id}/original", response_class=FileResponse)
def original(inspection_id: Id, _: Viewer, station: StationOf) -> FileResponse:
    """Return the image file as it was received."""
    with station.database.reading() as session:
        image = session.get_one(Image, get_inspection(session, inspection_id).image_sha256)
    return FileResponse(station.images.path(image.sha256), media_type=image.media, headers=_KEPT)


@router.get("/normals/{normal_id}/picture.png", response_class=Response)
def picture_of_normal(normal_id: Id, _: Viewer, station: StationOf, width: Width = None) -> Response:
    """Return the image of a good part as PNG, at most `width` pixels wide."""
    with station.database.reading() as session:
        normal = session.get(Normal, normal_id)
    if normal is None:
        raise MissingError(f"normal {normal_id}: does not exist; see the list of normals")
    content = station.pictures.of_image(normal.image_sha256, normal.name, width)
    return Response(content, media_type="image/png", headers=_KEPT)


class SimilarOut(_Out):
    """Good part that resembles an inspected one; `kind` says where its picture is: normals/ID or inspections/ID.

    `by`: "memory", the same items are recalled; "thumbnail", of models that have no memory or are exported.
    """

    kind: Literal["normal", "inspection"]
    id: int
    image_sha256: str
    distance: float
    by: Literal["memory", "thumbnail"]


@router.get("/inspections/{inspection_id}/alike", response_model=list[SimilarOut])
def alike(
    inspection_id: Id, _: Viewer, station: StationOf, count: Annotated[int, Query(ge=1, le=20)] = 4
) -> list[Similar]:
    """List the good parts most like an inspection, nearest first."""
    return station.alike.nearest(inspection_id, count)
