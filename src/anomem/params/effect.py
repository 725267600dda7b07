"""Conditions under which a hyperparameter has an effect.

A condition is ``name=value|value``, or ``name`` alone for a parameter that is on (neither None, False nor 0); several
are joined by " or ". Names are those beside the parameter, dotted for members of a group; ``none`` is None.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from anomem.errors import ParameterError
from anomem.params.allowed import same, shortened, shown

if TYPE_CHECKING:
    from anomem.params.declared import Parameters


class Values(Protocol):
    """Resolved values by name."""

    def __getitem__(self, name: str, /) -> object:
        """Return the value of a name, which may be dotted."""


def holds(when: str, values: Values) -> bool:
    """Return True where any of the conditions is met."""
    return any(_met(condition, values) for condition in when.split(" or "))


def names(when: str) -> list[str]:
    """Return the parameters that the conditions depend on."""
    return [condition.partition("=")[0] for condition in when.split(" or ")]


def require_effects(given: Parameters, resolved: Parameters, owner: str, filling: Mapping[str, Any], path: str) -> None:
    """Refuse given values without effect; those of defaults and of the preset (`filling`) may have none.

    Raises
    ------
    ParameterError
        The conditions of a parameter are not met; the line names them and the fix.
    """
    for name, declared in given.declared().items():
        when, value = declared.metadata["when"], getattr(given, name)
        usual = filling.get(path + name, declared.metadata["usual"])
        if value is None and declared.metadata["group"] is not None:
            continue  # Off either way.
        if when is None or same(value, declared.default) or same(value, usual) or holds(when, resolved):
            continue
        found = " and ".join(f"{path}{other}={shown(resolved[other])}" for other in names(when))
        wanted = " or ".join(f"{path}{condition.replace('|', ' or ')}" for condition in when.split(" or "))
        line = f"{owner}: {path}{name}={shortened(value)} has no effect with {found}"
        raise ParameterError(f"{line}; set {wanted}, or leave {path}{name} out")


def _met(condition: str, values: Values) -> bool:
    name, _, allowed = condition.partition("=")
    value = values[name]
    if not allowed:
        return value is not None and value is not False and value != 0
    return ("none" if value is None else str(value)) in allowed.split("|")
