"""Names of hyperparameters: dotted members of groups, scikit-learn's ``a__b``, and former names."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import Field
from typing import Any

from anomem.errors import ParameterError, RenamedWarning, nearest
from anomem.params.declared import BY_PRESET, ByPreset, Parameters


def nested(
    cls: type[Parameters],
    values: Mapping[str, object],
    current: Mapping[str, object] | None = None,
    *,
    warn: bool = True,
) -> dict[str, Any]:
    """Convert values under nested and former names into values of the parameters that `cls` declares.

    Parameters
    ----------
    cls : class
        Class that declares the parameters.
    values : mapping
        Values by name, ``group.member``, ``group__member`` or former name.
    current : mapping, optional
        Current values of an object; for a group, the object whose other members stay. By default the class's defaults.
    warn : bool
        Warn of former names, naming the new spelling.

    Raises
    ------
    ParameterError
        For a name that `cls` does not declare (the nearest one is suggested), and for members of a group that is
        switched off by the same call.
    """
    declared = cls.declared()
    if values.keys() <= declared.keys() and not any(isinstance(value, dict) for value in values.values()):
        return dict(values)
    everything, moved = {name for name, _ in cls.declared_deep()}, cls.former_names()
    found: dict[str, Any] = {}
    members: dict[str, dict[str, Any]] = {}
    former: dict[str, Any] = {}
    for name, value in values.items():
        dotted = name.replace("__", ".")
        head, _, rest = dotted.partition(".")
        if name in moved and name not in declared:
            former[name] = value
        elif dotted not in everything:
            raise unknown(cls, name)
        elif rest:
            members.setdefault(head, {})[rest] = value
        elif isinstance(value, dict) and declared[head].metadata["group"] is not None:
            found[head] = declared[head].metadata["group"].from_dict(value)
        else:
            found[head] = value
    given = {**(current or {}), **found}
    for head, changes in _former(cls, former, given, warn=warn).items():
        if changes is None or head not in declared or declared[head].metadata["group"] is None:
            found[head] = changes
        else:
            members[head] = {**changes, **members.get(head, {})}
    for head, changes in members.items():
        if head in found and found[head] is None:
            raise ParameterError(f"{cls.__name__}: {head}=None contradicts {next(iter(changes))}; leave one out")
        base = found.get(head, given.get(head, declared[head].default))
        kind = declared[head].metadata["group"]
        if head in found and not isinstance(base, (kind, ByPreset)):
            continue  # Refused when resolved.
        found[head] = base.replaced(**changes) if isinstance(base, kind) else kind(**nested(kind, changes, warn=warn))
    return found


def current(cls: type[Parameters], values: Mapping[str, object]) -> dict[str, object]:
    """Return values under today's dotted names: former names converted, a group that they switch off as None.

    Names that `cls` does not declare stay, so that records of other versions can be read.
    """
    declared = cls.declared()
    moved = cls.former_names()
    former = {name: value for name, value in values.items() if name in moved and name not in declared}
    found: dict[str, object] = {}
    for name, value in values.items():
        if name not in former:
            dotted = name.replace("__", ".")
            found[dotted if dotted.partition(".")[0] in declared else name] = value
    for head, changes in _former(cls, former, found, warn=False).items():
        if isinstance(changes, dict) and declared[head].metadata["group"] is not None:
            found |= {f"{head}.{member}": value for member, value in changes.items()}
        else:
            found[head] = changes
    return found


def _former(
    cls: type[Parameters], values: Mapping[str, Any], given: Mapping[str, Any], *, warn: bool
) -> dict[str, Any]:
    """Return, by group, the members that former names give; None for a group that they switch off."""
    groups: dict[str, dict[str, Any] | None] = {}
    declared, moved = cls.declared(), cls.former_names()
    for name, value in values.items():
        new = moved[name]
        if warn:
            text = f"{cls.__name__}: {name} is now {new}; use the new name, the old one works in this version only"
            warnings.warn(text, RenamedWarning, stacklevel=5)
        head, _, rest = new.partition(".")
        if rest:
            changes = groups.setdefault(head, {})
            if changes is not None:
                changes[rest] = value
        elif declared[head].metadata["group"] is None:
            groups[head] = present(declared[head], value)
        else:  # A former flag that is now the presence of a group.
            groups.setdefault(head, {})
    for head in list(groups):
        off = declared[head].metadata.get("off")
        if off is None or not isinstance(groups[head], dict):
            continue
        switch, value = off
        if switch in values and values[switch] == value and type(values[switch]) is type(value):
            groups[head] = None
        elif switch not in values and given.get(head, declared[head].metadata["usual"]) in (None, BY_PRESET):
            del groups[head]  # No effect, then as now.
    return groups


def present(declared: Field[object], value: Any) -> Any:
    """Return the value that a parameter takes today for one under its former name."""
    former = declared.metadata.get("former")
    return former.get(value, value) if former and isinstance(value, (bool, int, float, str)) else value


def find(cls: type[Parameters], name: str) -> tuple[str, Field[object]]:
    """Return the dotted name and the field of a parameter by any of its spellings.

    Raises
    ------
    ParameterError
        For a name that `cls` does not declare; the nearest one is suggested.
    """
    everything = dict(cls.declared_deep())
    dotted = name if name in everything else name.replace("__", ".")
    new = cls.former_names().get(dotted, dotted)
    if new not in everything:
        raise unknown(cls, name)
    return (dotted if dotted in everything else name), everything[new]


def unknown(cls: type[Parameters], name: str) -> ParameterError:
    """Return the error for a name that `cls` does not declare."""
    names, moved = [dotted for dotted, _ in cls.declared_deep()], cls.former_names()
    near = nearest(name.replace("__", "."), [*names, *moved])
    hint = f"did you mean {moved.get(near, near)}?" if near else "known: " + ", ".join(names)
    return ParameterError(f"{cls.__name__}: no parameter {name!r}; {hint}")
