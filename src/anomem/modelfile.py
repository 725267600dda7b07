"""From a fitted detector to a file and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from anomem.errors import ModelFileError
from anomem.fitting import Fitted, digest_set, digest_tensor
from anomem.nn.backbones import Backbone
from anomem.nn.scorer import Scorer
from anomem.params import Parameters
from anomem.persistence import read_model, write_model
from anomem.runtime.calibration import Calibration
from anomem.runtime.manifest import Manifest
from anomem.runtime.preprocess import Preprocessing
from anomem.types import BoolArray, Record
from anomem.version import __version__

_MOST = 2**31
"""Largest number in an architecture."""

_OTHERWISE_NAMED = ("hidden", "weights")
"""Entries of architectures that have the name of a hyperparameter, and are another thing."""

_PARTS = ("backbone", "memory")
"""Hyperparameters that are objects in an architecture."""


def save_model(path: str | Path, method: str, params: Mapping[str, Any], state: Fitted) -> None:
    """Write one file: tensors of the scorer, calibration scores, content hashes, region of interest; facts as JSON."""
    tensors = {f"scorer.{name}": tensor for name, tensor in state.scorer.state_dict().items()}
    tensors["calibration.scores"] = torch.from_numpy(state.calibration.scores.copy())
    for role, hashes in state.digests.items():
        tensors[f"digests.{role}"] = digest_tensor(hashes)
    if state.preprocessing.roi is not None:
        tensors["roi"] = torch.from_numpy(state.preprocessing.roi.astype(np.uint8))
    write_model(path, tensors, manifest_of(method, params, state))


def manifest_of(method: str, params: Mapping[str, Any], state: Fitted) -> Manifest:
    """Everything about a model but its tensors."""
    return Manifest(
        method=method,
        version=__version__,
        params=_jsonable(params),
        resolved=_jsonable(state.resolved),
        architecture=state.scorer.config,
        preprocessing=state.preprocessing.to_dict(),
        calibration={
            "alpha": state.calibration.alpha,
            "n": state.calibration.n,
            "precision": state.calibration.precision,
        },
        counts=state.counts,
        precision=state.calibration.precision,
        map_scale=dict(zip(("low", "high"), state.map_scale, strict=True)),
        facts={
            "skipped": list(state.skipped),
            "history": [dataclasses.asdict(record) for record in state.history],
        },
    )


def load_model(
    path: str | Path, builder: Callable[[str], Callable[[dict[str, Any]], Scorer]]
) -> tuple[str, dict[str, Any], Fitted]:
    """Read a file that :func:`save_model` wrote.

    Parameters
    ----------
    path : path
        The file.
    builder : callable
        From a method's name to what builds its empty scorer from a config.

    Returns
    -------
    tuple
        The method's name, its hyperparameters as given, and the fitted state on the CPU.

    Raises
    ------
    ModelFileError
        When the file is missing, a pickle, damaged, of another version, or its parts do not fit together.
    """
    tensors, manifest = read_model(path)
    build = builder(manifest.method)
    try:
        if manifest.architecture.get("size") not in (None, manifest.preprocessing["size"]):
            raise ModelFileError("architecture and preprocessing differ in size")
        if manifest.precision == "int8" or manifest.precision != manifest.calibration["precision"]:
            raise ModelFileError("a precision that models of this kind do not score in")
        scorer = _filled(build, dict(manifest.architecture), tensors)
        roi = _roi(tensors)
        state = Fitted(
            scorer,
            _from_json(manifest.resolved, roi),
            Preprocessing.from_dict(manifest.preprocessing, roi),
            Calibration(
                tensors["calibration.scores"].numpy(),
                float(manifest.calibration["alpha"]),
                str(manifest.calibration["precision"]),
            ),
            _scale(manifest.map_scale),
            {role: digest_set(tensors[f"digests.{role}"]) for role in ("learn", "tune", "calibration", "labelled")},
            tuple(manifest.facts.get("skipped", ())),
            tuple(Record(**record) for record in manifest.facts.get("history", ())),
        )
    except Exception as error:  # facts that somebody changed fail in any way there is
        raise ModelFileError(f"{path}: damaged: its parts do not fit together ({_first_line(error)})") from error
    return manifest.method, _from_json(manifest.params, roi), state


def check_architecture(kind: type[Parameters], architecture: Mapping[str, Any]) -> None:
    """Refuse facts that no fit of a method writes, before anything is built by them.

    An entry with the name of a hyperparameter must be a value that it may take; any number must be one that a network
    can have.

    Raises
    ------
    ModelFileError
        Naming the entry.
    """
    declared = kind.declared()
    for name, value in architecture.items():
        if isinstance(value, Mapping) and (name in _PARTS or name not in declared):
            check_architecture(kind, value)
            continue
        entries = value if isinstance(value, list | tuple) else [value]
        for entry in entries:
            if isinstance(entry, Mapping):
                check_architecture(kind, entry)
            elif isinstance(entry, int | float) and not -(name == "stages") * _MOST <= entry <= _MOST:
                raise ModelFileError(f"architecture: {name}={entry!r} is out of range")
        if name not in declared or name in _OTHERWISE_NAMED:
            continue
        facts = declared[name].metadata
        off, allowed = value is None and (facts["optional"] or facts["preset"]), facts["allowed"]
        if not off and not any(allowed.accepts(form) for form in (value, (value,))):
            raise ModelFileError(f"architecture: {name}={value!r} is not allowed; expected {allowed}")


def check_resolved(kind: type[Parameters], resolved: Mapping[str, Any]) -> dict[str, Any]:
    """Return the hyperparameters that a model was fitted with, all allowed; what is newer than the file by default.

    Raises
    ------
    ModelFileError
        A hyperparameter is missing, unknown or outside its range.
    """
    unknown = sorted(set(resolved) - set(kind.declared()))
    missing = sorted({"size", "precision", "seed"} - set(resolved))
    if unknown or missing:
        found = f"unknown {unknown[0]!r}" if unknown else f"{missing[0]!r} is missing"
        raise ModelFileError(f"hyperparameters of the fit: {found}")
    return kind(**resolved).resolve()


def _filled(build: Callable[[dict[str, Any]], Scorer], config: dict[str, Any], tensors: dict[str, Tensor]) -> Scorer:
    """Build on the meta device, where a hostile config costs nothing, and assign the file's tensors."""
    own = {name.removeprefix("scorer."): value for name, value in tensors.items() if name.startswith("scorer.")}
    with torch.device("meta"):
        scorer = build(config)
    expected = {name: tensor.dtype for name, tensor in scorer.state_dict().items()}
    scorer.load_state_dict(own, strict=True, assign=True)
    wrong = [name for name, dtype in expected.items() if own[name].dtype != dtype]
    if wrong:
        raise ModelFileError(f"{wrong[0]} is {own[wrong[0]].dtype} instead of {expected[wrong[0]]}")
    if any(tensor.is_meta for tensor in (*scorer.parameters(), *scorer.buffers())):
        # Some timm models hold constants that are no part of their state; now that all shapes fit, build it for real.
        with torch.random.fork_rng(devices=[]):  # first weights are drawn, and overwritten
            scorer = build(config)
        scorer.load_state_dict(own, strict=True, assign=True)
    for module in scorer.modules():
        if isinstance(module, Backbone):  # as it was fitted: a layout changes the last bits of a score
            module.to(memory_format=torch.channels_last)
    return scorer.eval().requires_grad_(False)


def _roi(tensors: dict[str, Tensor]) -> BoolArray | None:
    return tensors["roi"].numpy().astype(bool) if "roi" in tensors else None


def _scale(facts: Mapping[str, float] | None) -> tuple[float, float]:
    return (facts["low"], facts["high"]) if facts else (0.0, 1.0)


def _jsonable(params: Mapping[str, Any]) -> dict[str, Any]:
    """Hyperparameters as JSON: a region of interest travels as a tensor, a path as text."""
    plain = {k: str(v) if isinstance(v, Path) else v for k, v in params.items()}
    return {k: list(v) if isinstance(v, tuple) else v for k, v in plain.items() if k != "roi"}


def _from_json(params: Mapping[str, Any], roi: BoolArray | None) -> dict[str, Any]:
    tuples = {k: tuple(v) if isinstance(v, list) else v for k, v in params.items()}
    return {**tuples, "roi": roi}


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
