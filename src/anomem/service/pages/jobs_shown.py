"""Jobs that pages show."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from anomem.service.store.tables import Job

__all__ = ["latest_job"]


def latest_job(session: Session, model_id: int, kinds: Sequence[str] = ()) -> Job | None:
    """Return the newest job of a model, of all kinds or of some; None if there is none."""
    query = select(Job).where(Job.model_id == model_id).order_by(Job.id.desc()).limit(1)
    return session.scalar(query.where(Job.kind.in_(kinds)) if kinds else query)
