"""Bodies of requests and answers."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator

from anomem.service.access.passwords import LONGEST
from anomem.service.api.text import checked

__all__ = [
    "Alpha",
    "AuditOut",
    "InspectionOut",
    "InspectionPage",
    "JobOut",
    "LabelIn",
    "LabelOut",
    "ModelChange",
    "ModelIn",
    "ModelOut",
    "ModelSettings",
    "ProductIn",
    "ProductOut",
    "VersionOut",
]

Name = Annotated[str, Field(min_length=1, max_length=120)]
Alpha = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]
Password = Annotated[str, StringConstraints(strip_whitespace=False, max_length=LONGEST)]
Verdict = Literal["normal", "defect", "unsure"]


class _In(BaseModel):
    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True, allow_inf_nan=False)
    _checked = field_validator("*")(checked)


class _Out(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class ProductIn(_In):
    """New product."""

    name: Name
    note: Annotated[str, Field(max_length=2000)] = ""


class ProductOut(_Out):
    """Product."""

    id: int
    name: str
    note: str
    created: datetime


class ModelSettings(_In):
    """Settings of a model.

    `promote`: "person", or "auto" for candidates that are better; `sample_every`: every m-th part is drawn for
    calibration; `export`: format that new versions are exported to for scoring.
    """

    promote: Literal["person", "auto"] = "person"
    sample_every: Annotated[int, Field(ge=1, le=100_000)] = 20
    export: Literal["onnx", "openvino"] | None = None


class ModelIn(_In):
    """New model of a product."""

    name: Name
    alpha: Alpha = 0.01
    settings: ModelSettings = ModelSettings()


class ModelChange(_In):
    """Changed settings of a model."""

    settings: ModelSettings


class ModelOut(_Out):
    """Model."""

    id: int
    product_id: int
    name: str
    alpha: float
    current_id: int | None
    counted: int
    settings: dict[str, Any]
    created: datetime


class VersionOut(_Out):
    """Version of a model; `figures` holds counts, calibration and cross-validated figures."""

    id: int
    model_id: int
    number: int
    state: str
    kind: str
    parent_id: int | None
    previous_id: int | None
    job_id: int | None
    files: dict[str, Any]
    figures: dict[str, Any]
    author: str
    created: datetime
    promoted: datetime | None


class InspectionOut(_Out):
    """Inspection."""

    id: int
    model_id: int
    version_id: int
    image_sha256: str
    name: str
    source: str
    score: float | None
    p_value: float | None
    anomalous: bool
    alpha: float
    stratum: str | None
    group: str | None
    sampled: bool
    label: str | None
    error: str | None
    created: datetime


class InspectionPage(_Out):
    """Page of the history; `before` is the id to ask the next page with, None at the end."""

    items: list[InspectionOut]
    before: int | None


class LabelIn(_In):
    """Judgement; `verdict` None takes the last one back. `mask` is a PNG, base64, or polygons in image pixels."""

    verdict: Verdict | None
    type: Annotated[str, Field(max_length=120)] | None = None
    comment: Annotated[str, Field(max_length=2000)] = ""
    mask_png: Annotated[str, Field(max_length=8 << 20)] | None = None
    polygons: Annotated[list[Annotated[list[tuple[float, float]], Field(max_length=2000)]], Field(max_length=200)] = []


class LabelOut(_Out):
    """Label."""

    id: int
    model_id: int
    inspection_id: int
    verdict: str | None
    type: str | None
    mask_sha256: str | None
    comment: str
    author: str
    created: datetime


class JobOut(_Out):
    """Job; `progress` is {stage, step, total}."""

    id: int
    model_id: int
    kind: str
    state: str
    params: dict[str, Any]
    progress: dict[str, Any]
    result: dict[str, Any]
    error: str | None
    author: str
    created: datetime
    started: datetime | None
    finished: datetime | None


class AuditOut(_Out):
    """Entry of the audit."""

    id: int
    author: str
    action: str
    subject: str
    facts: dict[str, Any]
    created: datetime
