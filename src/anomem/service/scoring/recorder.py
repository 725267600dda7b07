"""Recorder: one thread writes scored parts, all that wait in one transaction; only then are they acknowledged."""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from anomem.errors import one_line
from anomem.service.errors import ServiceError, StoreAwayError
from anomem.service.scoring.parts import ScoredPart
from anomem.service.store.database import Database
from anomem.service.store.tables import Image, Inspection, Model

_log = logging.getLogger(__name__)

__all__ = ["SAMPLE_EVERY", "Recorder"]

SAMPLE_EVERY = 20
"""Default of m: every m-th part is drawn for calibration, whatever its score."""

_BACKLOG = 1024
"""Scored parts that wait for the database."""

Beside = Callable[[Session, Sequence[Inspection]], None]
"""Further writes in the transaction of new inspections: outbox, drift."""


class Recorder:
    """Writer of inspections.

    Parameters
    ----------
    database : Database
    beside : sequence of callables
        Called with the session and each model's new inspections, before the commit.
    after : callable
        Called with the new inspections after the commit.
    """

    def __init__(
        self, database: Database, beside: Sequence[Beside], after: Callable[[Sequence[Inspection]], None]
    ) -> None:
        self._database, self._beside, self._after = database, beside, after
        self._parts: list[ScoredPart] = []
        self._changed = threading.Condition()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="record", daemon=True)
        self._thread.start()

    def add(self, parts: Sequence[ScoredPart]) -> None:
        """Queue scored parts; waits while many are queued, so that a slow database slows the scoring down."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or len(self._parts) < _BACKLOG)
            self._parts.extend(parts)
            self._changed.notify_all()

    def stop(self) -> None:
        """Write what waits, then end the thread."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self._thread.join()

    def _run(self) -> None:
        while parts := self._next():
            try:
                with self._database.writing() as session:
                    new, rows = self._write(session, parts)
            except Exception as error:  # noqa: BLE001 - the thread goes on with the next parts
                failure = error if isinstance(error, ServiceError) else StoreAwayError(f"database: {one_line(error)}")
                for part in parts:
                    part.part.done.set_exception(failure)
                continue
            for part, row in zip(parts, rows, strict=True):
                part.part.done.set_result(row)
            try:
                self._after(new)
            except Exception:  # noqa: BLE001 - logged
                _log.exception("after recording")  # the inspections are kept, and the thread goes on

    def _next(self) -> list[ScoredPart]:
        with self._changed:
            while not self._parts and not self._stopped:
                self._changed.wait()
            parts, self._parts = self._parts, []
            self._changed.notify_all()
            return parts

    def _write(self, session: Session, parts: Sequence[ScoredPart]) -> tuple[list[Inspection], list[Inspection]]:
        """Write parts; return the new rows, and the row of each part, which for a known key is the earlier one."""
        _write_images(session, parts)
        new, rows = [], []
        by_model = defaultdict(list)
        for part in parts:
            by_model[part.model_id].append(part)
        written: dict[int, Inspection] = {}
        for model_id, own in by_model.items():
            added = self._write_model(session, model_id, own, written)
            new += added
        rows = [written[id(part)] for part in parts]
        return new, rows

    def _write_model(
        self, session: Session, model_id: int, parts: Sequence[ScoredPart], written: dict[int, Inspection]
    ) -> list[Inspection]:
        model = session.get_one(Model, model_id, with_for_update=True)
        every = int(model.settings.get("sample_every", SAMPLE_EVERY))
        known = _known(session, model_id, (part.part.key for part in parts))
        added = []
        for part in parts:
            key = part.part.key
            row = None if key is None else known.get(key)
            if row is None:
                if part.error is None:
                    model.counted += 1
                row = _row(part, sampled=part.error is None and model.counted % every == 0)
                added.append(row)
                if key is not None:
                    known[key] = row
            written[id(part)] = row
        session.add_all(added)
        session.flush()
        for write in self._beside:
            write(session, added)
        return added


def _write_images(session: Session, parts: Sequence[ScoredPart]) -> None:
    stored = {part.part.image.sha256: part.part.image for part in parts}
    found = session.scalars(select(Image).where(Image.sha256.in_(stored))).all()
    for image in found:
        image.deleted = None
    for sha256 in stored.keys() - {image.sha256 for image in found}:
        file = stored[sha256]
        session.add(Image(sha256=sha256, size=file.size, media=file.media))
    session.flush()


def _known(session: Session, model_id: int, keys: Iterable[str | None]) -> dict[str, Inspection]:
    wanted = [key for key in keys if key is not None]
    if not wanted:
        return {}
    found = session.scalars(select(Inspection).where(Inspection.model_id == model_id, Inspection.key.in_(wanted)))
    return {row.key: row for row in found if row.key is not None}


def _row(part: ScoredPart, *, sampled: bool) -> Inspection:
    return Inspection(
        model_id=part.model_id,
        version_id=part.version_id,
        image_sha256=part.part.image.sha256,
        key=part.part.key,
        name=part.part.name[:400],
        source=part.part.source,
        score=part.score,
        p_value=part.p_value,
        anomalous=part.anomalous,
        alpha=part.alpha,
        stratum=part.part.stratum,
        group=part.part.group,
        sampled=sampled,
        error=None if part.error is None else part.error[:500],
    )
