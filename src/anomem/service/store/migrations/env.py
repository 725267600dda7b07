"""Alembic environment: runs on the connection that `anomem.service.store.migrating` passes in."""

from __future__ import annotations

from alembic import context

from anomem.service.store.tables import Base


def run() -> None:
    """Run the revisions asked for."""
    context.configure(
        connection=context.config.attributes["connection"], target_metadata=Base.metadata, render_as_batch=True
    )
    with context.begin_transaction():
        context.run_migrations()


if hasattr(context, "config"):  # not where tests import every module
    run()
