"""Checks of hyperparameters."""

from __future__ import annotations

import ast
from typing import Any

from anomem.errors import ParameterError
from anomem.params import Parameters
from anomem.testing.example import Example, refused, require


def init_only_assigns(example: Example) -> None:
    """Check that ``__init__`` assigns every argument unchanged, validates nothing and does nothing else."""
    marks: dict[str, Any] = {name: object() for name in example.cls.declared()}
    require(vars(example.cls(**marks)) == marks, "attributes are the arguments, and no others")


def clone_and_repr_round_trip(example: Example) -> None:
    """Check that ``clone``, ``repr``, ``get_params`` and ``set_params`` give the same detector again, unfitted."""
    detector = example.new(seed=7)
    params = detector.get_params()
    require(detector.clone().get_params() == params, "a clone has the same parameters")
    call = ast.parse(repr(detector), mode="eval").body
    require(isinstance(call, ast.Call), "repr is a call")
    require(_evaluated(call, example.cls).get_params() == params, f"{detector!r} evaluates to the same parameters")
    require(example.cls().set_params(**params).get_params() == params, "set_params takes what get_params gives")


def _evaluated(call: Any, kind: type[Parameters]) -> Parameters:
    """Evaluate a call whose arguments are literals, or calls that make nested objects."""
    groups = {name: declared.metadata["group"] for name, declared in kind.declared().items()}
    values = {
        k.arg: _evaluated(k.value, groups[k.arg]) if isinstance(k.value, ast.Call) else ast.literal_eval(k.value)
        for k in call.keywords
    }
    return kind(**values)


def wrong_parameters_are_named(example: Example) -> None:
    """Check that ``fit`` refuses a value out of range, and an unknown name, and names the parameter."""
    for name, _ in example.cls.declared_deep():
        detector = example.new(**{name: object()})
        line = refused(ParameterError, lambda d=detector: d.fit(example.train), name)  # type: ignore[misc]
        require(f"{name}=" in line, f"the error names {name}: {line}")
    refused(ParameterError, lambda: example.new().set_params(no_such_parameter=1), "an unknown parameter")


def presets_fill_in(example: Example) -> None:
    """Check that a preset fills in what is None, an explicit value wins, and attributes stay as given."""
    for preset, filling in example.cls.presets.items():
        detector = example.cls(preset=preset)  # type: ignore[call-arg]
        given = detector.get_params()
        resolved = detector.resolve()
        values = {name: value for name, value in filling.items() if not isinstance(value, Parameters)}
        require({k: resolved[k] for k in values} == values, f"preset {preset} fills in all its values")
        require(detector.get_params() == given, "resolving changes no attribute")
        explicit = example.new(preset=preset).resolve(strict=False)
        tiny = example.cls.test_params
        require({k: explicit[k] for k in tiny} == tiny, f"explicit values win over preset {preset}")
