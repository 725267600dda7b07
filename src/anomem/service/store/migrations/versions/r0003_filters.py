"""Indices for filters by name, source, version and unreadable images."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the indices; PostgreSQL orders names by code points from here on."""
    if op.get_bind().dialect.name == "postgresql":
        op.alter_column("inspection", "name", type_=sa.String(400, collation="C"))
    op.create_index("ix_inspection_model_id_name", "inspection", ["model_id", "name"])
    op.create_index("ix_inspection_model_id_source_id", "inspection", ["model_id", "source", "id"])
    op.create_index("ix_inspection_model_id_version_id_id", "inspection", ["model_id", "version_id", "id"])
    unreadable = sa.text("error IS NOT NULL")
    op.create_index(
        "ix_inspection_unreadable",
        "inspection",
        ["model_id", "id"],
        sqlite_where=unreadable,
        postgresql_where=unreadable,
    )
