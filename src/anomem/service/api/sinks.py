"""Sinks: receivers of results."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import Field
from sqlalchemy import delete, func, select

from anomem.service.api.deps import Engineer, Id, StationOf
from anomem.service.api.schemas import _In, _Out
from anomem.service.errors import MissingError
from anomem.service.sinks.receivers import checked_target
from anomem.service.store.audit import record
from anomem.service.store.models import get_product
from anomem.service.store.tables import Outbox, Sink

__all__ = ["router"]

router = APIRouter(prefix="/api/v1", tags=["sinks"])

Header = Annotated[str, Field(max_length=1000, pattern=r"^[\x20-\x7e]*$")]
HeaderName = Annotated[str, Field(max_length=100, pattern=r"^[A-Za-z0-9-]+$")]


class SinkIn(_In):
    """New sink; `target` is a URL, or a folder below one that ``--folders`` allows."""

    kind: Literal["webhook", "folder", "mqtt"]
    target: Annotated[str, Field(min_length=1, max_length=1000)]
    headers: Annotated[dict[HeaderName, Header], Field(default_factory=dict, max_length=20)]


class SinkOut(_Out):
    """Sink; `error` is that of the last try, None once a result is received."""

    id: int
    product_id: int
    kind: str
    target: str
    active: bool
    error: str | None
    created: datetime


class SinkChange(_In):
    """Pause of a sink: results are not queued for it then."""

    active: bool


@router.get("/products/{product_id}/sinks", response_model=list[SinkOut])
def list_sinks(product_id: Id, _: Engineer, station: StationOf) -> Sequence[Sink]:
    """List the sinks of a product."""
    with station.database.reading() as session:
        get_product(session, product_id)
        return session.scalars(select(Sink).where(Sink.product_id == product_id).order_by(Sink.id)).all()


@router.post("/products/{product_id}/sinks", response_model=SinkOut, status_code=201)
def add_sink(product_id: Id, body: SinkIn, caller: Engineer, station: StationOf) -> Sink:
    """Send the results of a product to a receiver, from now on."""
    target = checked_target(body.kind, body.target, station.settings.folders)
    options: dict[str, Any] = {"headers": dict(body.headers)} if body.kind == "webhook" else {}
    with station.database.writing() as session:
        get_product(session, product_id)
        sink = Sink(product_id=product_id, kind=body.kind, target=target, options=options)
        session.add(sink)
        session.flush()
        record(session, caller.name, "sink.add", f"sink {sink.id}", kind=sink.kind)
    station.delivery.refresh()
    return sink


@router.patch("/sinks/{sink_id}", response_model=SinkOut)
def change_sink(sink_id: Id, body: SinkChange, caller: Engineer, station: StationOf) -> Sink:
    """Pause a sink, or start it again."""
    with station.database.writing() as session:
        sink = _found(session.get(Sink, sink_id), sink_id)
        sink.active = body.active
        record(session, caller.name, "sink.change", f"sink {sink_id}", active=body.active)
    station.delivery.refresh()
    return sink


@router.delete("/sinks/{sink_id}", status_code=204)
def remove_sink(sink_id: Id, caller: Engineer, station: StationOf) -> None:
    """Remove a sink, and what waits for it."""
    with station.database.writing() as session:
        sink = _found(session.get(Sink, sink_id), sink_id)
        waiting = session.scalar(select(func.count()).where(Outbox.sink_id == sink_id))
        session.execute(delete(Outbox).where(Outbox.sink_id == sink_id))
        session.delete(sink)
        record(session, caller.name, "sink.remove", f"sink {sink_id}", waiting=waiting)
    station.delivery.refresh()


def _found(sink: Sink | None, sink_id: int) -> Sink:
    if sink is None:
        raise MissingError(f"sink {sink_id}: does not exist; see the list of sinks")
    return sink
