"""Sweeps: one hyperparameter at several values, a protocol repeated at each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from anomem.benchmark.image_sets import BenchmarkSet
from anomem.benchmark.judging import Findings
from anomem.benchmark.protocols.base import Opener, Protocol
from anomem.benchmark.protocols.registry import new_protocol
from anomem.benchmark.unit import Task, Unit, Variant
from anomem.benchmark.workspace import Workspace
from anomem.errors import InputError, ParameterError
from anomem.params import OneOf, param, parameters

__all__ = ["SWEEPS", "Axis", "Sweep"]


@dataclass(frozen=True, kw_only=True)
class Axis:
    """Axis of a sweep: the parameter that varies, and its values.

    Parameters
    ----------
    protocol : str
        Protocol repeated at every value.
    method : str
        Method whose hyperparameter varies; empty: an option of the protocol varies.
    parameter : str
        Name of the parameter.
    values : tuple
        Its values.
    params : mapping
        Further hyperparameters, the same at all values.
    options : mapping
        Options of the protocol.
    shown : str
        Paper, table or figure that shows it.
    """

    protocol: str
    method: str
    parameter: str
    values: tuple[Any, ...]
    params: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    shown: str = ""


_TWO_SCALES: dict[str, Any] = {"stages": (3, 4), "embedding": False, "scale_weights": (1.0, 2.0)}
_TWO_SCALES |= {"neighbourhood": (1,), "max_grid": (28,)}

SWEEPS: dict[str, Axis] = {
    "memory-size": Axis(
        protocol="localisation",
        method="anomem",
        parameter="memory_size",
        values=((16,), (32,), (64,), (128,), (256,), (512,), (1024,), (2048,)),
        shown="AnoMem, Fig. 3 (a)",
    ),
    "memory-ratio": Axis(
        protocol="localisation",
        method="anomem",
        parameter="memory_size",
        values=((64, 256), (128, 256), (256, 256), (512, 256), (1024, 256)),
        params={**_TWO_SCALES, "memory_share": 1},
        shown="AnoMem, Fig. 3 (b)",
    ),
    "sampling-ratio": Axis(
        protocol="localisation",
        method="anomem",
        parameter="stage_one.contrast.ratios",
        values=((0.05, 1.0), (0.1, 1.0), (0.3, 1.0), (0.5, 1.0), (1.0, 1.0)),
        params={**_TWO_SCALES, "stage_one.steps": 100},
        shown="AnoMem, Fig. 4",
    ),
    "beta": Axis(
        protocol="localisation",
        method="anomem",
        parameter="beta",
        values=(1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, "hard"),
    ),
    "delta-h": Axis(
        protocol="localisation",
        method="pmb",
        parameter="error_share",
        values=(0.0, 0.25, 0.5, 0.75, 0.9),
        shown="PMB, Table VI and Fig. 8",
    ),
    "p": Axis(
        protocol="localisation",
        method="pmb",
        parameter="memory_levels",
        values=(1, 2, 3, 4, 5),
        shown="PMB, Fig. 9, settings B, D and E",
    ),
    "k": Axis(
        protocol="localisation",
        method="pmb",
        parameter="partitions",
        values=(
            *((2, 2, 2, 2, 2), (8, 8, 8, 8, 8), (16, 16, 16, 8, 8), (32, 16, 16, 8, 8)),
            *((32, 32, 16, 8, 8), (32, 16, 16, 16, 8), (32, 32, 16, 16, 8)),
        ),
        shown="PMB, Table VII",
    ),
    "constraint": Axis(
        protocol="one-vs-rest",
        method="plume",
        parameter="constraint_weight",
        values=(5.0, 10.0, 20.0),
        options={"gammas": (0.0,)},
        shown="PLUME, lambda of Eq. 8",
    ),
    "paper-memory-size": Axis(
        protocol="one-vs-rest",
        method="anomem",
        parameter="memory_size",
        values=((512, 16), (512, 32), (512, 64), (512, 128), (512, 256), (512, 512), (512, 1024)),
        options={"gammas": (0.0,)},
        shown="AnoMem, Fig. 3 (a)",
    ),
    "paper-memory-ratio": Axis(
        protocol="one-vs-rest",
        method="anomem",
        parameter="memory_size",
        values=((64, 256), (128, 256), (256, 256), (512, 256), (1024, 256)),
        options={"gammas": (0.0,)},
        shown="AnoMem, Fig. 3 (b)",
    ),
    "paper-sampling-ratio": Axis(
        protocol="one-vs-rest",
        method="anomem",
        parameter="stage_one.contrast.ratios",
        values=((0.05, 1.0), (0.1, 1.0), (0.3, 1.0), (0.5, 1.0), (1.0, 1.0)),
        options={"labels": "anew"},
        shown="AnoMem, Fig. 4",
    ),
    "separability": Axis(
        protocol="linear-evaluation",
        method="anomem",
        parameter="memory_size",
        values=((512, 16), (512, 32), (512, 64), (512, 128), (512, 256), (512, 512), (512, 1024)),
        shown="AnoMem, Fig. 3 (a)",
    ),
    "digits-k": Axis(
        protocol="one-vs-rest",
        method="pmb",
        parameter="partitions",
        values=((1, 1, 1), (2, 2, 2), (4, 4, 4), (8, 8, 1)),
        options={"gammas": (0.0,)},
        shown="PMB, Table VIII",
    ),
    "oct-k": Axis(
        protocol="localisation",
        method="pmb",
        parameter="partitions",
        values=((1, 1, 1), (2, 2, 2), (4, 4, 4)),
        shown="PMB, Table VIII",
    ),
    "gamma": Axis(
        protocol="one-vs-rest",
        method="",
        parameter="gammas",
        values=((0.0,), (0.01,), (0.02,), (0.05,), (0.1,), (0.2,)),
        shown="AnoMem, Table 1",
    ),
}


@parameters
class Sweep(Protocol):
    """Sweep of `SWEEPS`, by name.

    Parameters
    ----------
    of : str, default "memory-size"
        Its name.
    """

    name: ClassVar[str] = "sweep"

    of: str = param("memory-size", OneOf(tuple(SWEEPS)), doc="Which sweep.")

    def expanded(self, variants: Sequence[Variant]) -> list[tuple[Variant, Protocol]]:
        """Return the sweep's variants at every value, each with the repeated protocol.

        Raises
        ------
        InputError
            None of the variants is of the sweep's method.
        """
        name = self.options()["of"]
        axis = SWEEPS[name]
        fitting = [variant for variant in variants if axis.method in ("", variant.method)]
        if not fitting:
            raise InputError(f"sweep {name}: needs {axis.method}; name it with --methods {axis.method}")
        pairs: list[tuple[Variant, Protocol]] = []
        for variant in fitting:
            if axis.parameter in variant.params:
                raise ParameterError(f"{axis.parameter}: varied by the sweep {name}; do not set it")
            for value in axis.values:
                sweep = {"name": name, "parameter": axis.parameter, "value": value}
                own = {axis.parameter: value} if axis.method else {}
                options = axis.options if axis.method else {**axis.options, axis.parameter: value}
                params = {**axis.params, **variant.params, **own}
                point = Variant(variant.method, params, variant.label, sweep)
                pairs.append((point, new_protocol(axis.protocol, options)))
        return pairs

    def tasks(self, data: BenchmarkSet, opened: Opener) -> Iterator[Task | str]:
        """Raise: points of a sweep are tasks of the protocol that it repeats."""
        raise TypeError("the points of a sweep are tasks of another protocol")

    def run(self, unit: Unit, work: Workspace) -> Findings:
        """Raise: points of a sweep are units of the protocol that it repeats."""
        raise TypeError("the points of a sweep are units of another protocol")
