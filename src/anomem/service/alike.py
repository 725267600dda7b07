"""Normals that look most like an inspected part, by their thumbnails."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from anomem.errors import ImageError
from anomem.runtime.images import decode, resize
from anomem.service.images import Images
from anomem.service.store.database import Database
from anomem.service.store.inspections import get_inspection
from anomem.service.store.tables import Inspection, Normal
from anomem.types import FloatArray

__all__ = ["Alike", "Similar"]

_SIDE = 32
_AMONG = 500
_KEPT = 4000


@dataclass(frozen=True)
class Similar:
    """Good part that resembles another one.

    Parameters
    ----------
    kind : {"normal", "inspection"}
        Image that the fit learnt from, or an inspected part that no one has labelled defect.
    id : int
    image_sha256 : str
    distance : float
        Root mean square difference of the standardised thumbnails; 0: the same picture.
    """

    kind: str
    id: int
    image_sha256: str
    distance: float


class Alike:
    """Search among the normals of a model, or its latest inconspicuous parts where it has none.

    Parameters
    ----------
    database : Database
    images : Images
    max_pixels : int
        Size limit per image.
    """

    def __init__(self, database: Database, images: Images, max_pixels: int) -> None:
        self._database, self._images, self._max_pixels = database, images, max_pixels
        self._kept: OrderedDict[str, FloatArray] = OrderedDict()
        self._lock = threading.Lock()

    def nearest(self, inspection_id: int, count: int) -> list[Similar]:
        """Return the good parts most like an inspection, nearest first; none for an unreadable image."""
        with self._database.reading() as session:
            inspection = get_inspection(session, inspection_id)
            among = _good_parts(session, inspection)
        own = self._thumbnail(inspection.image_sha256)
        if own is None:
            return []
        found = []
        for kind, number, sha256 in among:
            other = self._thumbnail(sha256)
            if other is not None:
                found.append(Similar(kind, number, sha256, float(np.sqrt(np.mean((own - other) ** 2)))))
        return sorted(found, key=lambda similar: similar.distance)[:count]

    def _thumbnail(self, sha256: str) -> FloatArray | None:
        """Return a standardised grey thumbnail, (32, 32) float32; None for an image that is gone or unreadable."""
        with self._lock:
            if sha256 in self._kept:
                self._kept.move_to_end(sha256)
                return self._kept[sha256]
        path = self._images.find(sha256)
        if path is None:
            return None
        try:
            image = resize(decode(path, name=sha256[:16], max_pixels=self._max_pixels), (_SIDE, _SIDE))
        except ImageError:
            return None
        grey = image.astype(np.float32).mean(axis=2)
        shown: FloatArray = (grey - grey.mean()) / max(float(grey.std()), 1.0)
        with self._lock:
            self._kept[sha256] = shown
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return shown


def _good_parts(session: Session, inspection: Inspection) -> list[tuple[str, int, str]]:
    """Return kind, id and image of good parts of the same model, without the image itself."""
    query = select(Normal).where(Normal.model_id == inspection.model_id, ~Normal.excluded)
    own = Normal.image_sha256 != inspection.image_sha256
    normals = session.scalars(query.where(own).order_by(Normal.id).limit(_AMONG)).all()
    if normals:
        return [("normal", row.id, row.image_sha256) for row in normals]
    row = Inspection
    parts = (
        select(row)
        .where(row.model_id == inspection.model_id, row.anomalous.is_(False), row.error.is_(None))
        .where(row.label.is_(None) | (row.label == "normal"), row.image_sha256 != inspection.image_sha256)
        .order_by(row.id.desc())
        .limit(_AMONG)
    )
    return [("inspection", found.id, found.image_sha256) for found in session.scalars(parts)]
