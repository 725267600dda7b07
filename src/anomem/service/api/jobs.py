"""Jobs: fit, refit, calibrate, re-score."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from fastapi import APIRouter
from pydantic import Field
from sqlalchemy import select

from anomem.errors import ParameterError
from anomem.service.api.deps import Engineer, Id, QueryId, StationOf, Viewer
from anomem.service.api.schemas import JobOut, _In
from anomem.service.errors import MissingError
from anomem.service.store.models import get_version
from anomem.service.store.tables import Job

__all__ = ["router"]

router = APIRouter(prefix="/api/v1", tags=["jobs"])

_FILES = frozenset({"roi", "weights"})
"""Hyperparameters that name files on this machine."""


class FitIn(_In):
    """Fit to the model's images of good parts; `set` holds hyperparameters as "key=value"."""

    method: Annotated[str, Field(max_length=40)] = "anomem"
    set: Annotated[list[Annotated[str, Field(max_length=1000)]], Field(default_factory=list, max_length=100)]
    labels: bool = True


class CalibrateIn(_In):
    """Calibration on the unselected sample; `confirmed`: on parts labelled normal only."""

    confirmed: bool = True


class RescoreIn(_In):
    """Version that scores the latest `limit` inspections again."""

    version: Annotated[int, Field(ge=1, le=2**62)]
    limit: Annotated[int, Field(ge=1, le=20_000)] = 1000


@router.post("/models/{model_id}/fit", response_model=JobOut, status_code=202)
def fit(model_id: Id, body: FitIn, caller: Engineer, station: StationOf) -> Job:
    """Fit a new version from the model's images of good parts, and its labels."""
    _check(body)
    return station.jobs.submit(model_id, "fit", body.model_dump(), caller.name)


@router.post("/models/{model_id}/refit", response_model=JobOut, status_code=202)
def refit(model_id: Id, caller: Engineer, station: StationOf) -> Job:
    """Refit the second stage of the current version to the labelled defects: a candidate, in seconds."""
    return station.jobs.submit(model_id, "refit", {}, caller.name)


@router.post("/models/{model_id}/calibrate", response_model=JobOut, status_code=202)
def calibrate(model_id: Id, body: CalibrateIn, caller: Engineer, station: StationOf) -> Job:
    """Calibrate the current version on fresh normals, those drawn whatever their score: a candidate."""
    return station.jobs.submit(model_id, "calibrate", body.model_dump(), caller.name)


@router.post("/models/{model_id}/rescore", response_model=JobOut, status_code=202)
def rescore(model_id: Id, body: RescoreIn, caller: Engineer, station: StationOf) -> Job:
    """Score the latest inspections with another version; result: [id, score, p-value, anomalous, before]."""
    with station.database.reading() as session:
        if get_version(session, body.version).model_id != model_id:
            raise MissingError(f"version {body.version}: is not of this model; see the list of versions")
    return station.jobs.submit(model_id, "rescore", body.model_dump(), caller.name)


@router.get("/jobs", response_model=list[JobOut])
def list_jobs(
    _: Viewer,
    station: StationOf,
    model: QueryId = None,
    state: Literal["queued", "running", "done", "failed", "cancelled"] | None = None,
) -> Sequence[Job]:
    """List the latest hundred jobs, newest first."""
    query = select(Job).order_by(Job.id.desc()).limit(100)
    if model is not None:
        query = query.where(Job.model_id == model)
    if state is not None:
        query = query.where(Job.state == state)
    with station.database.reading() as session:
        return session.scalars(query).all()


@router.get("/jobs/{job_id}", response_model=JobOut)
def job_of(job_id: Id, _: Viewer, station: StationOf) -> Job:
    """Return a job."""
    with station.database.reading() as session:
        job = session.get(Job, job_id)
    if job is None:
        raise MissingError(f"job {job_id}: does not exist; see the list of jobs")
    return job


@router.post("/jobs/{job_id}/cancel", response_model=JobOut)
def cancel(job_id: Id, caller: Engineer, station: StationOf) -> Job:
    """Cancel a job that waits or runs."""
    return station.jobs.cancel(job_id, caller.name)


def _check(body: FitIn) -> None:
    """Check method and hyperparameters before the job is queued."""
    from anomem.detectors import get
    from anomem.params import parse_assignments

    kind = get(body.method)
    values = parse_assignments(kind, body.set)
    named = sorted(_FILES & values.keys())
    if named:
        raise ParameterError(f"{named[0]}: names a file on the station; fit with `anomem fit` and import the model")
    kind(**values).resolve()
