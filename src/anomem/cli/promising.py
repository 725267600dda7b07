"""Threshold, promised false-alarm rate and suspects of a model, as lines and as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from anomem.cli.output import write_table
from anomem.cli.session import Session
from anomem.runtime.suspects import EXPECTED
from anomem.runtime.text import count, number, rate

if TYPE_CHECKING:
    from anomem.detector import Detector
    from anomem.loading import Model
    from anomem.runtime.calibration import Calibration

_LISTED = 5
"""Number of suspects printed."""

SUSPECT_COLUMNS: dict[str, type] = {"path": str, "score": float, "p_value": float}
"""Columns of a table of suspects, which `fit --exclude` reads."""

_KINDS = {
    "cross": "each image by a model without its fold, new images by a model of all",
    "cross-exact": "each image by a model without its fold, new images by the models of all folds",
}


def grouped(calibration: Calibration) -> str:
    """Return the number of groups as the end of a sentence; empty without groups."""
    if calibration.groups is None:
        return ""
    return f" in {count(calibration.n_groups, 'group')} ({_smallest(calibration)})"


def _smallest(calibration: Calibration) -> str:
    return f"smallest attainable alpha {calibration.alpha_min:.3g}"


def promise(detector: Model) -> list[str]:
    """Return threshold and false-alarm rate as lines of text."""
    calibration = detector.calibration_
    limit = rate(calibration.rate_limit_95)
    images = "images" if calibration.groups is None else "groups"
    smallest = f" ({_smallest(calibration)})" if calibration.groups is None else ""
    proven = "" if calibration.kind == "split" else ", as if exchangeable"
    return [
        f"threshold {number(calibration.threshold)}: images with a higher score are called anomalous",
        f"alpha {calibration.alpha:.3g}: {_bound(calibration)}{smallest}",
        f"with these {calibration.n_groups:,} calibration {images} less than {limit}, with 95 % confidence{proven}",
        *([] if calibration.kind == "split" else [f"calibration {calibration.kind}: {_KINDS[calibration.kind]}"]),
    ]


def _bound(calibration: Calibration) -> str:
    mean = rate(calibration.alpha)
    if calibration.kind == "split":
        return f"on average at most {mean} of normal images like these are called anomalous"
    if calibration.bound is None:
        return f"about {mean} of normal images like these are called anomalous, measured and not proven"
    return f"about {mean} of normal images like these are called anomalous, at most {rate(calibration.bound)} proven"


def calibration_facts(detector: Model) -> dict[str, Any]:
    """Return kind, number of folds and proven bound of a calibration."""
    calibration = detector.calibration_
    return {"kind": calibration.kind, "folds": calibration.folds, "bound": calibration.bound}


def suspect_lines(detector: Detector) -> list[str]:
    """Return suspects as lines of text; none where there are none."""
    suspects = detector.suspects_
    if not suspects:
        return []
    head = (
        f"{count(len(suspects), 'suspect')} among the normal images (at most {EXPECTED} expected if all are normal); "
        "look at them, and leave defects out with --exclude:"
    )
    more = [f"  and {len(suspects) - _LISTED:,} more; --suspects FILE.csv lists all"] if len(suspects) > _LISTED else []
    return [head, *(f"  {s['path']}  score {number(s['score'])}" for s in suspects[:_LISTED]), *more]


def write_suspects(path: Path, detector: Detector, session: Session) -> None:
    """Write the suspects as a table with absolute paths."""
    rows = [{**s, "path": str(Path(s["path"]).absolute())} for s in detector.suspects_]
    write_table(path, rows, SUSPECT_COLUMNS, session)
