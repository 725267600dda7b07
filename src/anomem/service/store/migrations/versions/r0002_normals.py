"""Images of good parts that fits learn from."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from anomem.service.store.tables import Key, Moment

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table of normal images."""
    op.create_table(
        "normal",
        sa.Column("id", Key, nullable=False),
        sa.Column("model_id", Key, nullable=False),
        sa.Column("image_sha256", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=400), nullable=False),
        sa.Column("group", sa.String(length=120), nullable=True),
        sa.Column("excluded", sa.Boolean(), nullable=False),
        sa.Column("created", Moment(), nullable=False),
        sa.ForeignKeyConstraint(["image_sha256"], ["image.sha256"], name="fk_normal_image_sha256_image"),
        sa.ForeignKeyConstraint(["model_id"], ["model.id"], name="fk_normal_model_id_model"),
        sa.PrimaryKeyConstraint("id", name="pk_normal"),
        sa.UniqueConstraint("model_id", "image_sha256", name="uq_normal_model_id_image_sha256"),
    )
    op.create_index("ix_normal_image_sha256", "normal", ["image_sha256"])
