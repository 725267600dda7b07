"""Threshold: histogram of the scores, and the consequences of another promised rate."""

from __future__ import annotations

import math
from typing import Annotated

from fastapi import Query, Request
from fastapi.responses import HTMLResponse

from anomem.runtime.calibration import Calibration
from anomem.service.api.deps import Id, StationOf, Viewer
from anomem.service.pages.charts import HEIGHT, WIDTH, bars, place_on
from anomem.service.pages.places import model_page
from anomem.service.pages.rendering import is_fragment
from anomem.service.pages.routing import page_router
from anomem.service.preview import preview

__all__ = ["alpha_at", "position_of", "router"]

router = page_router()

STEPS = 200
"""Positions of the slider."""
_HIGHEST = 0.5


@router.get("/models/{model_id}/threshold")
def threshold(
    request: Request,
    model_id: Id,
    caller: Viewer,
    station: StationOf,
    position: Annotated[int | None, Query(ge=0, le=STEPS)] = None,
) -> HTMLResponse:
    """Show the histogram with the threshold at a position of the slider, by default at the present rate."""
    calibration = station.serving.batcher(model_id).served.model.calibration_
    chosen = calibration if position is None else calibration.with_alpha(alpha_at(position, calibration))
    with station.database.reading() as session:
        seen = preview(session, model_id, chosen)
    line = seen["threshold"]
    content = {
        "seen": seen,
        "changed": chosen.alpha != calibration.alpha,
        "bars": bars(seen["edges"], seen["counts"], line),
        "line": None if line is None or not seen["edges"] else place_on(seen["edges"], line),
        "thresholds": _thresholds(calibration) if position is None else [],
        "position": position_of(chosen.alpha, calibration) if position is None else position,
        "steps": STEPS,
        "width": WIDTH,
        "height": HEIGHT,
    }
    name = "parts/threshold.html" if is_fragment(request) else "threshold.html"
    return model_page(request, name, caller, station, model_id, **content)


def alpha_at(position: int, calibration: Calibration) -> float:
    """Return the rate at a position of the slider: from one half at the left to the smallest at the right."""
    least = calibration.alpha_min
    if position == STEPS:
        return least
    alpha = _HIGHEST * (least / _HIGHEST) ** (position / STEPS)
    return max(least, float(f"{alpha:.3g}"))


def position_of(alpha: float, calibration: Calibration) -> int:
    """Return the position of the slider nearest to a rate."""
    least = calibration.alpha_min
    if least >= _HIGHEST or alpha >= _HIGHEST:
        return 0
    return min(STEPS, round(STEPS * math.log(alpha / _HIGHEST) / math.log(least / _HIGHEST)))


def _thresholds(calibration: Calibration) -> list[float]:
    """Return the threshold at each position; empty where each stratum has its own."""
    if calibration.strata is not None:
        return []
    return [calibration.with_alpha(alpha_at(position, calibration)).threshold for position in range(STEPS + 1)]
