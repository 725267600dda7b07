"""Tasks, variants and units of a benchmark, and the key that identifies a finished unit."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from anomem.runtime.plain import plain
from anomem.types import FloatArray

__all__ = ["FORMAT", "Task", "Unit", "Variant", "canonical", "plain"]

FORMAT = 1
"""Format number of run lines; readers reject others."""


@dataclass(frozen=True)
class Task:
    """Task of a protocol on an image set, for any method.

    Parameters
    ----------
    protocol : str
        Its name.
    data : str
        The set's name; see `anomem.benchmark.image_sets`.
    category : str
        Column of a table: a class, a category, the other set.
    train : mapping
        Selection of the training images, and ``calibration`` of the fit where it is not a split. Tasks with equal
        `data` and `train` share their one-class fit.
    facts : mapping
        Further facts of the task: gamma, draw, k and the like.
    labelled : bool
        True where the method is given labelled anomalies. Methods that cannot use labels skip such tasks; methods that
        need them skip the others.
    """

    protocol: str
    data: str
    category: str
    train: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    labelled: bool = False


@dataclass(frozen=True)
class Variant:
    """Method with hyperparameters and a label.

    Parameters
    ----------
    method : str
        A key of `anomem.detectors.DETECTORS`.
    params : mapping
        Hyperparameters that differ from the defaults.
    label : str
        Name in tables; empty: the method's name.
    sweep : mapping or None
        ``name``, ``parameter`` and ``value`` of a point of a sweep.
    """

    method: str
    params: Mapping[str, Any] = field(default_factory=dict)
    label: str = ""
    sweep: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Unit:
    """Unit of work, one run line: a task, a variant and a seed.

    Parameters
    ----------
    task : Task
    variant : Variant
    seed : int
        Seed of the fit.
    limit : int or None
        Maximum number of images per kind, for trials.
    dry_steps : int or None
        Maximum number of optimiser steps, for trials.
    """

    task: Task
    variant: Variant
    seed: int
    limit: int | None = None
    dry_steps: int | None = None

    @property
    def identity(self) -> dict[str, Any]:
        """Return the facts that distinguish the unit, as plain JSON values."""
        sweep = self.variant.sweep
        return {
            **self._fitted,
            "protocol": self.task.protocol,
            "category": self.task.category,
            "facts": plain(self.task.facts),
            "labelled": self.task.labelled,
            "sweep": sweep and str(sweep["name"]),
        }

    @property
    def key(self) -> str:
        """Hash of the identity, 16 hexadecimal digits."""
        return _short_hash(self.identity)

    @property
    def fit_key(self) -> str:
        """Hash of the facts that determine the one-class fit; units with equal hashes share one."""
        return _short_hash(self._fitted)

    @property
    def _fitted(self) -> dict[str, Any]:
        return {
            "data": self.task.data,
            "train": plain(self.task.train),
            "method": self.variant.method,
            "parameters": plain(self.variant.params),
            "seed": self.seed,
            "limit": self.limit,
            "dry_steps": self.dry_steps,
        }

    def __str__(self) -> str:
        shown = " ".join(f"{name}={value}" for name, value in plain(self.task.facts).items())
        name = self.variant.label or self.variant.method
        category = "" if self.task.data.endswith(self.task.category) else self.task.category
        where = f"{self.task.data} {category}".strip()
        return " ".join(filter(None, [self.task.protocol, where, name, f"seed={self.seed}", shown]))


def canonical(content: object) -> str:
    """Serialise plain values as canonical JSON: equal values, equal text.

    Examples
    --------
    >>> canonical({"b": (1, 2), "a": None}) == canonical({"a": None, "b": [1, 2]})
    True
    """
    return json.dumps(plain(content), sort_keys=True, separators=(",", ":"), allow_nan=False)


def _short_hash(content: object) -> str:
    return hashlib.sha256(canonical(content).encode()).hexdigest()[:16]


def scores_digest(scores: FloatArray) -> str:
    """Return the SHA-256 of float32 scores, little-endian, in order."""
    return hashlib.sha256(np.ascontiguousarray(scores, "<f4").tobytes()).hexdigest()


def images_digest(digests: Sequence[int]) -> str:
    """Return the SHA-256 of content hashes, in order: equal for equal test images."""
    return hashlib.sha256(np.asarray(digests, dtype="<u8").tobytes()).hexdigest()
