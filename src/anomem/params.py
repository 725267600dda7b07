"""Hyperparameters that are declared, validated and cloneable.

A class of parameters is a keyword-only dataclass. Each field is declared with :func:`param`, which holds its default,
the values it may take and one line of documentation; everything else (``get_params``, ``clone``, ``repr``, the command
line's ``--set``, the manifest, the docs) derives from that declaration. ``__init__`` only assigns: values are checked
by
:meth:`Parameters.resolve`, which ``fit`` calls.

Examples
--------
>>> @dataclass(kw_only=True, repr=False, eq=False)
... class Ridge(Parameters):
...     penalty: float = param(1.0, Range(0.0, low_open=True), doc="Strength of the penalty.")
>>> Ridge(penalty=2.0)
Ridge(penalty=2.0)
>>> Ridge(penalty=-1.0).resolve()
Traceback (most recent call last):
...
anomem.errors.ParameterError: Ridge: penalty=-1.0 is not allowed; expected a number > 0
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

import numpy as np

from anomem.errors import ParameterError, suggestion


class Allowed(Protocol):
    """What values a parameter may take."""

    def accepts(self, value: Any) -> bool:
        """Tell whether `value` is allowed."""
        ...

    def __str__(self) -> str:
        """Describe the allowed values: the end of the sentence "expected ..."."""
        ...


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included unless said otherwise."""

    low: float = -math.inf
    high: float = math.inf
    integer: bool = False
    low_open: bool = False

    def accepts(self, value: Any) -> bool:
        """Tell whether `value` is a number of this range (a bool is not a number)."""
        kinds = (int, np.integer) if self.integer else (int, float, np.integer, np.floating)
        if isinstance(value, bool) or not isinstance(value, kinds) or not _is_finite(value):
            return False
        return bool((self.low < value if self.low_open else self.low <= value) and value <= self.high)

    def __str__(self) -> str:
        kind = "an integer" if self.integer else "a number"
        low = f" {'>' if self.low_open else '>='} {self.low:g}" if self.low > -math.inf else ""
        high = f" <= {self.high:g}" if self.high < math.inf else ""
        return kind + low + (" and" if low and high else "") + high


@dataclass(frozen=True)
class OneOf:
    """One of a few values."""

    values: tuple[Any, ...]

    def accepts(self, value: Any) -> bool:
        """Tell whether `value` is one of them, of the same type (so that 1 is not True)."""
        return any(type(value) is type(v) and value == v for v in self.values)

    def __str__(self) -> str:
        return "one of " + ", ".join(repr(v) for v in self.values)


@dataclass(frozen=True)
class Text:
    """Any non-empty string."""

    what: str = "a non-empty string"

    def accepts(self, value: Any) -> bool:
        """Tell whether `value` is a string with something in it."""
        return isinstance(value, str) and bool(value)

    def __str__(self) -> str:
        return self.what


@dataclass(frozen=True)
class FileOrArray:
    """A file's path, or an array that stands for its content."""

    what: str

    def accepts(self, value: Any) -> bool:
        """Tell whether `value` is a path or a two-dimensional array."""
        return isinstance(value, (str, Path)) or (isinstance(value, np.ndarray) and value.ndim == 2)

    def __str__(self) -> str:
        return self.what


@dataclass(frozen=True)
class Each:
    """A tuple whose members all satisfy `item`; a fixed length by `length`."""

    item: Allowed
    length: int | None = None

    def accepts(self, value: Any) -> bool:
        """Tell whether `value` is such a tuple (a list counts: JSON has no tuples)."""
        if not isinstance(value, (tuple, list)) or not value:
            return False
        return self.length in (None, len(value)) and all(self.item.accepts(v) for v in value)

    def __str__(self) -> str:
        count = "a tuple" if self.length is None else f"{self.length} values"
        return f"{count}, each {self.item}"


@dataclass(frozen=True)
class Either:
    """A value that satisfies any of several declarations."""

    options: tuple[Allowed, ...]

    def accepts(self, value: Any) -> bool:
        """Tell whether any option accepts `value`."""
        return any(option.accepts(value) for option in self.options)

    def __str__(self) -> str:
        return ", or ".join(str(option) for option in self.options)


FLAG = OneOf((False, True))


def param(default: Any, allowed: Allowed, *, doc: str, optional: bool = False, preset: bool = False) -> Any:
    """Declare one hyperparameter: its default, its allowed values, its documentation.

    Parameters
    ----------
    default : object
        The default value; None for a parameter that the preset governs.
    allowed : Allowed
        The values it may take.
    doc : str
        One or two sentences for the docs and for ``anomem methods --json``.
    optional : bool
        Whether None is a value of its own ("off").
    preset : bool
        Whether None means "as the preset says".
    """
    return field(
        default=default,
        metadata={"allowed": allowed, "doc": doc, "optional": optional, "preset": preset},
    )


@dataclass(kw_only=True, repr=False, eq=False)
class Parameters:
    """Base of everything that is configured by declared hyperparameters."""

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    @classmethod
    def declared(cls) -> dict[str, Field[Any]]:
        """Name -> dataclass field of every declared hyperparameter, in order."""
        return {f.name: f for f in fields(cls) if "allowed" in f.metadata}

    def get_params(self) -> dict[str, Any]:
        """Return the hyperparameters as they were given (None stays None)."""
        return {name: getattr(self, name) for name in self.declared()}

    def set_params(self, **values: Any) -> Self:
        """Assign hyperparameters by name.

        Raises
        ------
        ParameterError
            For a name that this class does not declare; the nearest name is suggested.
        """
        for name in values:
            _known(type(self), name)
        for name, value in values.items():
            setattr(self, name, value)
        return self

    def clone(self) -> Self:
        """Return an unfitted copy with equal hyperparameters."""
        return type(self)(**copy.deepcopy(self.get_params()))

    def resolve(self) -> dict[str, Any]:
        """Return the hyperparameters with the preset's values filled in, all checked.

        Raises
        ------
        ParameterError
            Naming the parameter, its value and the allowed range.
        """
        given = self.get_params()
        preset = given.get("preset", "")
        if self.presets and not OneOf(tuple(self.presets)).accepts(preset):
            _refuse(type(self), "preset", preset, OneOf(tuple(self.presets)))
        filling = self.presets.get(preset, {})
        resolved: dict[str, Any] = {}
        for name, declared in self.declared().items():
            value = given[name]
            if value is None and declared.metadata["preset"] and name in filling:
                value = filling[name]
            allowed: Allowed = declared.metadata["allowed"]
            off = value is None and (declared.metadata["optional"] or declared.metadata["preset"])
            if not off and not allowed.accepts(value):
                _refuse(type(self), name, value, allowed)
            resolved[name] = tuple(value) if isinstance(value, list) else value
        return resolved

    def __repr__(self) -> str:
        shown = [
            f"{name}={_shown(getattr(self, name))}"
            for name, declared in self.declared().items()
            if not _same(getattr(self, name), declared.default)
        ]
        return f"{type(self).__name__}({', '.join(shown)})"


def parse_assignments(cls: type[Parameters], assignments: Iterable[str]) -> dict[str, Any]:
    """Turn ``key=value`` strings (the command line's ``--set``) into hyperparameters.

    Values are read as JSON where they are JSON (numbers, ``true``, ``null``, ``[8, 16]``), as text otherwise.

    Raises
    ------
    ParameterError
        For a string without ``=`` or a name that `cls` does not declare.

    Examples
    --------
    >>> @dataclass(kw_only=True, repr=False, eq=False)
    ... class Example(Parameters):
    ...     size: int = param(224, Range(16, integer=True), doc="Input size, pixels.")
    >>> parse_assignments(Example, ["size=128"])
    {'size': 128}
    """
    values: dict[str, Any] = {}
    for text in assignments:
        name, equals, value = text.partition("=")
        if not equals:
            raise ParameterError(f"--set {text}: expected key=value, for example --set size=128")
        _known(cls, name.strip())
        try:
            parsed = json.loads(value)
        except (ValueError, RecursionError):
            parsed = {"None": None, "True": True, "False": False}.get(value.strip(), value.strip())
        values[name.strip()] = tuple(parsed) if isinstance(parsed, list) else parsed
    return values


def _known(cls: type[Parameters], name: str) -> None:
    names = list(cls.declared())
    if name in names:
        return
    raise ParameterError(f"{cls.__name__} has no parameter {name!r}; {suggestion(name, names)}")


def _refuse(cls: type[Parameters], name: str, value: Any, allowed: Allowed) -> None:
    raise ParameterError(f"{cls.__name__}: {name}={_shown(value)} is not allowed; expected {allowed}")


def _is_finite(value: Any) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond all floats
        return False


def _shown(value: Any) -> str:
    """One short line for any value."""
    if isinstance(value, np.ndarray):
        return f"<array {' x '.join(map(str, value.shape))}, {value.dtype}>"
    return " ".join(repr(value).split())


def _same(value: Any, default: Any) -> bool:
    if default is MISSING or isinstance(value, np.ndarray):
        return False
    return type(value) is type(default) and bool(value == default)
