"""Delivery: one thread per sink, each entry in order, retried until it is received."""

from __future__ import annotations

import http.client
import logging
import threading

from sqlalchemy import select

from anomem.errors import one_line
from anomem.service.events import Events
from anomem.service.sinks.outbox import delivered, next_entry, postponed
from anomem.service.sinks.receivers import Receiver, open_receiver
from anomem.service.store.database import Database
from anomem.service.store.tables import Sink

__all__ = ["Delivery"]

_log = logging.getLogger(__name__)

_IDLE_S = 30.0
_AWAY_S = 1.0


class Delivery:
    """Threads of all active sinks.

    Parameters
    ----------
    database : Database
    events : Events
    """

    def __init__(self, database: Database, events: Events) -> None:
        self._database, self._events = database, events
        self._lanes: dict[int, _Lane] = {}
        self._lock = threading.Lock()

    def start(self) -> None:
        """Start a thread per active sink."""
        self.refresh()

    def refresh(self) -> None:
        """Start and end threads after a change of the sinks."""
        with self._database.reading() as session:
            wanted = {sink.id: sink for sink in session.scalars(select(Sink).where(Sink.active))}
        with self._lock:
            for sink_id in self._lanes.keys() - wanted.keys():
                self._lanes.pop(sink_id).stop()
            for sink_id in wanted.keys() - self._lanes.keys():
                self._lanes[sink_id] = _Lane(self._database, self._events, wanted[sink_id])

    def wake(self) -> None:
        """Deliver now: there are new entries."""
        for lane in list(self._lanes.values()):
            lane.wake()

    def stop(self) -> None:
        """End all threads; entries that wait are delivered after the next start."""
        with self._lock:
            for lane in self._lanes.values():
                lane.stop()
            self._lanes.clear()


class _Lane:
    """Thread of one sink."""

    def __init__(self, database: Database, events: Events, sink: Sink) -> None:
        self._database, self._events, self._sink = database, events, sink
        self._changed = threading.Condition()
        self._fresh, self._stopped = True, False
        self._thread = threading.Thread(target=self._run, name=f"sink-{sink.id}", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        with self._changed:
            self._fresh = True
            self._changed.notify()

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        receiver = open_receiver(self._sink.kind, self._sink.target, self._sink.options)
        while not self._stopped:
            self._fresh = False
            try:
                pause = self._deliver(receiver)
            except Exception:  # noqa: BLE001 - logged
                _log.exception("sink %s", self._sink.id)  # the database is away: the thread goes on
                pause = _AWAY_S
            self._wait(pause)
        receiver.close()

    def _deliver(self, receiver: Receiver) -> float:
        """Deliver the oldest entry, and return the seconds to wait before the next."""
        with self._database.reading() as session:
            entry = next_entry(session, self._sink.id)
        if entry is None:
            return _IDLE_S
        try:
            receiver.send(entry.payload)
        except (OSError, http.client.HTTPException) as error:
            with self._database.writing() as session:
                pause = postponed(session, entry.id, one_line(error))
            self._events.publish(
                "sink", {"sink": self._sink.id, "error": one_line(error), "attempts": entry.attempts + 1}
            )
            return pause
        with self._database.writing() as session:
            delivered(session, entry.id)
        return 0.0

    def _wait(self, seconds: float) -> None:
        """Wait, or until there are new entries where the lane is idle: a failing receiver is not hurried."""
        with self._changed:
            if seconds == _IDLE_S and self._fresh:
                return
            if seconds and not self._stopped:
                self._changed.wait_for(lambda: self._stopped or (seconds == _IDLE_S and self._fresh), seconds)
