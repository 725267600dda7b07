"""Strata of the images that fits learn from: each camera, product or shift gets a calibration of its own."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column."""
    op.add_column("normal", sa.Column("stratum", sa.String(120), nullable=True))
