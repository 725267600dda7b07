"""Execution of units: from a unit to its run line."""

from __future__ import annotations

import datetime
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from anomem.benchmark.environment import made_by, one_thread_count
from anomem.benchmark.fits import Fit, Seen, Settings
from anomem.benchmark.image_sets import BenchmarkSet
from anomem.benchmark.judging import Findings
from anomem.benchmark.protocols.registry import protocol_class
from anomem.benchmark.unit import FORMAT, Unit, images_digest, plain, scores_digest
from anomem.benchmark.workspace import Workspace
from anomem.detector import Detector
from anomem.errors import AnomemError
from anomem.nn import map_cache
from anomem.runtime.atomic import atomic_path
from anomem.types import FloatArray

__all__ = ["DEBUG", "Outcome", "attempts", "execute", "load_scores", "prepared"]

DEBUG = "ANOMEM_DEBUG"
"""Environment variable with which an unexpected error ends the run with its traceback."""

VOLATILE_FACTS = ("seconds", "images_per_second")
"""Time fields of a fit's history."""


@dataclass(frozen=True)
class Outcome:
    """Outcome of a unit: its run line, or the error in one line."""

    unit: Unit
    line: dict[str, object] | None
    error: str = ""


@contextmanager
def prepared(settings: Settings) -> Iterator[Workspace]:
    """Open a workspace with the threads and caches of `settings`."""
    with one_thread_count(settings.threads), map_cache.map_cache(settings.features, settings.features_mb):
        yield Workspace(settings)


def attempts(units: Sequence[Unit], work: Workspace) -> Iterator[Outcome]:
    """Execute units one by one; a failed unit yields its error and does not stop the others."""
    for unit in units:
        try:
            outcome = Outcome(unit, execute(unit, work))
        except AnomemError as error:
            outcome = Outcome(unit, None, str(error))
        except Exception as error:  # one failed unit must not end a run of hours
            if os.environ.get(DEBUG):
                raise
            outcome = Outcome(unit, None, f"unexpected {type(error).__name__}: {error} ({DEBUG}=1 shows where)")
        yield outcome


def execute(unit: Unit, work: Workspace) -> dict[str, Any]:
    """Execute a unit.

    Returns
    -------
    dict
        Its run line, plain values. All but ``measured`` is reproduced when the same software executes the unit again on
        the same kind of processor. ``docs/benchmarking.md`` describes the keys.

    Raises
    ------
    AnomemError
        The unit cannot be executed.
    """
    started, clock = datetime.datetime.now(datetime.UTC), time.perf_counter()
    cache = map_cache.active()
    looked_up = (0, 0) if cache is None else (cache.hits, cache.misses)
    findings = protocol_class(unit.task.protocol)().run(unit, work)
    measured = _measured(findings, time.perf_counter() - clock)
    measured["started"] = started.isoformat(timespec="seconds")
    if cache is not None:
        measured["maps_from_cache"] = {"hits": cache.hits - looked_up[0], "misses": cache.misses - looked_up[1]}
    if work.settings.scores is not None and len(findings.scores):
        _keep_scores(work.settings.scores, unit, findings)
    data = work.open(unit.task.data, unit.limit)
    made: dict[str, Any] = plain({**_said(unit, data), **_found(findings)})
    if unit.dry_steps is not None:
        made["losses"] = plain(_losses(findings.fit.detector))
    settings = work.settings
    made["made_by"] = {**made_by(settings.device, settings.threads), "batch_size": settings.batch_size}
    made["measured"] = plain(measured)
    return made


def _said(unit: Unit, data: BenchmarkSet) -> dict[str, Any]:
    """Return the fields that identify the unit."""
    variant = unit.variant
    return {
        "format": FORMAT,
        "key": unit.key,
        "protocol": unit.task.protocol,
        "data": unit.task.data,
        "set": data.title,
        "category": unit.task.category,
        "group": data.group,
        "role": data.role,
        "train": unit.task.train,
        "task": unit.task.facts,
        "method": variant.method,
        "label": variant.label or variant.method,
        "sweep": variant.sweep,
        "parameters": variant.params,
        "seed": unit.seed,
        "limit": unit.limit,
        "dry_steps": unit.dry_steps,
    }


def _found(findings: Findings) -> dict[str, Any]:
    """Return the figures, and the fit that they come from."""
    fit, seen = findings.fit, findings.seen
    detector, scores = fit.detector, findings.scores
    judged = [] if seen is None or findings.positions is None else [seen.digests[i] for i in findings.positions]
    state = detector.scorer_.state_dict().values()
    return {
        "resolved": detector.resolved_,
        "n_fit": detector.counts_,
        **findings.figures,
        "history": _history(detector),
        "notes": fit.notes,
        "state_mb": sum(tensor.numel() * tensor.element_size() for tensor in state) / 1e6,
        "scores_sha256": scores_digest(scores) if len(scores) else None,
        "images_sha256": images_digest(judged) if judged else None,
    }


def _history(detector: Detector) -> list[dict[str, Any]]:
    """Return the last record of each stage that reported figures, without times."""
    last: dict[str, dict[str, Any]] = {}
    for record in detector.history_:
        facts = {name: value for name, value in record.facts.items() if name not in VOLATILE_FACTS}
        if facts:
            last[record.stage] = {"stage": record.stage, "step": record.step, "total": record.total, "facts": facts}
    return list(last.values())


def _losses(detector: Detector) -> dict[str, list[float]]:
    """Return the recorded losses of each stage that is trained, in order."""
    found: dict[str, list[float]] = {}
    for record in detector.history_:
        if "loss" in record.facts:
            found.setdefault(record.stage, []).append(record.facts["loss"])
    return found


def _measured(findings: Findings, total: float) -> dict[str, Any]:
    """Return seconds and memory; those of a shared fit come from the unit that ran it."""
    fit, seen = findings.fit, findings.seen
    first: Fit = fit.first or fit
    peaks = {"fit": first.meter.peak_mb, "fit_gpu": first.meter.peak_gpu_mb}
    seconds = {"total": total, "fit": first.meter.seconds}
    measured: dict[str, Any] = {"seconds": seconds, "peak_mb": peaks, "shared_fit": first.shared}
    if fit.first is not None:
        seconds["labels"], peaks["labels"] = fit.meter.seconds, fit.meter.peak_mb
    if seen is not None:
        measured |= _measured_scoring(seen, seconds, peaks)
    return measured


def _measured_scoring(seen: Seen, seconds: dict[str, float], peaks: dict[str, float]) -> dict[str, Any]:
    if seen.concluded:
        return {"concluded": True}
    seconds["score"], peaks["score"], peaks["score_gpu"] = (
        *(seen.meter.seconds, seen.meter.peak_mb),
        seen.meter.peak_gpu_mb,
    )
    return {"concluded": False, "images_per_second": len(seen.scores) / max(seen.meter.seconds, 1e-9)}


def _keep_scores(folder: Path, unit: Unit, findings: Findings) -> None:
    """Write scores, labels and kinds of the judged images beside the run file, atomically."""
    folder.mkdir(parents=True, exist_ok=True)
    columns: dict[str, Any] = {"scores": findings.scores}
    if findings.images is not None and findings.positions is not None:
        kinds = findings.images.kinds
        columns["labels"] = findings.images.labels[findings.positions]
        columns["kinds"] = np.asarray([kinds[i] for i in findings.positions])
        columns["names"] = np.asarray([findings.images.source.name(int(i)) for i in findings.positions])
    with atomic_path(folder / f"{unit.key}.npz") as part:
        np.savez_compressed(part, **columns)


def load_scores(path: str | Path) -> dict[str, FloatArray]:
    """Read the stored scores of a unit: ``scores`` (N,) float32, and ``labels``, ``kinds``, ``names`` of images."""
    with np.load(path, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}
