"""Labels: judgements of people on inspections."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Query
from sqlalchemy import select

from anomem.service.api.deps import Id, Operator, StationOf, Viewer
from anomem.service.api.schemas import InspectionOut, LabelIn, LabelOut
from anomem.service.masks import keep_mask
from anomem.service.queue import review_queue
from anomem.service.store.inspections import get_inspection
from anomem.service.store.labels import Judgement, add_label, latest_labels
from anomem.service.store.models import get_model
from anomem.service.store.tables import Inspection, Label

__all__ = ["router"]

router = APIRouter(prefix="/api/v1", tags=["labels"])


@router.post("/inspections/{inspection_id}/labels", response_model=LabelOut, status_code=201)
def label(inspection_id: Id, body: LabelIn, caller: Operator, station: StationOf) -> Label:
    """Label an inspection; `verdict` null takes the last label back. All are kept; the latest counts."""
    with station.database.reading() as session:
        sha256 = get_inspection(session, inspection_id).image_sha256
    mask = keep_mask(station.images, sha256, body.mask_png, body.polygons, station.settings.max_pixels)
    judgement = Judgement(body.verdict, body.type, mask, body.comment)
    with station.database.writing() as session:
        found = add_label(session, inspection_id, judgement, caller.name)
    facts = {"inspection": inspection_id, "model": found.model_id, "verdict": found.verdict, "author": caller.name}
    station.events.publish("label", facts)
    return found


@router.get("/inspections/{inspection_id}/labels", response_model=list[LabelOut])
def labels_of(inspection_id: Id, _: Viewer, station: StationOf) -> Sequence[Label]:
    """List the labels of an inspection's image by its model, newest first."""
    with station.database.reading() as session:
        inspection = get_inspection(session, inspection_id)
        same = (Label.model_id == inspection.model_id, Label.image_sha256 == inspection.image_sha256)
        return session.scalars(select(Label).where(*same).order_by(Label.id.desc()).limit(500)).all()


@router.get("/models/{model_id}/labels", response_model=list[LabelOut])
def labels_of_model(model_id: Id, _: Viewer, station: StationOf) -> Sequence[Label]:
    """List the label that counts of each labelled image, oldest first."""
    with station.database.reading() as session:
        get_model(session, model_id)
        return latest_labels(session, model_id, ("normal", "defect", "unsure"))


@router.get("/models/{model_id}/queue", response_model=list[InspectionOut])
def queue(
    model_id: Id, _: Viewer, station: StationOf, limit: Annotated[int, Query(ge=1, le=200)] = 20
) -> Sequence[Inspection]:
    """List inspections to review, those first whose label would teach most."""
    with station.database.reading() as session:
        return review_queue(session, get_model(session, model_id), limit)
