"""Fits that extend a model: its normals from the store beside it, and the arguments of its fit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from anomem.data.store import Stored, call_facts, read_store
from anomem.modelfile import digest_set, read_manifest, read_model
from anomem.runtime.alpha import DEFAULT_ALPHA

__all__ = ["earlier_normals", "extended_call"]


def earlier_normals(path: str | Path) -> tuple[Stored, ...]:
    """Read the store beside a model file, checked against the images that the model has learnt from.

    Raises
    ------
    InputError
        The store is missing, damaged, or that of another model.
    ModelFileError
        As for :func:`read_model`.
    """
    tensors, _ = read_model(path)
    return read_store(path, digest_set(tensors["digests.learn"]))


def extended_call(path: str | Path, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a fit that extends a model: as given, else as in the model's fit.

    Its alpha is kept unless it is the default, 0.01 or the smallest attainable one, which more normals may change. Its
    calibration is kept; a file that does not say has a split.
    """
    manifest = read_manifest(path)
    known, facts = call_facts(dict(manifest.facts.get("call", {}))), manifest.calibration
    known["calibration"] = str(manifest.facts.get("calibration", "split"))
    smallest = 1 / (facts.get("groups", facts["n"]) + 1)
    if facts["alpha"] not in (DEFAULT_ALPHA, smallest):
        known["alpha"] = facts["alpha"]
    open_names = [n for n, value in given.items() if value is None or (isinstance(value, str) and value == "auto")]
    return {**given, **{name: value for name, value in known.items() if name in open_names}}
