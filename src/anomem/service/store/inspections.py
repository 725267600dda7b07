"""Queries of inspections: pages by key, never by offset, so that a million rows answer as fast as ten."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import ColumnElement, Select, select
from sqlalchemy.orm import Session

from anomem.service.errors import MissingError
from anomem.service.store.database import Database
from anomem.service.store.tables import Inspection

__all__ = ["Filters", "export_rows", "get_inspection", "page", "summary"]

LABELS = ("normal", "defect", "unsure")
_EXPORT_ROWS = 2000
_NAMED = 5000


@dataclass(frozen=True)
class Filters:
    """Conditions on inspections of one model; None: any.

    Parameters
    ----------
    model_id : int
    anomalous, sampled, unreadable : bool or None
    label : {"normal", "defect", "unsure", "any", "none"} or None
    stratum, name, source : str or None
        `name` is the start of the image's name.
    version_id : int or None
    since, until : datetime or None
    """

    model_id: int
    anomalous: bool | None = None
    sampled: bool | None = None
    unreadable: bool | None = None
    label: Literal["normal", "defect", "unsure", "any", "none"] | None = None
    stratum: str | None = None
    name: str | None = None
    source: str | None = None
    version_id: int | None = None
    since: datetime | None = None
    until: datetime | None = None

    def conditions(self, session: Session) -> list[ColumnElement[bool]]:
        """Return the conditions; times become ranges of ids, which the indices end in."""
        row = Inspection
        found: list[ColumnElement[bool]] = [row.model_id == self.model_id]
        for column, value in (
            (row.anomalous, self.anomalous),
            (row.sampled, self.sampled),
            (row.stratum, self.stratum),
            (row.source, self.source),
            (row.version_id, self.version_id),
        ):
            if value is not None:
                found.append(column == value)
        if self.label in LABELS:
            found.append(row.label == self.label)
        elif self.label is not None:
            found.append(row.label.is_(None) if self.label == "none" else row.label.is_not(None))
        if self.unreadable is not None:
            found.append(row.error.is_not(None) if self.unreadable else row.error.is_(None))
        if self.name:
            found.append(row.id.in_(self._named()))
        return found + self._times(session)

    def _named(self) -> Select[int]:
        """Return the ids of names that start with `name`, by the index; at most so many as a person looks through."""
        start = str(self.name)
        query = select(Inspection.id).where(Inspection.model_id == self.model_id, Inspection.name >= start)
        return query.where(Inspection.name < start + chr(0x10FFFF)).order_by(Inspection.name).limit(_NAMED)

    def _times(self, session: Session) -> list[ColumnElement[bool]]:
        row = Inspection
        found: list[ColumnElement[bool]] = []
        own = select(row.id).where(row.model_id == self.model_id).limit(1)
        if self.since is not None:
            first = session.scalar(own.where(row.created >= self.since).order_by(row.created, row.id))
            found.append(row.id >= first if first is not None else row.id < 0)
        if self.until is not None:
            after = session.scalar(own.where(row.created >= self.until).order_by(row.created, row.id))
            if after is not None:
                found.append(row.id < after)
        return found


def page(
    session: Session, filters: Filters, *, before: int | None = None, after: int | None = None, limit: int = 50
) -> list[Inspection]:
    """Return inspections, newest first.

    Parameters
    ----------
    before, after : int, optional
        Id of the last row of the page shown, or of its first row: the next page, or the one before.
    limit : int
        Rows per page.
    """
    query: Select[Inspection] = select(Inspection).where(*filters.conditions(session)).limit(limit)
    if after is not None:
        rows = session.scalars(query.where(Inspection.id > after).order_by(Inspection.id)).all()
        return list(rows)[::-1]
    if before is not None:
        query = query.where(Inspection.id < before)
    return list(session.scalars(query.order_by(Inspection.id.desc())))


def get_inspection(session: Session, inspection_id: int) -> Inspection:
    """Return an inspection; MissingError if there is none."""
    found = session.get(Inspection, inspection_id)
    if found is None:
        raise MissingError(f"inspection {inspection_id}: does not exist; see the history")
    return found


def export_rows(database: Database, filters: Filters) -> Iterator[Sequence[Inspection]]:
    """Yield all inspections, oldest first, in chunks, each read in a transaction of its own."""
    last = 0
    while True:
        with database.reading() as session:
            query = select(Inspection).where(*filters.conditions(session), Inspection.id > last)
            rows = session.scalars(query.order_by(Inspection.id).limit(_EXPORT_ROWS)).all()
        if not rows:
            return
        yield rows
        last = rows[-1].id


def summary(row: Inspection) -> dict[str, Any]:
    """Return the facts of an inspection for events and sinks, JSON-ready."""
    return {
        "id": row.id,
        "model": row.model_id,
        "version": row.version_id,
        "image": row.image_sha256,
        "name": row.name,
        "score": row.score,
        "p_value": row.p_value,
        "anomalous": row.anomalous,
        "alpha": row.alpha,
        "stratum": row.stratum,
        "group": row.group,
        "sampled": row.sampled,
        "error": row.error,
        "created": row.created.isoformat(),
    }
