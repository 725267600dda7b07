"""Labels in the store: rows are only added, and the latest of an image counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from anomem.service.store.audit import record
from anomem.service.store.inspections import get_inspection
from anomem.service.store.tables import Inspection, Label

__all__ = ["Judgement", "add_label", "latest_labels", "strata_of", "unselected"]

_CHUNK = 500


@dataclass(frozen=True)
class Judgement:
    """Label given by a person.

    Parameters
    ----------
    verdict : str or None
        "normal", "defect", "unsure"; None takes the last one back.
    type : str or None
        Type of defect.
    mask_sha256 : str or None
        Mask in the image store.
    comment : str
    """

    verdict: str | None
    type: str | None = None
    mask_sha256: str | None = None
    comment: str = ""


def add_label(session: Session, inspection_id: int, judgement: Judgement, author: str) -> Label:
    """Label the image of an inspection, for all inspections of it by the same model."""
    inspection = get_inspection(session, inspection_id)
    label = Label(
        model_id=inspection.model_id,
        inspection_id=inspection.id,
        image_sha256=inspection.image_sha256,
        verdict=judgement.verdict,
        type=judgement.type,
        mask_sha256=judgement.mask_sha256,
        comment=judgement.comment,
        author=author,
    )
    session.add(label)
    same = (Inspection.model_id == inspection.model_id, Inspection.image_sha256 == inspection.image_sha256)
    session.execute(update(Inspection).where(*same).values(label=judgement.verdict))
    session.flush()
    record(session, author, "label", f"inspection {inspection.id}", verdict=judgement.verdict, type=judgement.type)
    return label


def latest_labels(session: Session, model_id: int, verdicts: Sequence[str] = ("normal", "defect")) -> list[Label]:
    """Return the label that counts of each labelled image of a model, oldest first."""
    last = select(func.max(Label.id)).where(Label.model_id == model_id).group_by(Label.image_sha256)
    query = select(Label).where(Label.id.in_(last), Label.verdict.in_(verdicts)).order_by(Label.id)
    return list(session.scalars(query))


def strata_of(session: Session, inspection_ids: Sequence[int]) -> dict[int, str | None]:
    """Return the stratum of each inspection by id."""
    found: dict[int, str | None] = {}
    for start in range(0, len(inspection_ids), _CHUNK):
        query = select(Inspection.id, Inspection.stratum).where(
            Inspection.id.in_(inspection_ids[start : start + _CHUNK])
        )
        found |= {row.id: row.stratum for row in session.execute(query)}
    return found


def unselected(session: Session, model_id: int, limit: int) -> list[Inspection]:
    """Return the latest parts drawn whatever their score that are not labelled defect or unsure, newest first."""
    query = (
        select(Inspection)
        .where(Inspection.model_id == model_id, Inspection.sampled)
        .where(Inspection.label.is_(None) | (Inspection.label == "normal"))
        .order_by(Inspection.id.desc())
    )
    return list(session.scalars(query.limit(limit)))
