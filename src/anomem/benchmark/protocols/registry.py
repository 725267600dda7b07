"""Protocols by name; a class is imported on first use."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from anomem.errors import ParameterError, suggestion

if TYPE_CHECKING:
    from anomem.benchmark.protocols.base import Protocol

__all__ = ["PROTOCOLS", "new_protocol", "protocol_class"]

PROTOCOLS: dict[str, str] = {
    "one-vs-rest": "anomem.benchmark.protocols.one_vs_rest:OneVsRest",
    "few-labels": "anomem.benchmark.protocols.few_labels:FewLabels",
    "cross-type": "anomem.benchmark.protocols.cross_type:CrossType",
    "out-of-distribution": "anomem.benchmark.protocols.out_of_distribution:OutOfDistribution",
    "localisation": "anomem.benchmark.protocols.localisation:Localisation",
    "disturbed": "anomem.benchmark.protocols.localisation:Disturbed",
    "linear-evaluation": "anomem.benchmark.protocols.representation:LinearEvaluation",
    "distance-variance": "anomem.benchmark.protocols.representation:DistanceVariance",
    "promise": "anomem.benchmark.protocols.false_alarm_rate:Promise",
    "batches": "anomem.benchmark.protocols.batches:Batches",
    "shift": "anomem.benchmark.protocols.shift:Shift",
    "sweep": "anomem.benchmark.protocols.sweep:Sweep",
}


def protocol_class(name: str) -> type[Protocol]:
    """Return the protocol class of a name.

    Raises
    ------
    ParameterError
        The name is unknown; the nearest known one is suggested.
    """
    if name not in PROTOCOLS:
        raise ParameterError(f"no protocol {name!r}; {suggestion(name, PROTOCOLS)}")
    module, _, attribute = PROTOCOLS[name].partition(":")
    found: type[Protocol] = getattr(import_module(module), attribute)
    return found


def new_protocol(name: str, options: Mapping[str, Any] | None = None) -> Protocol:
    """Return a protocol with checked options.

    Raises
    ------
    ParameterError
        A name or option is unknown, or a value is outside its range.
    """
    kind = protocol_class(name)
    made = kind().set_params(**(options or {}))
    made.resolve()
    return made
