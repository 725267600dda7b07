"""Threshold, promised false-alarm rate and suspects of a model, as lines and as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from anomem.cli.output import write_table
from anomem.cli.session import Session
from anomem.runtime.neutral import printable
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
    """Return threshold and false-alarm rate as lines of text, per stratum where there are strata."""
    calibration = detector.calibration_
    if calibration.strata is None:
        return _promise(calibration)
    least = f"smallest attainable alpha in all strata {calibration.alpha_min:.3g}"
    each = [line for name, part in calibration.parts.items() for line in (f"stratum {name}:", *_promise(part))]
    return [f"{len(calibration.parts):,} strata, each with a calibration of its own; {least}", *each]


def _promise(calibration: Calibration) -> list[str]:
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
    if calibration.blended:
        like = f"like the {calibration.blended:,} fresh ones"
        return f"about {mean} of normal images {like} are called anomalous, at most {_proven(calibration)} proven"
    if calibration.kind == "split":
        return f"on average at most {mean} of normal images like these are called anomalous"
    if calibration.bound is None:
        return f"about {mean} of normal images like these are called anomalous, measured and not proven"
    return f"about {mean} of normal images like these are called anomalous, at most {rate(calibration.bound)} proven"


def _proven(calibration: Calibration) -> str:
    return rate(calibration.bound or 1.0)


def calibration_facts(detector: Model) -> dict[str, Any]:
    """Return kind, number of folds, proven bound and number of blended fresh normals of a calibration."""
    calibration = detector.calibration_
    facts = {"kind": calibration.kind, "folds": calibration.folds, "bound": calibration.bound}
    return {**facts, "blended": calibration.blended}


def strata_rule(detector: Model) -> str | None:
    """Return the rule that names the strata of a model; None without strata."""
    strata = detector.calibration_.strata
    return None if strata is None else strata.by


def threshold_facts(calibration: Calibration) -> dict[str, Any]:
    """Return `threshold`, `alpha`, and `strata` if there are any, of the JSON object; threshold is null then."""
    if calibration.strata is None:
        return {"threshold": calibration.threshold, "alpha": calibration.alpha}
    strata = {
        name: {
            "n": part.n,
            "n_groups": part.n_groups,
            "threshold": part.threshold,
            "alpha_min": part.alpha_min,
            "rate_limit_95": part.rate_limit_95,
        }
        for name, part in calibration.parts.items()
    }
    return {"threshold": None, "alpha": calibration.alpha, "strata": strata}


def above_threshold(calibration: Calibration) -> str:
    """Return the thresholds in words: "score above 1.2", or of each stratum."""
    if calibration.strata is None:
        return f"score above {number(calibration.threshold)}"
    return "score above " + ", ".join(
        f"{number(part.threshold)} in {printable(name)}" for name, part in calibration.parts.items()
    )


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
