"""Server-rendered pages."""

from anomem.service.pages import (
    administration,
    batch,
    comparison,
    history,
    live,
    parts,
    review,
    start,
    threshold,
    upkeep,
    versions,
)

__all__ = ["PAGES"]

PAGES = tuple(
    module.router
    for module in (
        start,
        parts,
        live,
        review,
        versions,
        comparison,
        threshold,
        history,
        batch,
        upkeep,
        administration,
    )
)
"""Routers of all pages."""
