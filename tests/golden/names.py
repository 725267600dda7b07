"""Names that differ between revisions of the package, for the comparison.

Everything here runs with revision ded235d and with the working tree. A rename adds the new name beside the old one.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import import_module
from inspect import signature
from typing import Any

MODULES = {
    "get": ("anomem.detectors",),
    "DETECTORS": ("anomem.detectors",),
    "crops": ("anomem.data.synthetic",),
    "plant": ("anomem.data.synthetic",),
    "DEFECTS": ("anomem.data.synthetic",),
}
"""Public function or constant -> modules that may hold it, newest first."""

TINY = ("test_params", "tiny_params")
"""Class attribute with hyperparameters that make a fit take a second."""

LABEL = ("label", "refit_labels")
"""Method that refits the second stage."""

PARAMETERS: dict[str, str] = {"plume.steps": "training__steps"}
"""Hyperparameter of ded235d -> its present name as ``set_params`` takes it, where it was renamed or nested.

A key may name its method: ``"anomem.train_steps": "stage_one__steps"``.
"""

SETTINGS: dict[str, dict[str, Any]] = {
    "anomem": {
        "stages": (1, 2, 3, 3, "blocks.5", "blocks.5"),
        "neighbourhood": (3, 3, 3, 1, 3, 1),
        "memory_size": (2048,),
        "scale_weights": (1.0, 1.0, 0.5, 0.5, 0.25, 0.25),
        "smoothing": 4.0,
        "fusion__position_prior": 200.0,
    },
    "fyd": {"edges": "even"},
}
"""Method -> its default settings at ded235d, under present names, where the defaults are others now.

Presets have their own; other stages than a preset's take the usual settings of what it sets per scale.
"""

PROTOCOLS: dict[str, tuple[str, ...]] = {"promise": ("false-alarm-rate", "promise")}
"""Protocol of ``anomem bench`` at ded235d -> its names, newest first."""


def public(name: str) -> Any:
    """Return a public function or constant, from whichever module holds it."""
    for module in MODULES[name]:
        try:
            return getattr(import_module(module), name)
        except (ModuleNotFoundError, AttributeError):
            continue
    raise ImportError(f"{name}: in none of {', '.join(MODULES[name])}; add its module to tests/golden/names.py")


def methods() -> list[str]:
    """Return the names of all methods."""
    return list(public("DETECTORS"))


def unfitted(method: str, params: dict[str, Any] | None = None, *, tiny: bool = True) -> Any:
    """Return an unfitted detector with its tiny parameters (or its defaults) of ded235d, changed by `params` of it."""
    cls = public("get")(method)
    settings = {} if "preset" in (params or {}) else _settings(method)
    given = {_present(method, name): value for name, value in (params or {}).items()}
    detector = cls(**settings | (_tiny(cls) if tiny else {}))
    return detector.set_params(**{**_without_effect(cls, detector, given), **given})


def arguments(method: str, prefix: str = "") -> list[str]:
    """Return command-line arguments for the defaults of ded235d."""
    settings = [f"{prefix}{name}={json.dumps(value)}" for name, value in _settings(method).items()]
    return [word for setting in settings for word in ("--set", setting)]


def _settings(method: str) -> dict[str, Any]:
    """Return a method's settings of ded235d that this revision knows."""
    known = public("get")(method)().get_params()
    return {name: value for name, value in SETTINGS.get(method, {}).items() if name in known}


def _without_effect(cls: Any, detector: Any, given: dict[str, Any]) -> dict[str, Any]:
    """Return the defaults of parameters that `given` deprives of their effect; ded235d accepts any value of those."""
    if "strict" not in signature(cls.resolve).parameters:
        return {}
    from anomem.params.effect import holds

    resolved = detector.clone().set_params(**given).resolve(strict=False)
    conditions = {name: field.metadata["when"] for name, field in cls.declared().items()}
    unused = [name for name, when in conditions.items() if when and name not in given and not holds(when, resolved)]
    return {name: cls.declared()[name].default for name in unused}


def options(function: Callable[..., Any], wanted: dict[str, Any]) -> dict[str, Any]:
    """Return the keyword arguments that a function has: ded235d lacks some, and does what these ask for."""
    return {name: value for name, value in wanted.items() if name in signature(function).parameters}


def has_parameter(method: str, name: str) -> bool:
    """Return True where a method has this parameter of ded235d, under its present name."""
    return _present(method, name) in public("get")(method)().get_params()


def label(detector: Any, images: Any, **options: Any) -> Any:
    """Refit the second stage to labelled defects."""
    refit = next(getattr(detector, name) for name in LABEL if hasattr(detector, name))
    return refit(images, **options)


def _tiny(cls: Any) -> dict[str, Any]:
    for name in TINY:
        if hasattr(cls, name):
            return dict(getattr(cls, name))
    raise AttributeError(f"{cls.__name__} has none of {', '.join(TINY)}; add its name to tests/golden/names.py")


def _present(method: str, name: str) -> str:
    return PARAMETERS.get(f"{method}.{name}", PARAMETERS.get(name, name))
