"""Outbox: results that sinks have not received yet, written in the transaction of the inspection itself."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from anomem.service.store.inspections import summary
from anomem.service.store.tables import Inspection, Model, Outbox, Product, Sink, now

__all__ = ["delivered", "fill", "next_entry", "postponed"]

_FIRST_S, _LONGEST_S = 1.0, 300.0


def fill(session: Session, rows: Sequence[Inspection]) -> None:
    """Add one entry per inspection and active sink of its product; inspections are of one model."""
    if not rows:
        return
    query = (
        select(Sink.id, Product.name, Model.name)
        .join(Product, Product.id == Sink.product_id)
        .join(Model, Model.product_id == Product.id)
        .where(Model.id == rows[0].model_id, Sink.active)
    )
    for sink_id, product, model in session.execute(query).all():
        for row in rows:
            payload = {**summary(row), "product": product, "model_name": model}
            session.add(Outbox(sink_id=sink_id, payload=payload))


def next_entry(session: Session, sink_id: int) -> Outbox | None:
    """Return the oldest entry of a sink: no other is delivered before it."""
    return session.scalar(select(Outbox).where(Outbox.sink_id == sink_id).order_by(Outbox.id).limit(1))


def delivered(session: Session, entry_id: int) -> None:
    """Delete an entry that its sink has received."""
    entry = session.get(Outbox, entry_id)
    if entry is not None:
        session.delete(entry)
        session.get_one(Sink, entry.sink_id).error = None


def postponed(session: Session, entry_id: int, error: str) -> float:
    """Note a failed delivery, and return the seconds until the next try, which double up to five minutes."""
    entry = session.get_one(Outbox, entry_id)
    pause = min(_LONGEST_S, _FIRST_S * 2.0 ** min(entry.attempts, 20))
    entry.attempts += 1
    entry.due = now() + timedelta(seconds=pause)
    session.get_one(Sink, entry.sink_id).error = error[:500]
    return pause
