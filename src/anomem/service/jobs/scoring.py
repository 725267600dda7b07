"""Scoring inside a job."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from anomem.runtime.model import Model
from anomem.runtime.scored import Scored
from anomem.service.jobs.spec import ImageRow, Spec
from anomem.service.scoring.strata import strata_for
from anomem.types import Record

__all__ = ["scored"]


def scored(
    model: Model, rows: Sequence[ImageRow], spec: Spec, report: Callable[[Record], object], stage: str
) -> list[Scored]:
    """Score images with progress; none is no error."""
    found: list[Scored] = []
    if not rows:
        return found
    strata = strata_for(model, [row.stratum for row in rows])
    for result in model.score([row.path for row in rows], strata=strata, skip_bad=True, max_pixels=spec.max_pixels):
        found.append(result)
        report(Record(stage, len(found), len(rows)))
    return found
