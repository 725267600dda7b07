"""Retention: image files of old inspections are deleted; results, labels and what models learn from stay."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import Select, exists, func, select, update
from sqlalchemy.orm import Session

from anomem.service.images import Images
from anomem.service.store.database import Database
from anomem.service.store.tables import Image, Label, Normal, Setting, now

__all__ = ["Limits", "Retention", "read_limits", "write_limits"]

_log = logging.getLogger(__name__)

_NAME = "retention"
_EVERY_S = 3600.0
_CHUNK = 500
_ORPHANS_EVERY = 24
_ORPHAN_S = 24 * 3600.0


@dataclass(frozen=True)
class Limits:
    """Limits on image files that no label and no fit needs; None: no limit.

    Parameters
    ----------
    days : int or None
        Age of a file.
    megabytes : int or None
        Size of all image files, the oldest are deleted first.
    """

    days: int | None = None
    megabytes: int | None = None


def read_limits(session: Session) -> Limits:
    """Return the limits of the station."""
    found = session.get(Setting, _NAME)
    return Limits() if found is None else Limits(**found.value)


def write_limits(session: Session, limits: Limits) -> None:
    """Set the limits of the station."""
    session.merge(Setting(name=_NAME, value={"days": limits.days, "megabytes": limits.megabytes}))


class Retention:
    """Thread that deletes image files once per hour.

    Parameters
    ----------
    database : Database
    images : Images
    """

    def __init__(self, database: Database, images: Images) -> None:
        self._database, self._images = database, images
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="retention", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()

    def apply(self) -> int:
        """Delete what the limits allow no longer, and return the number of files."""
        with self._database.reading() as session:
            limits = read_limits(session)
        count = 0
        if limits.days is not None:
            old = _removable().where(Image.created < now() - timedelta(days=limits.days))
            count += self._delete(old)
        if limits.megabytes is not None:
            count += self._delete(_removable(), until_bytes=limits.megabytes * 1_000_000)
        return count

    def remove_orphans(self, age_s: float = _ORPHAN_S) -> int:
        """Delete files without a row, left by requests that were refused later; return their number."""
        count = 0
        for chunk in self._images.older_than(age_s):
            with self._database.reading() as session:
                known = set(session.scalars(select(Image.sha256).where(Image.sha256.in_(chunk))))
                known |= set(session.scalars(select(Label.mask_sha256).where(Label.mask_sha256.in_(chunk))))
            count += sum(self._images.remove(sha256) for sha256 in chunk if sha256 not in known)
        return count

    def _delete(self, query: Select[Image], until_bytes: int | None = None) -> int:
        """Delete images in the order of the query, until those left fit into `until_bytes`."""
        count = 0
        while not self._stopped.is_set():
            with self._database.reading() as session:
                chosen = list(session.scalars(query.order_by(Image.created, Image.sha256).limit(_CHUNK)))
                if until_bytes is not None:
                    total = session.scalar(select(func.sum(Image.size)).where(Image.deleted.is_(None))) or 0
                    chosen = _surplus(chosen, int(total) - until_bytes)
            removed = [image.sha256 for image in chosen if self._images.remove(image.sha256)]
            if not removed:
                return count
            with self._database.writing() as session:
                session.execute(update(Image).where(Image.sha256.in_(removed)).values(deleted=now()))
            count += len(removed)
        return count

    def _run(self) -> None:
        hours = 0
        while not self._stopped.wait(_EVERY_S):
            hours += 1
            try:
                self.apply()
                if hours % _ORPHANS_EVERY == 0:
                    self.remove_orphans()
            except Exception:  # noqa: BLE001 - logged
                _log.exception("retention")  # the database is away: tried again


def _removable() -> Select[Image]:
    return (
        select(Image)
        .where(Image.deleted.is_(None))
        .where(~exists().where(Label.image_sha256 == Image.sha256))
        .where(~exists().where(Normal.image_sha256 == Image.sha256))
    )


def _surplus(images: list[Image], surplus: int) -> list[Image]:
    chosen = []
    for image in images:
        if surplus <= 0:
            break
        chosen.append(image)
        surplus -= image.size
    return chosen
