"""Tables of the first version."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from anomem.service.store.tables import Key, Moment

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create all tables."""
    for create in (
        _audit,
        _image,
        _product,
        _setting,
        _token,
        _user,
        _model,
        _sink,
        _job,
        _outbox,
        _version,
        _watch,
        _drift,
        _inspection,
        _label,
    ):
        create()


def _audit() -> None:
    op.create_table(
        "audit",
        sa.Column("id", Key, nullable=False),
        sa.Column("author", sa.String(length=120), nullable=False),
        sa.Column("action", sa.String(length=40), nullable=False),
        sa.Column("subject", sa.String(length=200), nullable=False),
        sa.Column("facts", sa.JSON(), nullable=False),
        sa.Column("created", Moment(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audit"),
    )
    op.create_index("ix_audit_action", "audit", ["action"])
    op.create_index("ix_audit_author", "audit", ["author"])


def _image() -> None:
    op.create_table(
        "image",
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("size", Key, nullable=False),
        sa.Column("media", sa.String(length=40), nullable=False),
        sa.Column("created", Moment(), nullable=False),
        sa.Column("deleted", Moment(), nullable=True),
        sa.PrimaryKeyConstraint("sha256", name="pk_image"),
    )
    op.create_index("ix_image_created", "image", ["created"])


def _product() -> None:
    op.create_table(
        "product",
        sa.Column("id", Key, nullable=False),
        sa.Column("name", sa.String(length=120), nullable=False),
        sa.Column("note", sa.String(length=2000), nullable=False),
        sa.Column("created", Moment(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_product"),
        sa.UniqueConstraint("name", name="uq_product_name"),
    )


def _setting() -> None:
    op.create_table(
        "setting",
        sa.Column("name", sa.String(length=60), nullable=False),
        sa.Column("value", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_setting"),
    )


def _token() -> None:
    op.create_table(
        "token",
        sa.Column("id", Key, nullable=False),
        sa.Column("name", sa.String(length=120), nullable=False),
        sa.Column("role", sa.String(length=12), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("author", sa.String(length=120), nullable=False),
        sa.Column("created", Moment(), nullable=False),
        sa.Column("expires", Moment(), nullable=True),
        sa.Column("revoked", Moment(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_token"),
        sa.UniqueConstraint("sha256", name="uq_token_sha256"),
    )


def _user() -> None:
    op.create_table(
        "user",
        sa.Column("id", Key, nullable=False),
        sa.Column("name", sa.String(length=120), nullable=False),
        sa.Column("role", sa.String(length=12), nullable=False),
        sa.Column("password", sa.String(length=300), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("created", Moment(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_user"),
        sa.UniqueConstraint("name", name="uq_user_name"),
    )


def _model() -> None:
    op.create_table(
        "model",
        sa.Column("id", Key, nullable=False),
        sa.Column("product_id", Key, nullable=False),
        sa.Column("name", sa.String(length=120), nullable=False),
        sa.Column("alpha", sa.Double(), nullable=False),
        sa.Column("current_id", Key, nullable=True),
        sa.Column("counted", Key, nullable=False),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.Column("created", Moment(), nullable=False),
        sa.ForeignKeyConstraint(["product_id"], ["product.id"], name="fk_model_product_id_product"),
        sa.PrimaryKeyConstraint("id", name="pk_model"),
        sa.UniqueConstraint("name", name="uq_model_name"),
    )
    op.create_index("ix_model_product_id", "model", ["product_id"])


def _sink() -> None:
    op.create_table(
        "sink",
        sa.Column("id", Key, nullable=False),
        sa.Column("product_id", Key, nullable=False),
        sa.Column("kind", sa.String(length=12), nullable=False),
        sa.Column("target", sa.String(length=1000), nullable=False),
        sa.Column("options", sa.JSON(), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("error", sa.String(length=500), nullable=True),
        sa.Column("created", Moment(), nullable=False),
        sa.ForeignKeyConstraint(["product_id"], ["product.id"], name="fk_sink_product_id_product"),
        sa.PrimaryKeyConstraint("id", name="pk_sink"),
    )
    op.create_index("ix_sink_product_id", "sink", ["product_id"])


def _job() -> None:
    op.create_table(
        "job",
        sa.Column("id", Key, nullable=False),
        sa.Column("model_id", Key, nullable=False),
        sa.Column("kind", sa.String(length=12), nullable=False),
        sa.Column("state", sa.String(length=12), nullable=False),
        sa.Column("params", sa.JSON(), nullable=False),
        sa.Column("progress", sa.JSON(), nullable=False),
        sa.Column("result", sa.JSON(), nullable=False),
        sa.Column("error", sa.String(length=2000), nullable=True),
        sa.Column("author", sa.String(length=120), nullable=False),
        sa.Column("created", Moment(), nullable=False),
        sa.Column("started", Moment(), nullable=True),
        sa.Column("finished", Moment(), nullable=True),
        sa.ForeignKeyConstraint(["model_id"], ["model.id"], name="fk_job_model_id_model"),
        sa.PrimaryKeyConstraint("id", name="pk_job"),
    )
    op.create_index("ix_job_model_id", "job", ["model_id"])
    op.create_index("ix_job_state", "job", ["state"])


def _outbox() -> None:
    op.create_table(
        "outbox",
        sa.Column("id", Key, nullable=False),
        sa.Column("sink_id", Key, nullable=False),
        sa.Column("payload", sa.JSON(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("due", Moment(), nullable=False),
        sa.ForeignKeyConstraint(["sink_id"], ["sink.id"], name="fk_outbox_sink_id_sink"),
        sa.PrimaryKeyConstraint("id", name="pk_outbox"),
    )
    op.create_index("ix_outbox_sink_id_id", "outbox", ["sink_id", "id"])


def _version() -> None:
    op.create_table(
        "version",
        sa.Column("id", Key, nullable=False),
        sa.Column("model_id", Key, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=12), nullable=False),
        sa.Column("kind", sa.String(length=12), nullable=False),
        sa.Column("parent_id", Key, nullable=True),
        sa.Column("previous_id", Key, nullable=True),
        sa.Column("job_id", Key, nullable=True),
        sa.Column("folder", sa.String(length=200), nullable=False),
        sa.Column("files", sa.JSON(), nullable=False),
        sa.Column("figures", sa.JSON(), nullable=False),
        sa.Column("author", sa.String(length=120), nullable=False),
        sa.Column("created", Moment(), nullable=False),
        sa.Column("promoted", Moment(), nullable=True),
        sa.ForeignKeyConstraint(["model_id"], ["model.id"], name="fk_version_model_id_model"),
        sa.PrimaryKeyConstraint("id", name="pk_version"),
        sa.UniqueConstraint("job_id", name="uq_version_job_id"),
        sa.UniqueConstraint("model_id", "number", name="uq_version_model_id_number"),
    )


def _watch() -> None:
    op.create_table(
        "watch",
        sa.Column("id", Key, nullable=False),
        sa.Column("model_id", Key, nullable=False),
        sa.Column("folder", sa.String(length=1000), nullable=False),
        sa.Column("stratum", sa.String(length=120), nullable=True),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("error", sa.String(length=500), nullable=True),
        sa.Column("created", Moment(), nullable=False),
        sa.ForeignKeyConstraint(["model_id"], ["model.id"], name="fk_watch_model_id_model"),
        sa.PrimaryKeyConstraint("id", name="pk_watch"),
    )


def _drift() -> None:
    op.create_table(
        "drift",
        sa.Column("id", Key, nullable=False),
        sa.Column("model_id", Key, nullable=False),
        sa.Column("version_id", Key, nullable=False),
        sa.Column("stratum", sa.String(length=120), nullable=False),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column("log10_evidence", sa.Double(), nullable=False),
        sa.Column("alarms", sa.Integer(), nullable=False),
        sa.Column("alarmed", Moment(), nullable=True),
        sa.Column("alarm_inspection_id", Key, nullable=True),
        sa.ForeignKeyConstraint(["model_id"], ["model.id"], name="fk_drift_model_id_model"),
        sa.ForeignKeyConstraint(["version_id"], ["version.id"], name="fk_drift_version_id_version"),
        sa.PrimaryKeyConstraint("id", name="pk_drift"),
        sa.UniqueConstraint("version_id", "stratum", name="uq_drift_version_id_stratum"),
    )
    op.create_index("ix_drift_model_id", "drift", ["model_id"])


def _inspection() -> None:
    op.create_table(
        "inspection",
        sa.Column("id", Key, nullable=False),
        sa.Column("model_id", Key, nullable=False),
        sa.Column("version_id", Key, nullable=False),
        sa.Column("image_sha256", sa.String(length=64), nullable=False),
        sa.Column("key", sa.String(length=400), nullable=True),
        sa.Column("name", sa.String(length=400), nullable=False),
        sa.Column("source", sa.String(length=40), nullable=False),
        sa.Column("score", sa.Double(), nullable=True),
        sa.Column("p_value", sa.Double(), nullable=True),
        sa.Column("anomalous", sa.Boolean(), nullable=False),
        sa.Column("alpha", sa.Double(), nullable=False),
        sa.Column("stratum", sa.String(length=120), nullable=True),
        sa.Column("group", sa.String(length=120), nullable=True),
        sa.Column("sampled", sa.Boolean(), nullable=False),
        sa.Column("label", sa.String(length=8), nullable=True),
        sa.Column("error", sa.String(length=500), nullable=True),
        sa.Column("created", Moment(), nullable=False),
        sa.ForeignKeyConstraint(["image_sha256"], ["image.sha256"], name="fk_inspection_image_sha256_image"),
        sa.ForeignKeyConstraint(["model_id"], ["model.id"], name="fk_inspection_model_id_model"),
        sa.ForeignKeyConstraint(["version_id"], ["version.id"], name="fk_inspection_version_id_version"),
        sa.PrimaryKeyConstraint("id", name="pk_inspection"),
        sa.UniqueConstraint("model_id", "key", name="uq_inspection_model_id_key"),
    )
    op.create_index("ix_inspection_image_sha256", "inspection", ["image_sha256"])
    op.create_index("ix_inspection_model_id_anomalous_id", "inspection", ["model_id", "anomalous", "id"])
    op.create_index("ix_inspection_model_id_created", "inspection", ["model_id", "created"])
    op.create_index("ix_inspection_model_id_id", "inspection", ["model_id", "id"])
    op.create_index("ix_inspection_model_id_label_id", "inspection", ["model_id", "label", "id"])
    op.create_index("ix_inspection_model_id_sampled_id", "inspection", ["model_id", "sampled", "id"])
    op.create_index("ix_inspection_model_id_stratum_id", "inspection", ["model_id", "stratum", "id"])


def _label() -> None:
    op.create_table(
        "label",
        sa.Column("id", Key, nullable=False),
        sa.Column("model_id", Key, nullable=False),
        sa.Column("inspection_id", Key, nullable=False),
        sa.Column("image_sha256", sa.String(length=64), nullable=False),
        sa.Column("verdict", sa.String(length=8), nullable=True),
        sa.Column("type", sa.String(length=120), nullable=True),
        sa.Column("mask_sha256", sa.String(length=64), nullable=True),
        sa.Column("comment", sa.String(length=2000), nullable=False),
        sa.Column("author", sa.String(length=120), nullable=False),
        sa.Column("created", Moment(), nullable=False),
        sa.ForeignKeyConstraint(["image_sha256"], ["image.sha256"], name="fk_label_image_sha256_image"),
        sa.ForeignKeyConstraint(["inspection_id"], ["inspection.id"], name="fk_label_inspection_id_inspection"),
        sa.ForeignKeyConstraint(["model_id"], ["model.id"], name="fk_label_model_id_model"),
        sa.PrimaryKeyConstraint("id", name="pk_label"),
    )
    op.create_index("ix_label_image_sha256", "label", ["image_sha256"])
    op.create_index("ix_label_inspection_id", "label", ["inspection_id"])
    op.create_index("ix_label_model_id_id", "label", ["model_id", "id"])
