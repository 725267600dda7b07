"""Inspections: score images, and one inspection."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Form, UploadFile
from fastapi.concurrency import run_in_threadpool
from pydantic import Field

from anomem.errors import InputError
from anomem.runtime.neutral import printable
from anomem.service.allowed import check_folder_allowed
from anomem.service.api.deps import Id, Operator, StationOf, Viewer
from anomem.service.api.schemas import InspectionOut, _In, _Out
from anomem.service.api.text import Line
from anomem.service.errors import TooLargeError
from anomem.service.scoring.parts import Part
from anomem.service.sources.folders import FolderResult, inspect_folder
from anomem.service.store.inspections import get_inspection
from anomem.service.store.tables import Inspection

__all__ = ["router"]

router = APIRouter(prefix="/api/v1", tags=["inspections"])

Text = Annotated[Line | None, Form(max_length=120)]
Keys = Annotated[list[Annotated[Line, Form(min_length=1, max_length=300)]] | None, Form()]


class FolderIn(_In):
    """Folder on the station's machine, below one that ``--folders`` allows."""

    folder: Annotated[str, Field(min_length=1, max_length=1000)]
    stratum: Annotated[str, Field(max_length=120)] | None = None


class FolderOut(_Out):
    """Inspections of a folder's images, and the reasons why others are left out."""

    inspections: list[InspectionOut]
    refused: list[str]


@router.post("/models/{model_id}/inspections", response_model=list[InspectionOut], status_code=201)
async def inspect(
    model_id: Id,
    images: list[UploadFile],
    _: Operator,
    station: StationOf,
    stratum: Text = None,
    group: Text = None,
    key: Keys = None,
) -> Sequence[Inspection]:
    """Score images and record them; the answer comes when image and result are stored.

    `key` names each image's delivery: the same key again returns the first inspection. 429 with Retry-After: the
    queue is full, and no image of the request is queued.
    """
    most = station.settings.max_request_images
    if len(images) > most:
        raise TooLargeError(f"images: {len(images)} in one request; send at most {most}")
    if key is not None and len(key) != len(images):
        raise InputError(f"key: {len(key)} keys for {len(images)} images; send one per image")
    batcher = station.serving.batcher(model_id)
    batcher.check_room(len(images))
    parts = []
    for i, image in enumerate(images):
        content, name = await image.read(), printable(image.filename or "image")[:400]
        stored = await run_in_threadpool(station.images.put, content, name)
        own = None if key is None else f"http:{key[i]}"
        parts.append(Part(stored, station.images.path(stored.sha256), name, "http", own, stratum, group))
    batcher.submit(parts)
    return await asyncio.gather(*(asyncio.wrap_future(part.done) for part in parts))


@router.post("/models/{model_id}/inspections/folder", response_model=FolderOut, status_code=201)
def inspect_allowed_folder(model_id: Id, body: FolderIn, _: Operator, station: StationOf) -> FolderResult:
    """Score all images of a folder on the station's machine; the same files again are the same inspections."""
    folder = check_folder_allowed(Path(body.folder), station.settings.folders)
    return inspect_folder(station.serving.batcher(model_id), station.images, folder, body.stratum)


@router.get("/inspections/{inspection_id}", response_model=InspectionOut)
def inspection_of(inspection_id: Id, _: Viewer, station: StationOf) -> Inspection:
    """Return an inspection."""
    with station.database.reading() as session:
        return get_inspection(session, inspection_id)
