"""Work of jobs: fit, refit, calibrate, re-score."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from anomem.detector import Detector
from anomem.detectors import get
from anomem.detectors import load as load_detector
from anomem.errors import InputError
from anomem.loading import load
from anomem.params import parse_assignments
from anomem.runtime.metadata import weights_of
from anomem.service.jobs.candidates import judged, on_sample
from anomem.service.jobs.scoring import scored
from anomem.service.jobs.spec import Spec
from anomem.service.lifecycle import facts_of
from anomem.service.scoring.strata import strata_for
from anomem.types import Record

__all__ = ["run"]

Report = Callable[[Record], None]


def run(spec: Spec, report: Report) -> dict[str, Any]:
    """Run a task, and return its result, JSON-ready.

    Returns
    -------
    dict
        `files` and `figures` of a new version; of "rescore" `rows`: id, score, p-value, verdict, verdict so far.
    """
    return {"fit": _fit, "refit": _refit, "calibrate": _calibrate, "rescore": _rescore}[spec.kind](spec, report)


def _fit(spec: Spec, report: Report) -> dict[str, Any]:
    kind = get(spec.method)
    detector = kind(**parse_assignments(kind, spec.assignments))
    samples = [row.sample() for row in spec.normals]
    labels = [row.sample() for row in spec.labels] if any(row.defect for row in spec.labels) else None
    strata = [row.stratum or "" for row in spec.normals] if any(row.stratum for row in spec.normals) else None
    options: dict[str, Any] = {"max_pixels": spec.max_pixels, "skip_bad": True, "progress": report}
    detector.fit(samples, labels=labels, strata=strata, **options)
    figures = {"suspects": _suspects(detector, spec), "skipped": len(detector.skipped_)}
    return _written(detector, spec, report, figures)


def _refit(spec: Spec, report: Report) -> dict[str, Any]:
    detector = load_detector(_base(spec))
    known = detector.digests_by_role_
    used = known["learn"] | known["tune"] | known["calibration"]
    defects = [row for row in spec.labels if row.defect]
    fresh = [row for row in defects if row.digest not in used]
    if not fresh:
        raise InputError("labels: no defect is labelled that the fit has not seen as normal; label a defect")
    figures = judged(detector, spec, fresh, report)
    # Confirmed normals were selected by their score: they wait for the next full fit.
    detector.label([row.sample() for row in fresh], max_pixels=spec.max_pixels, progress=report)
    figures |= {"left_out": len(defects) - len(fresh), "defects": len(fresh)}
    result = _written(detector, spec, report, figures)
    result["figures"] |= _against_base(detector, spec, report)
    return result


def _calibrate(spec: Spec, report: Report) -> dict[str, Any]:
    model = load(_base(spec))
    paths = [row.path for row in spec.normals]
    groups = [row.group for row in spec.normals]
    given = groups if any(group is not None for group in groups) else None
    options: dict[str, Any] = {"skip_bad": True, "max_pixels": spec.max_pixels, "progress": report}
    model.calibrate(paths, groups=given, strata=strata_for(model, [row.stratum for row in spec.normals]), **options)
    return _written(model, spec, report, {})


def _rescore(spec: Spec, report: Report) -> dict[str, Any]:
    model = load(_base(spec))
    model.set_alpha(max(spec.alpha, model.calibration_.alpha_min))
    rows = [
        [
            row.id,
            None if found.error else found.score,
            None if found.error else found.p_value,
            found.anomalous,
            row.anomalous,
        ]
        for row, found in zip(spec.history, scored(model, spec.history, spec, report, "score"), strict=True)
    ]
    changed = sum(row.anomalous != found[3] for row, found in zip(spec.history, rows, strict=True))
    return {"rows": rows, "changed": changed}


def _written(model: Any, spec: Spec, report: Report, figures: dict[str, Any]) -> dict[str, Any]:
    """Write the model, and its export where wanted."""
    out = Path(spec.out)
    model.set_alpha(max(spec.alpha, model.calibration_.alpha_min))
    base = None if spec.base is None else Path(spec.base)
    name = "model.safetensors" if base is None else base.name
    if base is not None and base.suffix != ".safetensors":
        files = {"exported": name}
        _copied(base, out)
        load(out / name)
        model.save(out / name)
    else:
        files = {"detector": name}
        model.save(out / name)
        if spec.export is not None:
            exported = f"model.{'onnx' if spec.export == 'onnx' else 'xml'}"
            report(Record("export", 0, 1))
            model.export(out / exported, progress=report)
            files["exported"] = exported
    return {"files": files, "figures": {**facts_of(model), **figures}}


def _copied(base: Path, out: Path) -> None:
    """Copy an exported model, both files of an IR."""
    for file in (base, weights_of(base)):
        if file is not None:
            shutil.copyfile(file, out / file.name)


def _against_base(detector: Detector, spec: Spec, report: Report) -> dict[str, Any]:
    """Compare verdicts of a candidate with those of its base, on unselected parts and on the recent history."""
    detector.set_alpha(max(spec.alpha, detector.calibration_.alpha_min))
    drawn = scored(detector, spec.unselected, spec, report, "unselected parts")
    recent = scored(detector, spec.history, spec, report, "history")
    changes = [
        {"id": row.id, "before": row.anomalous, "after": found.anomalous}
        for row, found in zip(spec.history, recent, strict=True)
        if found.error is None and found.anomalous != row.anomalous
    ]
    return {
        "unselected": on_sample(spec.unselected, [found.anomalous for found in drawn]),
        "history": {"n": len(recent), "changed": len(changes), "changes": changes[:200]},
    }


def _suspects(detector: Detector, spec: Spec) -> list[dict[str, Any]]:
    """List the suspects of a fit with the ids of their images, worst first."""
    rows = {row.path: row for row in spec.normals}
    return [
        {"normal": rows[suspect["path"]].id, "name": rows[suspect["path"]].name, "p_value": suspect["p_value"]}
        for suspect in detector.suspects_
        if suspect["path"] in rows
    ]


def _base(spec: Spec) -> Path:
    if spec.base is None:
        raise InputError("job: has no model file; fit the model first")
    return Path(spec.base)
