"""What somebody asks a benchmark for, in words, as parts: suites, protocols, sweeps, methods, hyperparameters."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from anomem.detectors import DETECTORS, get
from anomem.errors import InputError, ParameterError
from anomem.params import parse_assignments
from anomem.protocols.registry import PROTOCOLS, protocol_class
from anomem.protocols.suites import SUITES, Part
from anomem.protocols.sweep import SWEEPS
from anomem.protocols.units import Variant

__all__ = ["known_names", "parse_settings", "parts_of"]

DEFAULT_METHOD = "anomem"
_SWEEP = "sweep:"

Assigned = dict[str, dict[str, Any]]
"""Of a method or protocol, by its name, the values of its parameters."""


def known_names() -> list[str]:
    """Everything that can be asked for by one word."""
    return [*SUITES, *PROTOCOLS, *(f"{_SWEEP}{name}" for name in SWEEPS)]


def parse_settings(assignments: Sequence[str]) -> Assigned:
    """Sort ``name.key=value`` strings by the method or protocol that they are for; values as for ``anomem fit --set``.

    Raises
    ------
    ParameterError
        For a string of another form, an unknown name or an unknown parameter.

    Examples
    --------
    >>> parse_settings(["knn.k=3", "few-labels.draws=2"])
    {'knn': {'k': 3}, 'few-labels': {'draws': 2}}
    """
    found: Assigned = {}
    for text in assignments:
        name, dot, rest = text.partition(".")
        if not dot or "=" in name:
            raise ParameterError(f"--set {text}: expected method.key=value, for example --set anomem.beta=16")
        kind: Any = get(name) if name in DETECTORS else protocol_class(name) if name in PROTOCOLS else None
        if kind is None:
            raise ParameterError(f"--set {text}: {name!r} is no method and no protocol{_hint(name)}")
        found.setdefault(name, {}).update(parse_assignments(kind, [rest]))
    return found


def parts_of(
    names: Sequence[str], *, methods: Sequence[str] = (), data: Sequence[str] = (), assigned: Mapping[str, Any]
) -> list[Part]:
    """Turn names into parts.

    Parameters
    ----------
    names : sequence of str
        Suites, protocols, or ``sweep:NAME``.
    methods : sequence of str
        Of suites those that are wanted; of protocols those that take part, by default AnoMem, and of a sweep the one
        that it is about.
    data : sequence of str
        Of protocols the image sets.
    assigned : mapping
        Of :func:`parse_settings`.

    Raises
    ------
    InputError, ParameterError
        An unknown name; a protocol without image sets; a suite that has none of the methods.
    """
    for method in methods:
        get(method)
    parts: list[Part] = []
    for name in names:
        if name in SUITES:
            parts += _of_suite(name, methods)
        elif name in PROTOCOLS or name.removeprefix(_SWEEP) in SWEEPS:
            parts.append(_of_protocol(name, methods, data))
        else:
            raise InputError(f"no suite, protocol or sweep {name!r}{_hint(name)}")
    return [_with(part, assigned) for part in parts]


def _of_suite(name: str, methods: Sequence[str]) -> list[Part]:
    if not methods:
        return list(SUITES[name])
    kept = [
        replace(part, variants=chosen)
        for part in SUITES[name]
        if (chosen := tuple(variant for variant in part.variants if variant.method in methods))
    ]
    if not kept:
        raise InputError(f"suite {name} has no part with {', '.join(methods)}")
    return kept


def _of_protocol(name: str, methods: Sequence[str], data: Sequence[str]) -> Part:
    if not data:
        raise InputError(f"{name}: on which images? name a set with --data, for example --data textures/brick")
    options: dict[str, Any] = {}
    default = DEFAULT_METHOD
    if name.startswith(_SWEEP):
        options = {"of": name.removeprefix(_SWEEP)}
        default = SWEEPS[options["of"]].method or default
    variants = tuple(Variant(method) for method in methods or (default,))
    return Part("sweep" if options else name, tuple(data), variants, options)


def _with(part: Part, assigned: Mapping[str, Any]) -> Part:
    variants = tuple(
        replace(variant, params={**variant.params, **assigned.get(variant.method, {})}) for variant in part.variants
    )
    return replace(part, variants=variants, options={**part.options, **assigned.get(part.protocol, {})})


def _hint(name: str) -> str:
    names = [*known_names(), *DETECTORS]
    near = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {near[0]}?" if near else "; known: " + ", ".join(known_names())
