"""Versions of a model: refit from labels, judge the candidate, promote, roll back."""

from __future__ import annotations

from collections import Counter

from fastapi import Request
from fastapi.responses import HTMLResponse
from sqlalchemy import select

from anomem.service.api.deps import Id, StationOf, Viewer
from anomem.service.pages.charts import HEIGHT, WIDTH, curve
from anomem.service.pages.jobs_shown import latest_job
from anomem.service.pages.places import model_page
from anomem.service.pages.rendering import is_fragment
from anomem.service.pages.routing import page_router
from anomem.service.store.labels import latest_labels
from anomem.service.store.models import get_model
from anomem.service.store.tables import Version

__all__ = ["router"]

router = page_router()


@router.get("/models/{model_id}/versions")
def versions(request: Request, model_id: Id, caller: Viewer, station: StationOf) -> HTMLResponse:
    """Show labels, the candidate and all versions."""
    with station.database.reading() as session:
        get_model(session, model_id)
        query = select(Version).where(Version.model_id == model_id).order_by(Version.number.desc())
        rows = list(session.scalars(query))
        labels = Counter(row.verdict for row in latest_labels(session, model_id, ("normal", "defect", "unsure")))
        job = latest_job(session, model_id)
    judged = [row for row in reversed(rows) if row.figures.get("cross_validated")]
    curves = {name: curve([row.figures["cross_validated"][name] for row in judged]) for name in ("detection", "auroc")}
    name = "parts/versions.html" if is_fragment(request) else "versions.html"
    content = {"rows": rows, "labels": labels, "job": job, "judged": judged, "curves": curves}
    return model_page(request, name, caller, station, model_id, **content, width=WIDTH, height=HEIGHT)
