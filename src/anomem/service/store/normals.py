"""Images of good parts in the store, which fits of a model learn from."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from anomem.service.errors import MissingError
from anomem.service.images import Stored
from anomem.service.store.tables import Image, Normal

__all__ = ["add_normals", "exclude", "list_normals"]


def add_normals(
    session: Session,
    model_id: int,
    images: Sequence[tuple[Stored, str]],
    group: str | None = None,
    stratum: str | None = None,
) -> tuple[int, int]:
    """Add images with their names; return the number of new ones, and of those that were there already."""
    facts = {"group": group, "stratum": stratum}
    hashes = {image.sha256 for image, _ in images}
    known = set(session.scalars(select(Image.sha256).where(Image.sha256.in_(hashes))))
    there = set(
        session.scalars(select(Normal.image_sha256).where(Normal.model_id == model_id, Normal.image_sha256.in_(hashes)))
    )
    added = 0
    for image, name in images:
        if image.sha256 not in known:
            session.add(Image(sha256=image.sha256, size=image.size, media=image.media))
            known.add(image.sha256)
            session.flush()
        if image.sha256 not in there:
            session.add(Normal(model_id=model_id, image_sha256=image.sha256, name=name[:400], **facts))
            there.add(image.sha256)
            added += 1
    session.flush()
    return added, len(images) - added


def list_normals(session: Session, model_id: int, *, excluded: bool = False) -> list[Normal]:
    """Return the normals of a model, oldest first; excluded ones only if wanted."""
    query = select(Normal).where(Normal.model_id == model_id).order_by(Normal.id)
    return list(session.scalars(query if excluded else query.where(~Normal.excluded)))


def exclude(session: Session, normal_id: int, excluded: bool) -> Normal:
    """Leave a normal out of the next fits, or take it in again."""
    normal = session.get(Normal, normal_id)
    if normal is None:
        raise MissingError(f"normal {normal_id}: does not exist; see the list of normals")
    normal.excluded = excluded
    return normal
