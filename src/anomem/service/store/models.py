"""Products, models and versions in the store."""

from __future__ import annotations

import re
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from anomem.errors import InputError
from anomem.service.errors import ConflictError, MissingError
from anomem.service.store.tables import Model, Product, Version, now

__all__ = [
    "add_model",
    "add_product",
    "add_version",
    "current_version",
    "get_model",
    "get_product",
    "get_version",
    "make_current",
]

_NAME = re.compile(r"[\w.-]{1,120}")


def add_product(session: Session, name: str, note: str = "") -> Product:
    """Add a product; ConflictError if the name is taken."""
    _check_name("product", name)
    if session.scalar(select(Product.id).where(Product.name == name)) is not None:
        raise ConflictError(f"product {name}: exists; choose another name")
    product = Product(name=name, note=note)
    session.add(product)
    session.flush()
    return product


def add_model(session: Session, product_id: int, name: str, alpha: float, settings: dict[str, Any]) -> Model:
    """Add a model without a version; ConflictError if the name is taken in this station."""
    _check_name("model", name)
    product = get_product(session, product_id)
    if session.scalar(select(Model.id).where(Model.name == name)) is not None:
        raise ConflictError(f"model {name}: exists; choose another name")
    model = Model(product_id=product.id, name=name, alpha=alpha, settings=settings)
    session.add(model)
    session.flush()
    return model


def get_product(session: Session, product_id: int) -> Product:
    """Return a product; MissingError if there is none."""
    product = session.get(Product, product_id)
    if product is None:
        raise MissingError(f"product {product_id}: does not exist; see the list of products")
    return product


def get_model(session: Session, model_id: int) -> Model:
    """Return a model; MissingError if there is none."""
    model = session.get(Model, model_id)
    if model is None:
        raise MissingError(f"model {model_id}: does not exist; see the list of models")
    return model


def get_version(session: Session, version_id: int) -> Version:
    """Return a version; MissingError if there is none."""
    version = session.get(Version, version_id)
    if version is None:
        raise MissingError(f"version {version_id}: does not exist; see the list of versions")
    return version


def current_version(session: Session, model: Model) -> Version:
    """Return the version that scores; ConflictError if the model has none yet."""
    if model.current_id is None:
        raise ConflictError(f"model {model.name}: has no version yet; fit it, or import a model file")
    return get_version(session, model.current_id)


def add_version(session: Session, model: Model, kind: str, folder: str, **facts: Any) -> Version:
    """Add a candidate with the next number."""
    highest = session.scalar(select(func.max(Version.number)).where(Version.model_id == model.id))
    version = Version(model_id=model.id, number=(highest or 0) + 1, kind=kind, folder=folder, **facts)
    session.add(version)
    session.flush()
    return version


def make_current(session: Session, model: Model, version: Version, *, back: bool = False) -> None:
    """Make a version the one that scores; the former one is kept as retired.

    Parameters
    ----------
    back : bool
        Return to an earlier version, whose own predecessor stays the one that it had.
    """
    if model.current_id is not None and model.current_id != version.id:
        former = session.get_one(Version, model.current_id)
        former.state = "retired"
        if not back:
            version.previous_id = former.id
    version.state, version.promoted = "current", now()
    model.current_id = version.id


def _check_name(what: str, name: str) -> None:
    if not _NAME.fullmatch(name):
        raise InputError(f"{what}: the name must be 1 to 120 letters, digits, or . _ -; choose another")
