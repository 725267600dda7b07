"""Tables of the station."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, DateTime, ForeignKey, Index, Integer, MetaData, String, UniqueConstraint, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

__all__ = [
    "Audit",
    "Base",
    "Drift",
    "Image",
    "Inspection",
    "Job",
    "Label",
    "Model",
    "Normal",
    "Outbox",
    "Product",
    "Setting",
    "Sink",
    "Token",
    "User",
    "Version",
    "Watch",
    "now",
]

Key = BigInteger().with_variant(Integer, "sqlite")
"""Primary keys: SQLite numbers rows by itself for INTEGER only."""

Bytewise = String(400).with_variant(String(400, collation="C"), "postgresql")
"""Text in the order of its code points, so that the index answers for the start of a text."""

_UNREADABLE: dict[str, Any] = {f"{dialect}_where": text("error IS NOT NULL") for dialect in ("sqlite", "postgresql")}

NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


def now() -> datetime:
    """Return the current time, UTC."""
    return datetime.now(UTC)


class Moment(TypeDecorator[datetime]):
    """Point in time, UTC; SQLite keeps no time zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Any) -> datetime | None:
        """Convert to UTC."""
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Any) -> datetime | None:
        """Add the time zone where the database has dropped it."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    """Base of all tables."""

    metadata = MetaData(naming_convention=NAMES)
    type_annotation_map = {datetime: Moment, dict[str, Any]: JSON, list[Any]: JSON}  # noqa: RUF012 - as SQLAlchemy reads it


class Product(Base):
    """Kind of part; one or several models inspect it."""

    __tablename__ = "product"
    id: Mapped[int] = mapped_column(Key, primary_key=True)
    name: Mapped[str] = mapped_column(String(120), unique=True)
    note: Mapped[str] = mapped_column(String(2000), default="")
    created: Mapped[datetime] = mapped_column(default=now)


class Model(Base):
    """Model of a product: settings and the number of inspections; its versions hold the files.

    `settings` keys: `promote` ("person" or "auto"), `sample_every` (m: every m-th part is drawn for calibration),
    `export` (null, "onnx" or "openvino": format that a new version is exported to).
    """

    __tablename__ = "model"
    id: Mapped[int] = mapped_column(Key, primary_key=True)
    product_id: Mapped[int] = mapped_column(ForeignKey("product.id"), index=True)
    name: Mapped[str] = mapped_column(String(120), unique=True)
    alpha: Mapped[float] = mapped_column(default=0.01)
    current_id: Mapped[int | None] = mapped_column(Key)
    counted: Mapped[int] = mapped_column(Key, default=0)
    settings: Mapped[dict[str, Any]] = mapped_column(default=dict)
    created: Mapped[datetime] = mapped_column(default=now)


class Version(Base):
    """Fitted model. States: candidate, current, retired; kinds: fit, labels, calibration, import.

    `folder` is relative to the station's; `files` names what is in it: detector, exported.
    """

    __tablename__ = "version"
    __table_args__ = (UniqueConstraint("model_id", "number"),)
    id: Mapped[int] = mapped_column(Key, primary_key=True)
    model_id: Mapped[int] = mapped_column(ForeignKey("model.id"))
    number: Mapped[int]
    state: Mapped[str] = mapped_column(String(12), default="candidate")
    kind: Mapped[str] = mapped_column(String(12))
    parent_id: Mapped[int | None] = mapped_column(Key)
    previous_id: Mapped[int | None] = mapped_column(Key)
    job_id: Mapped[int | None] = mapped_column(Key, unique=True)
    folder: Mapped[str] = mapped_column(String(200))
    files: Mapped[dict[str, Any]] = mapped_column(default=dict)
    figures: Mapped[dict[str, Any]] = mapped_column(default=dict)
    author: Mapped[str] = mapped_column(String(120), default="")
    created: Mapped[datetime] = mapped_column(default=now)
    promoted: Mapped[datetime | None]


class Image(Base):
    """Image file, kept once per content; `deleted` is set when retention has removed the file."""

    __tablename__ = "image"
    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    size: Mapped[int] = mapped_column(Key)
    media: Mapped[str] = mapped_column(String(40))
    created: Mapped[datetime] = mapped_column(default=now, index=True)
    deleted: Mapped[datetime | None]


class Inspection(Base):
    """Scored part. `key` makes a delivery count once; `label` repeats the latest label, for the indices."""

    __tablename__ = "inspection"
    __table_args__ = (
        UniqueConstraint("model_id", "key"),
        Index("ix_inspection_model_id_id", "model_id", "id"),
        Index("ix_inspection_model_id_anomalous_id", "model_id", "anomalous", "id"),
        Index("ix_inspection_model_id_label_id", "model_id", "label", "id"),
        Index("ix_inspection_model_id_sampled_id", "model_id", "sampled", "id"),
        Index("ix_inspection_model_id_stratum_id", "model_id", "stratum", "id"),
        Index("ix_inspection_model_id_created", "model_id", "created"),
        Index("ix_inspection_model_id_name", "model_id", "name"),
        Index("ix_inspection_model_id_source_id", "model_id", "source", "id"),
        Index("ix_inspection_model_id_version_id_id", "model_id", "version_id", "id"),
        Index("ix_inspection_unreadable", "model_id", "id", **_UNREADABLE),
    )
    id: Mapped[int] = mapped_column(Key, primary_key=True)
    model_id: Mapped[int] = mapped_column(ForeignKey("model.id"))
    version_id: Mapped[int] = mapped_column(ForeignKey("version.id"))
    image_sha256: Mapped[str] = mapped_column(ForeignKey("image.sha256"), index=True)
    key: Mapped[str | None] = mapped_column(String(400))
    name: Mapped[str] = mapped_column(Bytewise)
    source: Mapped[str] = mapped_column(String(40))
    score: Mapped[float | None]
    p_value: Mapped[float | None]
    anomalous: Mapped[bool]
    alpha: Mapped[float]
    stratum: Mapped[str | None] = mapped_column(String(120))
    group: Mapped[str | None] = mapped_column(String(120))
    sampled: Mapped[bool] = mapped_column(default=False)
    label: Mapped[str | None] = mapped_column(String(8))
    error: Mapped[str | None] = mapped_column(String(500))
    created: Mapped[datetime] = mapped_column(default=now)


class Normal(Base):
    """Image of a good part that fits of a model learn from, unless it is excluded."""

    __tablename__ = "normal"
    __table_args__ = (UniqueConstraint("model_id", "image_sha256"),)
    id: Mapped[int] = mapped_column(Key, primary_key=True)
    model_id: Mapped[int] = mapped_column(ForeignKey("model.id"))
    image_sha256: Mapped[str] = mapped_column(ForeignKey("image.sha256"), index=True)
    name: Mapped[str] = mapped_column(String(400))
    group: Mapped[str | None] = mapped_column(String(120))
    stratum: Mapped[str | None] = mapped_column(String(120))
    excluded: Mapped[bool] = mapped_column(default=False)
    created: Mapped[datetime] = mapped_column(default=now)


class Label(Base):
    """Judgement of a person on an image; rows are only added, and the latest counts."""

    __tablename__ = "label"
    __table_args__ = (Index("ix_label_model_id_id", "model_id", "id"),)
    id: Mapped[int] = mapped_column(Key, primary_key=True)
    model_id: Mapped[int] = mapped_column(ForeignKey("model.id"))
    inspection_id: Mapped[int] = mapped_column(ForeignKey("inspection.id"), index=True)
    image_sha256: Mapped[str] = mapped_column(ForeignKey("image.sha256"), index=True)
    verdict: Mapped[str | None] = mapped_column(String(8))
    type: Mapped[str | None] = mapped_column(String(120))
    mask_sha256: Mapped[str | None] = mapped_column(String(64))
    comment: Mapped[str] = mapped_column(String(2000), default="")
    author: Mapped[str] = mapped_column(String(120))
    created: Mapped[datetime] = mapped_column(default=now)


class Job(Base):
    """Background job. States: queued, running, done, failed, cancelled."""

    __tablename__ = "job"
    id: Mapped[int] = mapped_column(Key, primary_key=True)
    model_id: Mapped[int] = mapped_column(ForeignKey("model.id"), index=True)
    kind: Mapped[str] = mapped_column(String(12))
    state: Mapped[str] = mapped_column(String(12), default="queued", index=True)
    params: Mapped[dict[str, Any]] = mapped_column(default=dict)
    progress: Mapped[dict[str, Any]] = mapped_column(default=dict)
    result: Mapped[dict[str, Any]] = mapped_column(default=dict)
    error: Mapped[str | None] = mapped_column(String(2000))
    author: Mapped[str] = mapped_column(String(120), default="")
    created: Mapped[datetime] = mapped_column(default=now)
    started: Mapped[datetime | None]
    finished: Mapped[datetime | None]


class User(Base):
    """Person with a password; `epoch` is raised to end all sessions."""

    __tablename__ = "user"
    id: Mapped[int] = mapped_column(Key, primary_key=True)
    name: Mapped[str] = mapped_column(String(120), unique=True)
    role: Mapped[str] = mapped_column(String(12))
    password: Mapped[str] = mapped_column(String(300))
    active: Mapped[bool] = mapped_column(default=True)
    epoch: Mapped[int] = mapped_column(default=0)
    created: Mapped[datetime] = mapped_column(default=now)


class Token(Base):
    """API token; only its hash is kept."""

    __tablename__ = "token"
    id: Mapped[int] = mapped_column(Key, primary_key=True)
    name: Mapped[str] = mapped_column(String(120))
    role: Mapped[str] = mapped_column(String(12))
    sha256: Mapped[str] = mapped_column(String(64), unique=True)
    author: Mapped[str] = mapped_column(String(120))
    created: Mapped[datetime] = mapped_column(default=now)
    expires: Mapped[datetime | None]
    revoked: Mapped[datetime | None]


class Audit(Base):
    """Action of a person: labels, alpha changes, promotions, logins; rows are only added."""

    __tablename__ = "audit"
    id: Mapped[int] = mapped_column(Key, primary_key=True)
    author: Mapped[str] = mapped_column(String(120), index=True)
    action: Mapped[str] = mapped_column(String(40), index=True)
    subject: Mapped[str] = mapped_column(String(200))
    facts: Mapped[dict[str, Any]] = mapped_column(default=dict)
    created: Mapped[datetime] = mapped_column(default=now)


class Sink(Base):
    """Receiver of results: webhook, folder or mqtt."""

    __tablename__ = "sink"
    id: Mapped[int] = mapped_column(Key, primary_key=True)
    product_id: Mapped[int] = mapped_column(ForeignKey("product.id"), index=True)
    kind: Mapped[str] = mapped_column(String(12))
    target: Mapped[str] = mapped_column(String(1000))
    options: Mapped[dict[str, Any]] = mapped_column(default=dict)
    active: Mapped[bool] = mapped_column(default=True)
    error: Mapped[str | None] = mapped_column(String(500))
    created: Mapped[datetime] = mapped_column(default=now)


class Outbox(Base):
    """Result that a sink has not received yet; deleted once it has."""

    __tablename__ = "outbox"
    __table_args__ = (Index("ix_outbox_sink_id_id", "sink_id", "id"),)
    id: Mapped[int] = mapped_column(Key, primary_key=True)
    sink_id: Mapped[int] = mapped_column(ForeignKey("sink.id"))
    payload: Mapped[dict[str, Any]]
    attempts: Mapped[int] = mapped_column(default=0)
    due: Mapped[datetime] = mapped_column(default=now)


class Watch(Base):
    """Watched folder; each of its files is inspected once, by the key of its inspection."""

    __tablename__ = "watch"
    id: Mapped[int] = mapped_column(Key, primary_key=True)
    model_id: Mapped[int] = mapped_column(ForeignKey("model.id"))
    folder: Mapped[str] = mapped_column(String(1000))
    stratum: Mapped[str | None] = mapped_column(String(120))
    active: Mapped[bool] = mapped_column(default=True)
    error: Mapped[str | None] = mapped_column(String(500))
    created: Mapped[datetime] = mapped_column(default=now)


class Drift(Base):
    """Drift alarm state of one version and stratum."""

    __tablename__ = "drift"
    __table_args__ = (UniqueConstraint("version_id", "stratum"),)
    id: Mapped[int] = mapped_column(Key, primary_key=True)
    model_id: Mapped[int] = mapped_column(ForeignKey("model.id"), index=True)
    version_id: Mapped[int] = mapped_column(ForeignKey("version.id"))
    stratum: Mapped[str] = mapped_column(String(120), default="")
    n: Mapped[int] = mapped_column(default=0)
    log10_evidence: Mapped[float] = mapped_column(default=0.0)
    alarms: Mapped[int] = mapped_column(default=0)
    alarmed: Mapped[datetime | None]
    alarm_inspection_id: Mapped[int | None] = mapped_column(Key)


class Setting(Base):
    """Setting of the whole station."""

    __tablename__ = "setting"
    name: Mapped[str] = mapped_column(String(60), primary_key=True)
    value: Mapped[dict[str, Any]]
