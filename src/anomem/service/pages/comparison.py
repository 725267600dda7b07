"""Comparison: verdicts of the history before and after a re-scoring by another version."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from fastapi import Request
from fastapi.responses import HTMLResponse
from sqlalchemy import select
from sqlalchemy.orm import Session

from anomem.service.api.deps import Id, StationOf, Viewer
from anomem.service.errors import MissingError
from anomem.service.pages.places import model_page
from anomem.service.pages.routing import page_router
from anomem.service.store.tables import Inspection, Job, Version

__all__ = ["router"]

router = page_router()

_CHUNK = 500
_SHOWN = 60


@dataclass(frozen=True)
class Pair:
    """Inspection with the result of another version."""

    inspection: Inspection
    score: float | None
    p_value: float | None
    anomalous: bool
    before: bool


@router.get("/models/{model_id}/comparisons/{job_id}")
def comparison(request: Request, model_id: Id, job_id: Id, caller: Viewer, station: StationOf) -> HTMLResponse:
    """Show which verdicts another version changes, in a table and with pictures."""
    with station.database.reading() as session:
        job = session.get(Job, job_id)
        if job is None or job.model_id != model_id or job.kind != "rescore" or job.state != "done":
            raise MissingError(f"job {job_id}: is no finished re-scoring of this model; see its versions")
        version = session.get(Version, int(job.params["version"]))
        pairs = _pairs(session, job)
    changed = [pair for pair in pairs if pair.anomalous != pair.before]
    content = {
        "version": version,
        "total": len(pairs),
        "changed": changed[:_SHOWN],
        "more": max(0, len(changed) - _SHOWN),
        "counts": Counter((pair.before, pair.anomalous) for pair in pairs),
        "by_label": [(name, *_rejected(pairs, name)) for name in ("defect", "normal")],
    }
    return model_page(request, "comparison.html", caller, station, model_id, **content)


def _pairs(session: Session, job: Job) -> list[Pair]:
    """Return the inspections that are still there with their results, newest first."""
    results = {row[0]: row[1:] for row in job.result["rows"]}
    ids = list(results)
    found: list[Inspection] = []
    for start in range(0, len(ids), _CHUNK):
        query = select(Inspection).where(Inspection.id.in_(ids[start : start + _CHUNK]))
        found += session.scalars(query.order_by(Inspection.id.desc())).all()
    return [Pair(row, *results[row.id]) for row in found]


def _rejected(pairs: list[Pair], label: str) -> tuple[int, int, int]:
    """Return the number of labelled inspections, and of those rejected before and after."""
    own = [pair for pair in pairs if pair.inspection.label == label]
    return len(own), sum(pair.before for pair in own), sum(pair.anomalous for pair in own)
