"""Tasks of jobs, gathered from the store."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from anomem.errors import InputError
from anomem.service.errors import ConflictError
from anomem.service.images import Images
from anomem.service.jobs.spec import ImageRow, Spec
from anomem.service.store.labels import latest_labels, strata_of, unselected
from anomem.service.store.models import current_version, get_model, get_version
from anomem.service.store.normals import list_normals
from anomem.service.store.tables import Inspection, Job, Label, Normal, Version

__all__ = ["Tasks"]

_HISTORY = 300
_UNSELECTED = 500
_CALIBRATE = 2048


class Tasks:
    """Gatherer of tasks.

    Parameters
    ----------
    root : Path
        Folder of the station.
    images : Images
    max_pixels : int
        Size limit per image.
    """

    def __init__(self, root: Path, images: Images, max_pixels: int) -> None:
        self._root, self._images, self._max_pixels = root, images, max_pixels

    def gather(self, session: Session, job: Job, out: Path) -> Spec:
        """Return the task of a job.

        Raises
        ------
        InputError, ConflictError
            There is nothing to learn from, or no version to start from.
        """
        model = get_model(session, job.model_id)
        common: dict[str, Any] = {
            "kind": job.kind,
            "out": str(out),
            "alpha": model.alpha,
            "max_pixels": self._max_pixels,
            "export": model.settings.get("export"),
        }
        if job.kind == "fit":
            return Spec(**common, **self._fit(session, job))
        chosen = job.params.get("version")
        version = current_version(session, model) if chosen is None else get_version(session, int(chosen))
        if job.kind == "refit":
            return Spec(**common, **self._refit(session, job, version))
        if job.kind == "calibrate":
            normals = unselected(session, job.model_id, _CALIBRATE)
            rows = [row for row in normals if row.label == "normal" or not job.params.get("confirmed", True)]
            if not rows:
                raise InputError("calibrate: no part of the unselected sample is confirmed normal; label some")
            return Spec(**common, base=str(self._file(version)), normals=self._inspected(rows))
        rows = self._recent(session, job.model_id, int(job.params.get("limit", 1000)))
        return Spec(**common, base=str(self._file(version)), history=self._inspected(rows))

    def _fit(self, session: Session, job: Job) -> dict[str, Any]:
        normals = [row for row in map(self._normal, list_normals(session, job.model_id)) if row is not None]
        if not normals:
            raise InputError("fit: the model has no images of good parts; add some first")
        held = {row.sha256 for row in normals}
        labels = [row for row in self._labels(session, job.model_id) if row.sha256 not in held]
        return {
            "method": job.params.get("method", "anomem"),
            "assignments": tuple(job.params.get("set", ())),
            "normals": tuple(normals),
            "labels": tuple(labels) if job.params.get("labels", True) else (),
        }

    def _refit(self, session: Session, job: Job, version: Version) -> dict[str, Any]:
        if "detector" not in version.files:
            raise ConflictError(f"version {version.number}: is an exported model; import its .safetensors to refit it")
        known = self._root / version.folder / "out_of_fold.json"
        return {
            "base": str(self._root / version.folder / version.files["detector"]),
            "labels": tuple(self._labels(session, job.model_id)),
            "history": self._inspected(self._recent(session, job.model_id, _HISTORY)),
            "unselected": self._inspected(unselected(session, job.model_id, _UNSELECTED)),
            "out_of_fold": json.loads(known.read_text("utf-8")) if known.is_file() else {},
        }

    def _file(self, version: Version) -> Path:
        name = version.files.get("detector") or version.files["exported"]
        return self._root / version.folder / str(name)

    def _recent(self, session: Session, model_id: int, limit: int) -> list[Inspection]:
        query = select(Inspection).where(Inspection.model_id == model_id, Inspection.score.is_not(None))
        return list(session.scalars(query.order_by(Inspection.id.desc()).limit(limit)))

    def _inspected(self, rows: Iterable[Inspection]) -> tuple[ImageRow, ...]:
        """Return inspections whose image is still there."""
        found = []
        for row in rows:
            path = self._images.find(row.image_sha256)
            if path is not None:
                facts: dict[str, Any] = {"group": row.group, "stratum": row.stratum}
                facts |= {"anomalous": row.anomalous, "label": row.label}
                found.append(ImageRow(str(path), row.name, row.id, row.image_sha256, **facts))
        return tuple(found)

    def _normal(self, row: Normal) -> ImageRow | None:
        path = self._images.find(row.image_sha256)
        facts: dict[str, Any] = {"group": row.group, "stratum": row.stratum}
        return None if path is None else ImageRow(str(path), row.name, row.id, row.image_sha256, **facts)

    def _labels(self, session: Session, model_id: int) -> list[ImageRow]:
        labels = latest_labels(session, model_id)
        strata = strata_of(session, [row.inspection_id for row in labels])
        rows = (self._label(row, strata.get(row.inspection_id)) for row in labels)
        return [row for row in rows if row is not None]

    def _label(self, row: Label, stratum: str | None) -> ImageRow | None:
        path = self._images.find(row.image_sha256)
        if path is None:
            return None
        defect = row.verdict == "defect"
        mask = self._images.find(row.mask_sha256) if defect and row.mask_sha256 else None
        return ImageRow(
            str(path),
            f"inspection {row.inspection_id}",
            row.inspection_id,
            row.image_sha256,
            defect=defect,
            stratum=stratum,
            type=row.type if defect else None,
            mask=None if mask is None else str(mask),
        )
