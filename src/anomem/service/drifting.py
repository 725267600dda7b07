"""Drift alarms of a station: one tracker per version and stratum, rebuilt from the store."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from anomem.runtime.calibration import Calibration
from anomem.service.drift import DriftTracker
from anomem.service.errors import ServiceError
from anomem.service.events import Events
from anomem.service.scoring.serving import Serving
from anomem.service.store.database import Database
from anomem.service.store.tables import Drift, Inspection, now

__all__ = ["Drifting", "tie_of"]

_REPLAYED = 10_000


def tie_of(row: Inspection) -> float:
    """Return a number in [0, 1) that depends on nothing but the inspection's id and image, so that replays agree."""
    digest = hashlib.sha256(f"{row.id}:{row.image_sha256}".encode()).digest()
    return int.from_bytes(digest[:7], "big") / (1 << 56)


class Drifting:
    """Trackers of the current versions.

    Parameters
    ----------
    database : Database
    serving : Serving
    events : Events
    """

    def __init__(self, database: Database, serving: Serving, events: Events) -> None:
        self._database, self._serving, self._events = database, serving, events
        self._trackers: dict[tuple[int, str], DriftTracker] = {}
        self._lock = threading.Lock()

    def observe(self, rows: Sequence[Inspection]) -> None:
        """Add recorded inspections; those that are not of the unselected sample are passed over."""
        drawn = [row for row in rows if row.sampled and row.score is not None]
        if not drawn:
            return
        with self._lock:
            try:
                with self._database.writing() as session:
                    alarms = [facts for row in drawn if (facts := self._add(session, row)) is not None]
            except ServiceError:  # rebuilt from the store at the next image
                self._trackers.clear()
                return
        for facts in alarms:
            self._events.publish("drift", facts)

    def _add(self, session: Session, row: Inspection) -> dict[str, Any] | None:
        served = self._serving.batcher(row.model_id).served
        if served.version_id != row.version_id:
            return None
        key = (row.version_id, row.stratum or "")
        state = session.scalar(select(Drift).where(Drift.version_id == key[0], Drift.stratum == key[1]))
        if state is None:
            state = Drift(model_id=row.model_id, version_id=key[0], stratum=key[1], alarms=0)
            session.add(state)
        tracker = self._trackers.get(key)
        if tracker is None:
            tracker = self._trackers[key] = _tracker(served.model.calibration_, row.stratum)
            for former in self._earlier(session, row):
                tracker.add(former.score or 0.0, tie_of(former))
        alarm = tracker.add(row.score or 0.0, tie_of(row))
        state.n, state.log10_evidence, state.alarms = tracker.n, tracker.log10_evidence, tracker.alarms
        if not alarm:
            return None
        state.alarmed, state.alarm_inspection_id = now(), row.id
        return {"model": row.model_id, "stratum": row.stratum, "inspection": row.id, "n": tracker.n}

    def _earlier(self, session: Session, row: Inspection) -> list[Inspection]:
        """Return the drawn inspections of the same version and stratum before a row, oldest first."""
        same = Inspection.stratum.is_(None) if row.stratum is None else Inspection.stratum == row.stratum
        query = (
            select(Inspection)
            .where(Inspection.model_id == row.model_id, Inspection.sampled, Inspection.id < row.id)
            .where(Inspection.version_id == row.version_id, Inspection.score.is_not(None), same)
            .order_by(Inspection.id)
        )
        return list(session.scalars(query.limit(_REPLAYED)))


def _tracker(calibration: Calibration, stratum: str | None) -> DriftTracker:
    own = calibration if calibration.strata is None else calibration.of(stratum)
    return DriftTracker(own.scores.tolist(), upward=calibration.kind != "split")
