"""What a model file says about itself, as strict JSON.

Version 1 has exactly the keys below. Version 2 adds ``groups`` to ``calibration`` and is written only where p-values
count groups, so that readers of version 1 refuse such a file. Whoever adds, drops or reinterprets a key raises
`FORMAT_VERSION`; readers refuse every version but their own rather than guess, and a reader of several versions
converts the older ones here, in `Manifest.from_json`, and nowhere else. What may grow freely is inside ``params``,
``resolved``, ``architecture`` and ``facts``, which belong to the method.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from anomem.errors import ModelFileError
from anomem.runtime.limits import MAX_ARCHITECTURE_ENTRIES
from anomem.runtime.plain import plain
from anomem.runtime.precision import PRECISIONS

__all__ = ["FORMAT", "FORMAT_VERSION", "Manifest"]

FORMAT = "anomem"
FORMAT_VERSION = 2

_CALIBRATION_KEYS = ("alpha", "n", "precision")
_COUNT_KEYS = ("n_train", "n_tune", "n_calibration", "n_labelled")
_SCALE_KEYS = ("low", "high")


@dataclass(frozen=True)
class Manifest:
    """Facts of a fitted detector, beside its weights.

    Parameters
    ----------
    method : str
        Registered name of the method.
    version : str
        Version of anomem that wrote the file.
    params : mapping
        Hyperparameters as the user gave them.
    resolved : mapping
        Hyperparameters as presets and defaults made them.
    architecture : mapping
        What the method needs to build its network before the weights are read.
    preprocessing : mapping
        As of `anomem.runtime.preprocess.Preprocessing.to_dict`.
    calibration : mapping
        ``alpha``, ``n``, ``precision``, and where p-values count groups their number, ``groups``; scores and group of
        each are with the weights.
    counts : mapping
        ``n_train``, ``n_tune``, ``n_calibration``, ``n_labelled``: images of each kind.
    precision : str
        Arithmetic of scoring ("float32", "bfloat16").
    map_scale : mapping or None
        ``low`` and ``high`` of the colour scale; None for methods without maps.
    facts : mapping
        Anything else that the method wants to say.

    Raises
    ------
    ModelFileError
        A value of another kind.
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
        """Check the kind of every value."""
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

    def to_json(self) -> str:
        """Write the manifest as one JSON object; the same manifest gives the same text.

        Raises
        ------
        ModelFileError
            A value that strict JSON cannot hold: NaN, infinity, a key or value of another kind.
        """
        content = {"format": FORMAT, "format_version": 2 if "groups" in self.calibration else 1}
        content |= {entry.name: getattr(self, entry.name) for entry in fields(self)}
        try:
            return json.dumps(plain(content, strict=True), allow_nan=False, ensure_ascii=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise ModelFileError(f"manifest cannot be written: {error}") from error

    @classmethod
    def from_json(cls, text: str, *, name: str = "manifest") -> Manifest:
        """Read what `to_json` wrote, and nothing else.

        Parameters
        ----------
        text : str
        name : str
            What errors call the file.

        Raises
        ------
        ModelFileError
            Not strict JSON, another format or version, unknown or missing keys, values of another
            kind.
        """
        content = _parse(text, name)
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise ModelFileError(f"{name}: not an anomem model: give a file that anomem saved")
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
        except Exception as error:  # values of kinds that nobody thought of
            raise ModelFileError(f"{name}: manifest cannot be read ({error}): save the model again") from error


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
        raise ModelFileError(f"{name}: no valid format version: give a file that anomem saved")
    if version > FORMAT_VERSION:
        raise ModelFileError(
            f"{name}: written by a newer anomem (file format {version}, this one reads"
            f" {FORMAT_VERSION}): update with pip install -U anomem"
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
    grouped = isinstance(calibration, Mapping) and "groups" in calibration
    _check_keys("calibration", calibration, (*_CALIBRATION_KEYS, "groups") if grouped else _CALIBRATION_KEYS)


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


def _entries(value: Any) -> int:
    """Count the keys and values of nested objects and lists."""
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
    except OverflowError:  # a whole number beyond all floats
        return False
