"""Planning: from requested suites, protocols and sets to units of work, with a list of what is left out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from anomem.benchmark.image_sets import BenchmarkSet, expand, open_bench_set
from anomem.benchmark.protocols.base import attainable
from anomem.benchmark.protocols.registry import PROTOCOLS, new_protocol, protocol_class
from anomem.benchmark.protocols.sweep import SWEEPS
from anomem.benchmark.suites import SUITES, Part
from anomem.benchmark.unit import Task, Unit, Variant
from anomem.data.catalog import CATALOG
from anomem.detectors import DETECTORS, get
from anomem.errors import InputError, ParameterError, suggestion
from anomem.params import parse_assignments

__all__ = ["Plan", "Wanted", "plan"]

OPEN_SETS = 3
"""Image sets kept open while planning."""


@dataclass(frozen=True)
class Wanted:
    """Filters and limits of a benchmark.

    Parameters
    ----------
    root : Path or None
        Folder of the sets of the catalogue.
    seeds : tuple of int
        Replace the parts' seeds; empty: keep those.
    limit : int or None
        Maximum number of images per kind.
    dry_steps : int or None
        Maximum number of optimiser steps.
    data : tuple of str
        Replace the parts' sets or, with `narrow`, select from them; empty: keep those.
    narrow : bool
        True where `data` selects from the parts' sets.
    """

    root: Path | None = None
    seeds: tuple[int, ...] = ()
    limit: int | None = None
    dry_steps: int | None = None
    data: tuple[str, ...] = ()
    narrow: bool = True


@dataclass(frozen=True)
class Plan:
    """Units in execution order, each once, and a line for each part left out."""

    units: tuple[Unit, ...]
    left_out: tuple[str, ...]


def plan(parts: Sequence[Part], wanted: Wanted) -> Plan:
    """List the units of some parts.

    Absent sets, unknown methods, and tasks that do not suit a set or method are left out, each with a line. An absent
    set that was requested by name is an error.

    Raises
    ------
    InputError, ParameterError
        A requested set cannot be used; a value is outside its range; no unit is left.
    """
    planner = _Planner(wanted)
    units: dict[str, Unit] = {}
    for part in parts:
        for unit in planner.units(part):
            units.setdefault(unit.key, unit)
    for name in set(wanted.data) - planner.used if wanted.narrow else ():
        raise InputError(f"--data {name}: no requested suite or protocol uses it; leave it out")
    if not units:
        raise InputError("no unit to run: " + ("; ".join(planner.left_out) or "no method takes part"))
    return Plan(tuple(units.values()), tuple(planner.left_out))


class _Planner:
    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted
        self.left_out: dict[str, None] = {}
        self.used: set[str] = set()
        self._sets: dict[str, BenchmarkSet] = {}
        self._expanded: dict[str, list[str]] = {}

    def units(self, part: Part) -> Iterator[Unit]:
        variants = [variant for variant in part.variants if self._there(variant)]
        if not variants:
            return
        for variant in variants:
            get(variant.method)(**variant.params).resolve()
        protocol = new_protocol(part.protocol, part.options)
        seeds = self.wanted.seeds or part.seeds
        pairs = protocol.expanded(variants)
        for name in self._names(part):
            try:
                data = self._opened(name)
                # Protocols check that a set suits them while they list their tasks.
                listed = [(variant, point.seeds, list(point.tasks(data, self._opened))) for variant, point in pairs]
            except InputError as error:
                self._leave_out(_of(name, error))
                continue
            for variant, own_seeds, tasks in listed:
                for seed in seeds or own_seeds:
                    yield from self._units_of(tasks, variant, seed)

    def _units_of(self, tasks: Sequence[Task | str], variant: Variant, seed: int) -> Iterator[Unit]:
        for task in tasks:
            if isinstance(task, str):
                self._leave_out(task, fatal=False)
            elif attainable(variant.method, task):
                yield Unit(task, variant, seed, self.wanted.limit, self.wanted.dry_steps)

    def _names(self, part: Part) -> Iterator[str]:
        """Yield names of sets, one per category that is present."""
        chosen = self.wanted.data or part.data
        for asked in chosen:
            if asked not in self._expanded:
                try:
                    found, absent = expand(asked, self.wanted.root)
                except InputError as error:
                    self._leave_out(_of(asked, error))
                    continue
                self._expanded[asked] = found
                if absent:
                    self._leave_out(f"{asked}: no copies of {', '.join(absent)}", fatal=False)
            for name in self._expanded[asked]:
                if not self.wanted.narrow or not self.wanted.data or _serves(name, part.data):
                    self.used.add(asked)
                    yield name

    def _there(self, variant: Variant) -> bool:
        if variant.method not in DETECTORS:
            self._leave_out(f"{variant.method}: no such method in this version", fatal=False)
        return variant.method in DETECTORS

    def _opened(self, name: str) -> BenchmarkSet:
        if name not in self._sets:
            while len(self._sets) >= OPEN_SETS:
                self._sets.pop(next(iter(self._sets)))
            self._sets[name] = open_bench_set(name, self.wanted.root).thinned(self.wanted.limit)
        return self._sets[name]

    def _leave_out(self, why: str, *, fatal: bool = True) -> None:
        if fatal and self.wanted.data:
            raise InputError(why)
        self.left_out[why] = None


def _of(name: str, error: InputError) -> str:
    """Return the error of a set, with its name first where the message lacks it."""
    return str(error) if name in str(error) else f"{name}: {error}"


def _serves(name: str, names: Sequence[str]) -> bool:
    """Return True where a set is among some names, or is a category of one of them."""
    whole = name.partition("/")[0]
    return name in names or (whole in names and whole.partition(":")[0] in CATALOG)


__all__ = ["known_names", "parse_settings", "parts_of"]

DEFAULT_METHOD = "anomem"

_SWEEP = "sweep:"

Assigned = dict[str, dict[str, Any]]
"""Name of a method or protocol -> values of its parameters."""


def known_names() -> list[str]:
    """Return the names of all suites, protocols and sweeps."""
    return [*SUITES, *PROTOCOLS, *(f"{_SWEEP}{name}" for name in SWEEPS)]


def parse_settings(assignments: Sequence[str]) -> Assigned:
    """Group ``name.key=value`` strings by method or protocol; values as for ``anomem fit --set``.

    Raises
    ------
    ParameterError
        A string has another form, or a name or parameter is unknown.

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
            raise ParameterError(f"--set {text}: {name!r} is neither a method nor a protocol{_hint(name)}")
        found.setdefault(name, {}).update(parse_assignments(kind, [rest], prefix=f"{name}."))
    return found


def parts_of(
    names: Sequence[str], *, methods: Sequence[str] = (), data: Sequence[str] = (), assigned: Mapping[str, Any]
) -> list[Part]:
    """Parse bench arguments into suite parts.

    Parameters
    ----------
    names : sequence of str
        Suites, protocols, or ``sweep:NAME``.
    methods : sequence of str
        Methods to keep of a suite; methods to run a protocol with, by default AnoMem, or the method of a sweep.
    data : sequence of str
        Image sets of protocols and sweeps.
    assigned : mapping
        From :func:`parse_settings`.

    Raises
    ------
    InputError, ParameterError
        A name is unknown; a protocol has no image sets; a suite has none of the methods.
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
        raise InputError(f"{name}: no image set; name one with --data, for example --data textures/brick")
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
    return "; " + suggestion(name, known_names(), among=[*known_names(), *DETECTORS])
