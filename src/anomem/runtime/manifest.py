"""Manifest of a model file, as strict JSON.

Version 1 has exactly the keys below. Version 2 adds ``groups`` to ``calibration`` and is written only if p-values
count groups, so that readers of version 1 refuse such a file; version 3 adds ``kind`` and ``folds``, ``strata`` and
``strata_by``, or ``blended``, for calibrations that have them. A change that adds, drops or reinterprets a key must
raise `FORMAT_VERSION`; readers refuse unknown versions, and convert older ones only in `Manifest.from_json`. The
contents of ``params``, ``resolved``, ``architecture`` and ``facts`` belong to the method and may grow freely.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from anomem.errors import ModelFileError
from anomem.runtime.calibration import KINDS
from anomem.runtime.frame import Frame
from anomem.runtime.limits import MAX_ARCHITECTURE_ENTRIES
from anomem.runtime.plain import plain
from anomem.runtime.precision import PRECISIONS

__all__ = ["FORMAT", "FORMAT_VERSION", "Manifest"]

FORMAT = "anomem"
FORMAT_VERSION = 3

_CALIBRATION_KEYS = ("alpha", "n", "precision")
_ADDED_KEYS = {"groups": 2, "kind": 3, "folds": 3, "strata": 3, "strata_by": 3, "blended": 3}
"""Further keys of a calibration, each with the format version that added it."""

_COUNT_KEYS = ("n_train", "n_tune", "n_calibration", "n_labelled")
_SCALE_KEYS = ("low", "high")


@dataclass(frozen=True)
class Manifest:
    """Facts of a fitted detector, stored beside its weights.

    Parameters
    ----------
    method : str
        Registered name of the method.
    version : str
        Version of anomem that wrote the file.
    params : mapping
        Hyperparameters as given by the user.
    resolved : mapping
        Hyperparameters with the values of presets and defaults.
    architecture : mapping
        Facts needed by the method to build its network before the weights are read.
    preprocessing : mapping
        Output of `anomem.runtime.preprocess.Preprocessing.to_dict`.
    calibration : mapping
        ``alpha``, ``n``, ``precision``, the number of ``groups`` if p-values count groups, ``kind`` and number of
        ``folds`` if it is cross-fitted, the names ``strata`` and their rule ``strata_by`` if there are strata, and the
        number of fresh scores if it is ``blended``; scores, group numbers and stratum numbers are stored with the
        weights.
    counts : mapping
        ``n_train``, ``n_tune``, ``n_calibration``, ``n_labelled``: images of each kind.
    precision : str
        Arithmetic used for scoring ("float32", "bfloat16").
    map_scale : mapping or None
        ``low`` and ``high`` of the colour scale; None for methods without maps.
    facts : mapping
        Further facts of the method.

    Raises
    ------
    ModelFileError
        Value of another type.
    """

    method: str
    version: str
    params: Mapping[str, Any]
    resolved: Mapping[str, Any]
    architecture: Mapping[str, Any]
    preprocessing: Mapping[str, Any]
    calibration: Mapping[str, Any]
    counts: Mapping[str, int]
    precision: str
    map_scale: Mapping[str, float] | None
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the type of every value."""
        for name in ("method", "version", "precision"):
            if not isinstance(getattr(self, name), str) or not getattr(self, name):
                raise ModelFileError(f"manifest: {name} must be text")
        for name in ("params", "resolved", "architecture", "preprocessing", "facts"):
            if not isinstance(getattr(self, name), Mapping):
                raise ModelFileError(f"manifest: {name} must be an object")
        if _entries(self.architecture) > MAX_ARCHITECTURE_ENTRIES:
            raise ModelFileError("manifest: architecture is larger than that of any method")
        if self.precision not in PRECISIONS.values():
            raise ModelFileError(f"manifest: precision must be one of {', '.join(PRECISIONS.values())}")
        _check_calibration_keys(self.calibration)
        _check_keys("counts", self.counts, _COUNT_KEYS)
        _check_calibration(self.calibration)
        for name, count in self.counts.items():
            if not _is_count(count):
                raise ModelFileError(f"manifest: counts.{name} must be a whole number from 0")
        if self.map_scale is not None:
            _check_keys("map_scale", self.map_scale, _SCALE_KEYS)
            low, high = self.map_scale["low"], self.map_scale["high"]
            if not (_is_number(low) and _is_number(high) and low <= high):
                raise ModelFileError("manifest: map_scale must rise from low to high")

    @property
    def frame(self) -> Frame | None:
        """Size at which the fit's images are seen, from `facts`; None in files that are older than this fact."""
        facts = self.facts.get("frame")
        try:
            return None if facts is None else Frame.from_dict(facts)
        except (KeyError, TypeError, ValueError) as error:
            raise ModelFileError("manifest: facts.frame is not readable; save the model again") from error

    def to_json(self) -> str:
        """Return the manifest as a JSON object; equal manifests give equal texts.

        Raises
        ------
        ModelFileError
            Value not representable in strict JSON: NaN, infinity, or a key or value of another type.
        """
        version = max(_ADDED_KEYS.get(key, 1) for key in self.calibration)
        content: dict[str, Any] = {"format": FORMAT, "format_version": version}
        content |= {entry.name: getattr(self, entry.name) for entry in fields(self)}
        try:
            return json.dumps(plain(content, strict=True), allow_nan=False, ensure_ascii=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise ModelFileError(f"manifest cannot be written: {error}") from error

    @classmethod
    def from_json(cls, text: str, *, name: str = "manifest") -> Manifest:
        """Parse the output of `to_json` strictly.

        Parameters
        ----------
        text : str
        name : str
            Name of the file in errors.

        Raises
        ------
        ModelFileError
            Not strict JSON, other format or version, unknown or missing keys, or values of another
            type.
        """
        content = _parse(text, name)
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise ModelFileError(f"{name}: not an anomem model; give a file that anomem saved")
        _check_version(content.get("format_version"), name)
        known = {"format", "format_version", *(entry.name for entry in fields(cls))}
        unknown = sorted(set(content) - known)
        missing = sorted(known - set(content))
        if unknown or missing:
            what = f"unknown key {unknown[0]!r}" if unknown else f"missing key {missing[0]!r}"
            raise ModelFileError(f"{name}: {what}: the file was changed by hand; save it again")
        values = {key: value for key, value in content.items() if not key.startswith("format")}
        try:
            return cls(**values)
        except ModelFileError as error:
            raise ModelFileError(f"{name}: {error}") from error
        except Exception as error:  # values of unexpected types
            raise ModelFileError(f"{name}: manifest cannot be read ({error}); save the model again") from error


def _parse(text: str, name: str) -> Any:
    try:
        return json.loads(
            text,
            parse_constant=_refuse_constant,
            parse_float=_finite_float,
            object_pairs_hook=_unique_keys,
        )
    except (ValueError, RecursionError) as error:
        reason = f"not a readable manifest ({error})"
        raise ModelFileError(f"{name}: {reason}: the file is damaged; save it again") from error


def _check_version(version: object, name: str) -> None:
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise ModelFileError(f"{name}: no valid format version; give a file that anomem saved")
    if version > FORMAT_VERSION:
        raise ModelFileError(
            f"{name}: written by a newer anomem (file format {version}, this one reads"
            f" {FORMAT_VERSION}); update with pip install -U anomem"
        )


def _refuse_constant(constant: str) -> float:
    raise ValueError(f"{constant} is not JSON")


def _finite_float(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"{digits} is out of range")
    return value


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        raise ValueError("a key appears twice")
    return content


def _check_keys(name: str, value: object, keys: tuple[str, ...]) -> None:
    if not isinstance(value, Mapping) or set(value) != set(keys):
        raise ModelFileError(f"manifest: {name} must have exactly the keys {', '.join(keys)}")


def _check_calibration_keys(calibration: object) -> None:
    added = [key for key in _ADDED_KEYS if key in calibration] if isinstance(calibration, Mapping) else []
    _check_keys("calibration", calibration, (*_CALIBRATION_KEYS, *added))


def _check_calibration(calibration: Mapping[str, Any]) -> None:
    alpha, n, precision = (calibration[key] for key in _CALIBRATION_KEYS)
    if not (_is_number(alpha) and 0 < alpha < 1):
        raise ModelFileError("manifest: calibration.alpha must be above 0 and below 1")
    if not _is_count(n) or n < 1:
        raise ModelFileError("manifest: calibration.n must be a whole number from 1")
    if precision not in PRECISIONS.values():
        raise ModelFileError(f"manifest: calibration.precision must be one of {', '.join(PRECISIONS.values())}")
    if not (_is_count(groups := calibration.get("groups", 1)) and 1 <= groups <= n):
        raise ModelFileError("manifest: calibration.groups must be a whole number from 1 to n")
    if not (_is_count(blended := calibration.get("blended", 0)) and blended < n):
        raise ModelFileError("manifest: calibration.blended must be a whole number below n")
    strata, by = calibration.get("strata", ["-"]), calibration.get("strata_by", "")
    if not (isinstance(strata, list) and strata and all(isinstance(name, str) for name in strata)):
        raise ModelFileError("manifest: calibration.strata must be a list of names")
    if not isinstance(by, str) or ("strata" in calibration) != ("strata_by" in calibration):
        raise ModelFileError("manifest: calibration.strata_by must be text, beside calibration.strata")
    if "kind" not in calibration:
        return
    if calibration["kind"] not in KINDS[1:]:
        raise ModelFileError(f"manifest: calibration.kind must be one of {', '.join(KINDS[1:])}")
    if not (_is_count(calibration["folds"]) and 2 <= calibration["folds"] <= n):
        raise ModelFileError("manifest: calibration.folds must be a whole number from 2 to n")


def _entries(value: Any) -> int:
    """Return the number of keys and values in nested objects and lists."""
    if isinstance(value, Mapping):
        return sum(1 + _entries(entry) for entry in value.values())
    return sum(map(_entries, value)) if isinstance(value, list | tuple) else 1


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond the range of floats
        return False
