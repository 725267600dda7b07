"""Normals that look most like an inspected part: by their thumbnails, then by the memory's items that they recall."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from anomem.errors import ImageError
from anomem.runtime.images import decode, resize
from anomem.service.images import Images
from anomem.service.scoring.serving import Serving
from anomem.service.store.database import Database
from anomem.service.store.inspections import get_inspection
from anomem.service.store.models import get_model, get_version
from anomem.service.store.tables import Inspection, Normal
from anomem.types import FloatArray

__all__ = ["Alike", "Similar"]

_SIDE = 32
_AMONG = 500
_KEPT = 4000
_SHORTLIST = 24
_KEPT_RECALLS = 500


@runtime_checkable
class Recalling(Protocol):
    """Model with a memory; exported ones keep no access to theirs."""

    def recalled(self, images: list[Path], *, max_pixels: int | None = None) -> FloatArray:
        """Return the share of each item in what each image recalls, (n, N), scales side by side."""


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
        0: the same picture. By memory: share of the positions that recall other items; by thumbnail: root mean
        square difference of the standardised thumbnails.
    by : {"memory", "thumbnail"}
    """

    kind: str
    id: int
    image_sha256: str
    distance: float
    by: Literal["memory", "thumbnail"] = "thumbnail"


class Alike:
    """Search among the normals of a model, or its latest inconspicuous parts where it has none.

    Parameters
    ----------
    database : Database
    images : Images
    serving : Serving
    max_pixels : int
        Size limit per image.
    """

    def __init__(self, database: Database, images: Images, serving: Serving, max_pixels: int) -> None:
        self._database, self._images, self._serving, self._max_pixels = database, images, serving, max_pixels
        self._kept: OrderedDict[str, FloatArray] = OrderedDict()
        self._recalls: OrderedDict[tuple[int, str], FloatArray] = OrderedDict()
        self._lock, self._one = threading.Lock(), threading.Lock()

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
        found = sorted(found, key=lambda similar: similar.distance)[: max(count, _SHORTLIST)]
        nearest = [similar for similar in found if self._images.find(similar.image_sha256) is not None]
        with self._one:  # a forward pass per image, and scoring needs the cores
            return self._by_memory(inspection, nearest)[:count]

    def _by_memory(self, inspection: Inspection, found: list[Similar]) -> list[Similar]:
        """Order by the items that the images recall, where the version of the inspection has a memory."""
        with self._database.reading() as session:
            version = get_version(session, inspection.version_id)
            alpha = get_model(session, inspection.model_id).alpha
        model = self._serving.model(version, alpha)
        if not found or not isinstance(model, Recalling):
            return found
        hashes = [inspection.image_sha256, *(one.image_sha256 for one in found)]
        own, *others = self._recalled(model, version.id, hashes)
        if not own.size:
            return found
        apart = [float(np.abs(own - other).sum() / (own + other).sum()) for other in others]
        judged = [replace(one, distance=value, by="memory") for one, value in zip(found, apart, strict=True)]
        return sorted(judged, key=lambda similar: similar.distance)

    def _recalled(self, model: Recalling, version_id: int, hashes: list[str]) -> list[FloatArray]:
        """Return what the images recall, of those seen before from the latest searches."""
        kept = self._recalls
        new = [sha256 for sha256 in dict.fromkeys(hashes) if (version_id, sha256) not in kept]
        if new:
            rows = model.recalled([self._images.path(sha256) for sha256 in new], max_pixels=self._max_pixels)
            kept |= {(version_id, sha256): row for sha256, row in zip(new, rows, strict=True)}
        found = [kept[version_id, sha256] for sha256 in hashes]
        while len(kept) > _KEPT_RECALLS:
            kept.popitem(last=False)
        return found

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
