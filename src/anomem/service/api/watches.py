"""Watched folders."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter
from pydantic import Field
from sqlalchemy import select

from anomem.service.allowed import check_folder_allowed
from anomem.service.api.deps import Engineer, Id, StationOf
from anomem.service.api.schemas import _In, _Out
from anomem.service.errors import MissingError
from anomem.service.store.audit import record
from anomem.service.store.models import get_model
from anomem.service.store.tables import Watch

__all__ = ["router"]

router = APIRouter(prefix="/api/v1", tags=["watches"])


class WatchIn(_In):
    """New watched folder, below one that ``--folders`` allows."""

    folder: Annotated[str, Field(min_length=1, max_length=1000)]
    stratum: Annotated[str, Field(max_length=120)] | None = None


class WatchOut(_Out):
    """Watched folder."""

    id: int
    model_id: int
    folder: str
    stratum: str | None
    active: bool
    error: str | None
    created: datetime


class WatchChange(_In):
    """Pause of a watch."""

    active: bool


@router.get("/models/{model_id}/watches", response_model=list[WatchOut])
def list_watches(model_id: Id, _: Engineer, station: StationOf) -> Sequence[Watch]:
    """List the watched folders of a model."""
    with station.database.reading() as session:
        get_model(session, model_id)
        return session.scalars(select(Watch).where(Watch.model_id == model_id).order_by(Watch.id)).all()


@router.post("/models/{model_id}/watches", response_model=WatchOut, status_code=201)
def add_watch(model_id: Id, body: WatchIn, caller: Engineer, station: StationOf) -> Watch:
    """Inspect every image file that a folder holds and receives, each once."""
    folder = check_folder_allowed(Path(body.folder), station.settings.folders)
    with station.database.writing() as session:
        get_model(session, model_id)
        watch = Watch(model_id=model_id, folder=str(folder), stratum=body.stratum)
        session.add(watch)
        session.flush()
        record(session, caller.name, "watch.add", f"watch {watch.id}", folder=str(folder))
        return watch


@router.patch("/watches/{watch_id}", response_model=WatchOut)
def change_watch(watch_id: Id, body: WatchChange, caller: Engineer, station: StationOf) -> Watch:
    """Pause a watch, or start it again."""
    with station.database.writing() as session:
        watch = session.get(Watch, watch_id)
        if watch is None:
            raise MissingError(f"watch {watch_id}: does not exist; see the list of watches")
        watch.active = body.active
        record(session, caller.name, "watch.change", f"watch {watch_id}", active=body.active)
        return watch
