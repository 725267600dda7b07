"""Versions of models: list, import, promote, roll back."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path, PurePath

from fastapi import APIRouter, UploadFile
from sqlalchemy import select

from anomem.errors import InputError
from anomem.runtime.atomic import scratch
from anomem.service.api.deps import Engineer, Id, StationOf, Viewer
from anomem.service.api.schemas import VersionOut
from anomem.service.store.models import get_model, get_version
from anomem.service.store.tables import Version

__all__ = ["router"]

router = APIRouter(prefix="/api/v1", tags=["versions"])

_SUFFIXES = (".safetensors", ".onnx", ".xml", ".bin")


@router.get("/models/{model_id}/versions", response_model=list[VersionOut])
def list_versions(model_id: Id, _: Viewer, station: StationOf) -> Sequence[Version]:
    """List the versions of a model, newest first."""
    with station.database.reading() as session:
        get_model(session, model_id)
        query = select(Version).where(Version.model_id == model_id).order_by(Version.number.desc())
        return session.scalars(query).all()


@router.get("/versions/{version_id}", response_model=VersionOut)
def version_of(version_id: Id, _: Viewer, station: StationOf) -> Version:
    """Return a version."""
    with station.database.reading() as session:
        return get_version(session, version_id)


@router.post("/models/{model_id}/versions", response_model=VersionOut, status_code=201)
def import_version(model_id: Id, files: list[UploadFile], caller: Engineer, station: StationOf) -> Version:
    """Import a model file (.safetensors, .onnx, or .xml with its .bin) as a candidate."""
    with station.database.reading() as session:
        get_model(session, model_id)
    with scratch("import") as room:
        return station.lifecycle.import_file(model_id, _kept(files, room), caller.name)


@router.post("/versions/{version_id}/promote", response_model=VersionOut)
def promote(version_id: Id, caller: Engineer, station: StationOf) -> Version:
    """Make a version the one that scores, without a pause."""
    return station.lifecycle.promote(version_id, caller.name)


@router.post("/models/{model_id}/rollback", response_model=VersionOut)
def roll_back(model_id: Id, caller: Engineer, station: StationOf) -> Version:
    """Return to the version before the current one."""
    return station.lifecycle.roll_back(model_id, caller.name)


def _kept(files: Sequence[UploadFile], room: Path) -> Path:
    """Write uploaded model files under names of our own, and return the one to load."""
    suffixes = [PurePath(file.filename or "").suffix.lower() for file in files]
    if len(set(suffixes)) < len(suffixes) or not set(suffixes) <= set(_SUFFIXES):
        raise InputError(f"files: must be one model file, or .xml and .bin; allowed: {', '.join(_SUFFIXES)}")
    main = [suffix for suffix in suffixes if suffix != ".bin"]
    if len(main) != 1:
        raise InputError("files: must hold one model file; send .safetensors, .onnx, or .xml with its .bin")
    for file, suffix in zip(files, suffixes, strict=True):
        with (room / f"model{suffix}").open("wb") as stream:
            shutil.copyfileobj(file.file, stream)
    return room / f"model{main[0]}"
