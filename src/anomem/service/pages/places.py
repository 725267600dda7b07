"""Place of a page: the model that it is about, and what its navigation shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from anomem.service.access.users import Caller
from anomem.service.pages.rendering import page
from anomem.service.station import Station
from anomem.service.store.models import get_model, get_product
from anomem.service.store.tables import Model, Product, Version

__all__ = ["Place", "model_page", "place_of"]


@dataclass(frozen=True)
class Place:
    """Model of a page.

    Parameters
    ----------
    model : Model
    product : Product
    current : Version or None
        Version that scores.
    candidates : int
        Versions newer than the current one that wait for a decision.
    models : sequence of Model
        All models, to change to.
    """

    model: Model
    product: Product
    current: Version | None
    candidates: int
    models: Sequence[Model]


def place_of(session: Session, model_id: int) -> Place:
    """Return the place of a model's pages; MissingError if there is none."""
    model = get_model(session, model_id)
    current = None if model.current_id is None else session.get(Version, model.current_id)
    newer = select(func.count()).where(Version.model_id == model_id, Version.state == "candidate")
    if current is not None:
        newer = newer.where(Version.number > current.number)
    models = session.scalars(select(Model).order_by(Model.name)).all()
    return Place(model, get_product(session, model.product_id), current, session.scalar(newer) or 0, models)


def model_page(
    request: Request, name: str, caller: Caller, station: Station, model_id: int, **content: Any
) -> HTMLResponse:
    """Return a page about a model."""
    with station.database.reading() as session:
        place = place_of(session, model_id)
    return page(request, name, caller, place=place, **content)
