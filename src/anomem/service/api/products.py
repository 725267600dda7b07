"""Products and their models."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import APIRouter
from sqlalchemy import select

from anomem.service.api.deps import Engineer, Id, QueryId, StationOf, Viewer
from anomem.service.api.schemas import ModelChange, ModelIn, ModelOut, ProductIn, ProductOut
from anomem.service.store import models
from anomem.service.store.audit import record
from anomem.service.store.tables import Model, Product

__all__ = ["router"]

router = APIRouter(prefix="/api/v1", tags=["products"])


@router.get("/products", response_model=list[ProductOut])
def list_products(_: Viewer, station: StationOf) -> Sequence[Product]:
    """List all products."""
    with station.database.reading() as session:
        return session.scalars(select(Product).order_by(Product.name)).all()


@router.post("/products", response_model=ProductOut, status_code=201)
def add_product(body: ProductIn, caller: Engineer, station: StationOf) -> Product:
    """Add a product."""
    with station.database.writing() as session:
        product = models.add_product(session, body.name, body.note)
        record(session, caller.name, "product.add", f"product {product.name}")
        return product


@router.get("/models", response_model=list[ModelOut])
def list_models(_: Viewer, station: StationOf, product: QueryId = None) -> Sequence[Model]:
    """List all models, or those of a product."""
    query = select(Model).order_by(Model.name)
    with station.database.reading() as session:
        return session.scalars(query if product is None else query.where(Model.product_id == product)).all()


@router.post("/products/{product_id}/models", response_model=ModelOut, status_code=201)
def add_model(product_id: Id, body: ModelIn, caller: Engineer, station: StationOf) -> Model:
    """Add a model to a product; it scores once a version is fitted or imported, and promoted."""
    with station.database.writing() as session:
        model = models.add_model(session, product_id, body.name, body.alpha, body.settings.model_dump())
        record(session, caller.name, "model.add", f"model {model.name}", alpha=model.alpha)
        return model


@router.get("/models/{model_id}", response_model=ModelOut)
def get_model(model_id: Id, _: Viewer, station: StationOf) -> Model:
    """Return a model."""
    with station.database.reading() as session:
        return models.get_model(session, model_id)


@router.patch("/models/{model_id}", response_model=ModelOut)
def change_model(model_id: Id, body: ModelChange, caller: Engineer, station: StationOf) -> Model:
    """Change the settings of a model."""
    with station.database.writing() as session:
        model = models.get_model(session, model_id)
        model.settings = body.settings.model_dump()
        record(session, caller.name, "model.settings", f"model {model.name}", **model.settings)
        return model
