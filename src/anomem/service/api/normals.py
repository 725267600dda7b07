"""Images of good parts that fits of a model learn from."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Form, UploadFile
from pydantic import Field

from anomem.runtime.listing import image_files
from anomem.runtime.neutral import printable
from anomem.service.allowed import check_folder_allowed
from anomem.service.api.deps import Engineer, Id, StationOf, Viewer
from anomem.service.api.schemas import _In, _Out
from anomem.service.api.text import Line
from anomem.service.errors import TooLargeError
from anomem.service.store.audit import record
from anomem.service.store.models import get_model
from anomem.service.store.normals import add_normals, exclude, list_normals
from anomem.service.store.tables import Normal

__all__ = ["router"]

router = APIRouter(prefix="/api/v1", tags=["normals"])

_CHUNK = 200

Text = Annotated[Line | None, Form(max_length=120)]


class NormalOut(_Out):
    """Image of a good part."""

    id: int
    image_sha256: str
    name: str
    group: str | None
    stratum: str | None
    excluded: bool
    created: datetime


class Added(_Out):
    """Number of new images, and of those that were there already."""

    added: int
    known: int


class FolderIn(_In):
    """Folder on the station's machine, below one that ``--folders`` allows."""

    folder: Annotated[str, Field(min_length=1, max_length=1000)]


class NormalChange(_In):
    """Exclusion of an image from the next fits."""

    excluded: bool


@router.get("/models/{model_id}/normals", response_model=list[NormalOut])
def list_of(model_id: Id, _: Viewer, station: StationOf) -> list[Normal]:
    """List the images of good parts of a model, excluded ones too."""
    with station.database.reading() as session:
        get_model(session, model_id)
        return list_normals(session, model_id, excluded=True)


@router.post("/models/{model_id}/normals", status_code=201)
def add(
    model_id: Id,
    images: list[UploadFile],
    caller: Engineer,
    station: StationOf,
    group: Text = None,
    stratum: Text = None,
) -> Added:
    """Add images of good parts; those of one group (part, lot) are never separated, each stratum is calibrated."""
    most = station.settings.max_request_images
    if len(images) > most:
        raise TooLargeError(f"images: {len(images)} in one request; send at most {most}")
    with station.database.reading() as session:
        get_model(session, model_id)
    names = [printable(image.filename or "image") for image in images]
    stored = [(station.images.put(image.file.read(), name), name) for image, name in zip(images, names, strict=True)]
    with station.database.writing() as session:
        added, known = add_normals(session, model_id, stored, group, stratum)
        record(session, caller.name, "normals.add", f"model {model_id}", added=added)
    return Added(added=added, known=known)


@router.post("/models/{model_id}/normals/folder", status_code=201)
def add_folder(model_id: Id, body: FolderIn, caller: Engineer, station: StationOf) -> Added:
    """Add all images of a folder on the station's machine."""
    folder = check_folder_allowed(Path(body.folder), station.settings.folders)
    with station.database.reading() as session:
        get_model(session, model_id)
    found = (Path(path) for path in image_files(folder, among=False))
    paths = [path for path in found if path.resolve().is_relative_to(folder)]  # no link leads outside
    total = Added(added=0, known=0)
    for start in range(0, len(paths), _CHUNK):
        chunk = [
            (station.images.put(path.read_bytes(), path.name), str(path.relative_to(folder)))
            for path in paths[start : start + _CHUNK]
        ]
        with station.database.writing() as session:
            added, known = add_normals(session, model_id, chunk)
            total = Added(added=total.added + added, known=total.known + known)
    with station.database.writing() as session:
        record(session, caller.name, "normals.add", f"model {model_id}", added=total.added, folder=str(folder))
    return total


@router.patch("/normals/{normal_id}", response_model=NormalOut)
def change(normal_id: Id, body: NormalChange, caller: Engineer, station: StationOf) -> Normal:
    """Leave an image out of the next fits, or take it in again."""
    with station.database.writing() as session:
        normal = exclude(session, normal_id, body.excluded)
        record(session, caller.name, "normals.change", f"normal {normal_id}", excluded=body.excluded)
    return normal
