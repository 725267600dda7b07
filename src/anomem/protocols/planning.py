"""From what is asked for to units of work; whatever is left out is said."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from anomem.data.catalog import CATALOG
from anomem.detectors import DETECTORS, get
from anomem.errors import InputError
from anomem.protocols.datasets import BenchSet, expand, open_bench_set
from anomem.protocols.protocol import attainable
from anomem.protocols.registry import new_protocol
from anomem.protocols.suites import Part
from anomem.protocols.units import Task, Unit, Variant

__all__ = ["Plan", "Wanted", "plan"]

OPEN_SETS = 3
"""Image sets that stay open while planning."""


@dataclass(frozen=True)
class Wanted:
    """What narrows a benchmark down.

    Parameters
    ----------
    root : Path or None
        Folder of the sets of the catalogue.
    seeds : tuple of int
        In place of the parts' own; empty: theirs.
    limit : int or None
        Images of each kind at most.
    dry_steps : int or None
        Optimiser steps at most.
    data : tuple of str
        Sets in place of the parts' own, or, with `narrow`, those of the parts' that are wanted; empty: theirs.
    narrow : bool
        What `data` means.
    """

    root: Path | None = None
    seeds: tuple[int, ...] = ()
    limit: int | None = None
    dry_steps: int | None = None
    data: tuple[str, ...] = ()
    narrow: bool = True


@dataclass(frozen=True)
class Plan:
    """Units in the order in which they are done, each once, and what was left out."""

    units: tuple[Unit, ...]
    left_out: tuple[str, ...]


def plan(parts: Sequence[Part], wanted: Wanted) -> Plan:
    """List the units of some parts.

    Sets whose copies are absent, methods that this version does not have, tasks that a set or a method cannot serve:
    each is left out with a line. A set that was asked for by name and is absent is an error.

    Raises
    ------
    InputError, ParameterError
        A set asked for cannot be used; a value outside its range; nothing is left to do.
    """
    planner = _Planner(wanted)
    units: dict[str, Unit] = {}
    for part in parts:
        for unit in planner.units(part):
            units.setdefault(unit.key, unit)
    for name in set(wanted.data) - planner.used if wanted.narrow else ():
        raise InputError(f"--data {name}: no part of what is run uses it")
    if not units:
        raise InputError("there is nothing to do: " + ("; ".join(planner.left_out) or "no method takes part"))
    return Plan(tuple(units.values()), tuple(planner.left_out))


class _Planner:
    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted
        self.left_out: dict[str, None] = {}
        self.used: set[str] = set()
        self._sets: dict[str, BenchSet] = {}
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
                # A protocol finds out about a set that does not suit it as it lists its tasks.
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
        """Names of sets, one for each category that is there."""
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
            self._leave_out(f"{variant.method}: this version has no such method", fatal=False)
        return variant.method in DETECTORS

    def _opened(self, name: str) -> BenchSet:
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
    """What is wrong with a set; its name first, where the line does not hold it."""
    return str(error) if name in str(error) else f"{name}: {error}"


def _serves(name: str, names: Sequence[str]) -> bool:
    """Whether a set is one of some names, or a category of one of them."""
    whole = name.partition("/")[0]
    return name in names or (whole in names and whole.partition(":")[0] in CATALOG)
