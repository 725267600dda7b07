"""Hyperparameters from the command line: ``--set key=value``."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import Field
from typing import Any

from anomem.errors import ParameterError
from anomem.params.allowed import Allowed, Each, Either, shortened
from anomem.params.declared import Parameters, example_of
from anomem.params.names import find, present

LONGEST = 1000
"""Maximum length of a value, characters."""
_WORDS = {"None": None, "True": True, "False": False}
_NONE = ("none", "None", "null")
_NUMBER = re.compile(r"[+-]?(\d{1,30}\.?\d{0,30}|\.\d{1,30})(e[+-]?\d{1,3})?", re.IGNORECASE)
"""Numbers that Python writes and JSON does not."""


def parse_assignments(cls: type[Parameters], assignments: Iterable[str], *, prefix: str = "") -> dict[str, Any]:
    """Parse ``key=value`` strings (the command line's ``--set``) into hyperparameters.

    Values are numbers, ``true``, ``false``, ``none``, text, or several of these: ``1,2,3``, ``(1,2,3)`` or ``[1,2,3]``.
    A single value stands for a tuple of one. Members of a nested object have dotted names.

    Parameters
    ----------
    cls : class
        Class that declares the hyperparameters.
    assignments : iterable of str
        Assignments, ``key=value`` each.
    prefix : str
        Prefix of the key that the caller has cut off; shown in errors.

    Raises
    ------
    ParameterError
        For a string without ``=``, a name that `cls` does not declare, or a value that is not allowed; the line ends
        with an example that is.

    Examples
    --------
    >>> from anomem.params import Each, Range, param, parameters
    >>> @parameters
    ... class Example(Parameters):
    ...     size: int = param(224, Range(16, integer=True), doc="Input size, pixels.")
    ...     widths: tuple[int, ...] = param((8, 16), Each(Range(1, integer=True)), doc="Widths of the layers.")
    >>> parse_assignments(Example, ["size=128", "widths=8,16"])
    {'size': 128, 'widths': (8, 16)}
    """
    values: dict[str, Any] = {}
    for text in assignments:
        key, equals, written = text.partition("=")
        if not equals:
            raise ParameterError(
                f"--set {prefix}{text[:80]}: expected key=value, for example --set {prefix}{_any_example(cls)}"
            )
        name, declared = find(cls, key.strip())
        if (
            name in cls.former_names() and declared.metadata["group"] is not None
        ):  # a flag that is now a group's presence
            values[name] = _scalar(written.strip().capitalize())
            continue
        if declared.metadata["group"] is not None and written.strip() not in _NONE:
            member = _example(cls, *next(iter(declared.metadata["group"].declared_deep(f"{name}."))))
            raise ParameterError(
                f"--set {prefix}{text[:80]}: {name} is a group; set its members, for example --set {prefix}{member}"
            )
        values[name] = _value(cls, name, declared, written.strip(), prefix)
    return values


def _value(cls: type[Parameters], name: str, declared: Field[object], written: str, prefix: str) -> Any:
    """Parse one value by its declaration."""
    facts = declared.metadata
    allowed: Allowed = facts["allowed"]
    tried = list(_readings(written, allowed)) if len(written) <= LONGEST else []
    for value in tried:
        if (
            _switches_off(cls, name, value)
            or (name not in cls.declared() and allowed.accepts(present(declared, value)))
            or (value is None and (facts["optional"] or facts["preset"]))
            or allowed.accepts(value)
        ):
            return value
    what = shortened(tried[0]) if tried else f"<{len(written):,} characters>"
    example = f"--set {prefix}{_example(cls, name, declared)}"
    raise ParameterError(f"--set {prefix}{name}={what} is not allowed; expected {allowed}, for example {example}")


def _switches_off(cls: type[Parameters], name: str, value: Any) -> bool:
    """Return true for a former name with the value that is now None for a group."""
    head = cls.former_names().get(name, "").partition(".")[0]
    return bool(head) and cls.declared()[head].metadata.get("off") == (name, value)


def _readings(written: str, allowed: Allowed) -> list[Any]:
    """Return possible readings of a text, likeliest first."""
    value = _scalar(written)
    if not _takes_tuples(allowed):
        return [value, written, *([None] if written in _NONE else [])]
    if isinstance(value, list):
        return [tuple(value)]
    inner = written
    if written[:1] + written[-1:] in ("()", "[]"):
        inner = written[1:-1]
    parts = [part.strip() for part in inner.rstrip(", ").split(",")]
    several = tuple(_scalar(part) for part in parts) if inner.strip() or inner is written else ()
    return (
        [value, several, *([None] if written in _NONE else [])] if inner is written and len(parts) == 1 else [several]
    )


def _scalar(written: str) -> Any:
    """Parse JSON, numbers such as .5 and 'quoted' text; return other text as it is."""
    if written in _WORDS:
        return _WORDS[written]
    try:
        return json.loads(written)
    except (ValueError, RecursionError):  # Text; numbers of thousands of digits; unlimited nesting.
        if _NUMBER.fullmatch(written):
            return float(written)
        quoted = len(written) > 1 and written[0] == written[-1] == "'"
        return written[1:-1] if quoted else written


def _takes_tuples(allowed: Allowed) -> bool:
    if isinstance(allowed, Either):
        return any(_takes_tuples(option) for option in allowed.options)
    return isinstance(allowed, Each)


def _any_example(cls: type[Parameters]) -> str:
    return _example(cls, *next((n, f) for n, f in cls.declared_deep() if f.metadata["group"] is None))


def _example(cls: type[Parameters], name: str, declared: Field[object]) -> str:
    """Return an assignment that works."""
    return f"{name}={_written(example_of(cls, name, declared))}"


def _written(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        return ",".join(_written(member) for member in value)
    return value if isinstance(value, str) else json.dumps(value)
