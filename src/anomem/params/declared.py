"""Hyperparameters that are declared, validated and cloneable.

A class of hyperparameters is declared with :func:`parameters`, a group of them within it with :func:`parameter_group`.
Each field is declared with :func:`param`, which holds its default, its allowed values and its documentation, or with
:func:`group`. Everything else (``get_params``, ``clone``, ``repr``, the command line's ``--set``, the manifest, the
class docstring, the tables of the docs) derives from that declaration. ``__init__`` only assigns: values are checked by
:meth:`Parameters.resolve`, which ``fit`` calls.

Examples
--------
>>> from anomem.params import Range
>>> @parameter_group
... class Views(Parameters):
...     crop: float = param(0.2, Range(0.0, 1.0), doc="Smallest share of the area that a crop keeps.")
>>> @parameters
... class Ridge(Parameters):
...     penalty: float = param(1.0, Range(0.0, low_open=True), doc="Strength of the penalty.")
...     views: Views = group(Views, doc="Strengths of the views.")
>>> Ridge(penalty=2.0, views=Views(crop=0.5))
Ridge(penalty=2.0, views=Views(crop=0.5))
>>> Ridge().set_params(views__crop=0.1).resolve().views.crop
0.1
>>> Ridge(penalty=-1.0).resolve()
Traceback (most recent call last):
...
anomem.errors.ParameterError: Ridge: penalty=-1.0 is not allowed; expected a number > 0, for example penalty=1.0
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar, dataclass_transform

import numpy as np

from anomem.errors import ParameterError
from anomem.params.allowed import Allowed, OneOf, same, shortened, shown
from anomem.params.effect import require_effects

T = TypeVar("T")
S = TypeVar("S", bound="Parameters")


class ByPreset:
    """Type of :data:`BY_PRESET`."""

    def __repr__(self) -> str:
        return "BY_PRESET"

    def __copy__(self) -> ByPreset:
        return self

    def __deepcopy__(self, memo: object) -> ByPreset:
        return self

    def __reduce__(self) -> str:
        return "BY_PRESET"


BY_PRESET = ByPreset()
"""Default of parameters that a preset decides and for which None is a valid value."""


def param(
    default: object,
    allowed: Allowed,
    *,
    doc: str,
    optional: bool = False,
    preset: bool = False,
    when: str | None = None,
    former: Mapping[object, object] | None = None,
) -> Any:
    """Declare one hyperparameter: its default, its allowed values, its documentation.

    Parameters
    ----------
    default : object
        Default value; where a preset may decide, the value for presets that do not name the parameter.
    allowed : Allowed
        Allowed values.
    doc : str
        One or two sentences for docstrings, docs and ``anomem methods``.
    optional : bool
        Allow None ("off").
    preset : bool
        Leave the value to the preset unless given.
    when : str, optional
        Condition without which the parameter has no effect (see :mod:`anomem.params.effect`); a value other than the
        default is then refused.
    former : mapping, optional
        Values under the parameter's former name -> present values.
    """
    start = default if not preset else BY_PRESET if optional else None
    return field(
        default=start,
        metadata={
            "allowed": allowed,
            "doc": doc,
            "optional": optional,
            "preset": preset,
            "usual": default,
            "group": None,
            "when": when,
            "former": former or {},
        },
    )


def group(
    kind: Callable[[], T],
    *,
    doc: str,
    optional: bool = False,
    off: tuple[str, object] | None = None,
    preset: bool = False,
    when: str | None = None,
) -> Any:
    """Declare a group of hyperparameters that a method holds as one nested object.

    Parameters
    ----------
    kind : class
        Class made by :func:`parameter_group`; its defaults are the default.
    doc : str
        One or two sentences, as for :func:`param`.
    optional : bool
        Allow None: the group's part of the method is off.
    off : (str, object), optional
        Former flat parameter, and its value that meant None.
    preset : bool
        Leave the group to the preset unless given; off where the preset names nothing.
    when : str, optional
        As for :func:`param`.
    """
    return field(
        default=BY_PRESET if preset else kind(),
        metadata={
            "allowed": OfGroup(kind, optional),
            "doc": doc,
            "optional": optional,
            "preset": preset,
            "usual": None if preset else kind(),
            "group": kind,
            "off": off,
            "when": when,
        },
    )


@dataclass(frozen=True)
class OfGroup:
    """An object of a group's class."""

    kind: Any
    optional: bool

    def accepts(self, value: object) -> bool:
        """Return true for an object of the class."""
        return isinstance(value, self.kind)

    def example(self) -> object:
        """Return an object with all defaults."""
        return self.kind()

    def __str__(self) -> str:
        return f"{self.kind.__name__}(...)" + (" or None" if self.optional else "")


@dataclass_transform(kw_only_default=True, eq_default=False)
def parameters(cls: type[T]) -> type[T]:
    """Make a class of hyperparameters: a keyword-only dataclass with its parameters in its docstring."""
    return _finished(dataclass(kw_only=True, repr=False, eq=False)(cls))


@dataclass_transform(kw_only_default=True, frozen_default=True)
def parameter_group(cls: type[T]) -> type[T]:
    """Make a frozen class of hyperparameters that others hold as one nested object."""
    return _finished(dataclass(kw_only=True, repr=False, frozen=True)(cls))


def _finished(cls: type[T]) -> type[T]:
    """Extend ``__init__`` to nested and former names, and write the parameters into the docstring."""
    from anomem.params.describe import with_parameters
    from anomem.params.names import nested

    plain: Callable[..., None] = cls.__init__

    @functools.wraps(plain)
    def init(self: Parameters, /, **values: Any) -> None:
        plain(self, **nested(type(self), values))

    cls.__init__ = init  # type: ignore[assignment]
    cls.__doc__ = with_parameters(cls)
    return cls


class Parameters:
    """Base of all classes configured by declared hyperparameters."""

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Values per preset; members of a group by their dotted name."""
    moved: ClassVar[Mapping[str, str]] = {}
    """Map from former names, which warn for one version, to dotted new ones; those of base classes count too."""

    @classmethod
    def former_names(cls) -> dict[str, str]:
        """Return `moved` of this class and its base classes."""
        return {old: new for kind in reversed(cls.__mro__) for old, new in vars(kind).get("moved", {}).items()}

    @classmethod
    def declared(cls) -> dict[str, Field[object]]:
        """Name -> dataclass field of every declared hyperparameter, in order."""
        return {f.name: f for f in fields(cls) if "allowed" in f.metadata}  # type: ignore[arg-type]

    @classmethod
    def declared_deep(cls, path: str = "") -> Iterator[tuple[str, Field[object]]]:
        """Yield dotted name and field of every declared hyperparameter, members after their group."""
        for name, declared in cls.declared().items():
            yield path + name, declared
            if declared.metadata["group"] is not None:
                yield from declared.metadata["group"].declared_deep(f"{path}{name}.")

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the hyperparameters as they were given.

        Parameters
        ----------
        deep : bool
            Add the members of nested objects as ``group__member``, as scikit-learn does.
        """
        given = {name: getattr(self, name) for name in self.declared()}
        if not deep:
            return given
        members = {
            f"{name}__{member}": value
            for name, held in given.items()
            if isinstance(held, Parameters)
            for member, value in held.get_params().items()
        }
        return given | members

    def set_params(self, **values: object) -> Self:
        """Assign hyperparameters by name; members of a nested object by ``group__member`` or ``group.member``.

        Raises
        ------
        ParameterError
            For a name that this class does not declare; the nearest name is suggested.
        """
        from anomem.params.names import nested

        for name, value in nested(type(self), values, self.get_params(deep=False)).items():
            setattr(self, name, value)
        return self

    def replaced(self, **values: object) -> Self:
        """Return a copy with some hyperparameters changed; names as for :meth:`set_params`."""
        from anomem.params.names import nested

        given = self.get_params(deep=False)
        return type(self)(**given | nested(type(self), values, given))

    def clone(self) -> Self:
        """Return an unfitted copy with equal hyperparameters."""
        return type(self)(**copy.deepcopy(self.get_params(deep=False)))

    def resolve(self, *, strict: bool = True) -> Self:
        """Return a frozen copy with the preset's values filled in, all checked.

        Parameters
        ----------
        strict : bool
            Refuse values that have no effect; not for those of an earlier fit, where a preset's are among them.

        Raises
        ------
        ParameterError
            If a value is not allowed or has no effect; the line names the parameter, its value and a fix.
        """
        preset = getattr(self, "preset", "")
        allowed = OneOf(tuple(self.presets))
        if self.presets and not allowed.accepts(preset):
            refuse(type(self), "preset", preset, allowed, example=next(iter(self.presets)))
        return _resolved(self, type(self), self.presets.get(preset, {}), "", strict=strict)

    def to_dict(self) -> dict[str, Any]:
        """Return the hyperparameters as a nested dict of JSON values, without values decided by a preset.

        Arrays are returned unchanged.
        """
        return {name: _plain(value) for name, value in self.get_params(deep=False).items() if value is not BY_PRESET}

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> Self:
        """Build an object from :meth:`to_dict`'s result, or from that of a version with former names."""
        from anomem.params.names import nested

        tuples = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
        return cls(**nested(cls, tuples, warn=False))

    def keys(self) -> list[str]:
        """Return the names, so that ``dict(resolved)`` gives a mapping."""
        return list(self.declared())

    def __getitem__(self, name: str) -> Any:
        """Return the value of a name, which may be dotted (``views.crop``); None behind a group that is off."""
        head, _, rest = name.partition(".")
        if head not in self.declared():
            raise KeyError(name)
        value = getattr(self, head)
        return value if not rest else None if value is None else value[rest]

    def __setattr__(self, name: str, value: object) -> None:
        if self.__dict__.get("_resolved", False):
            raise AttributeError(f"{type(self).__name__}: {name} is fixed once resolved; change it before the fit")
        super().__setattr__(name, value)

    def __repr__(self) -> str:
        given = [
            f"{name}={shown(getattr(self, name))}"
            for name, declared in self.declared().items()
            if not same(getattr(self, name), declared.default)
        ]
        return f"{type(self).__name__}({', '.join(given)})"


def refuse(cls: type[Parameters], name: str, value: object, allowed: Allowed, *, example: object) -> None:
    """Raise the error that names the parameter, its value, the allowed values and an example."""
    line = f"{cls.__name__}: {name}={shortened(value)} is not allowed; expected {allowed}"
    raise ParameterError(f"{line}, for example {name}={shown(example)}")


def example_of(cls: type[Parameters], name: str, declared: Field[object]) -> object:
    """Return an allowed value of a parameter (dotted name): the default, else a preset's."""
    allowed, usual = declared.metadata["allowed"], declared.metadata["usual"]
    for value in (usual, *(filling.get(name) for filling in cls.presets.values())):
        if allowed.accepts(value):
            return value
    return allowed.example()


def _resolved(held: S, owner: type[Parameters], filling: Mapping[str, Any], path: str, *, strict: bool) -> S:
    resolved: dict[str, Any] = {}
    for name, declared in held.declared().items():
        value, facts = getattr(held, name), declared.metadata
        by_preset = facts["preset"] and (value is BY_PRESET or (value is None and not facts["optional"]))
        if by_preset:
            value = filling.get(path + name, facts["usual"])
        off = value is None and (facts["optional"] or by_preset)
        if not off and not facts["allowed"].accepts(value):
            example = example_of(owner, path + name, declared)
            refuse(owner, path + name, value, facts["allowed"], example=example)
        if isinstance(value, Parameters):
            value = _resolved(value, owner, filling, f"{path}{name}.", strict=strict)
        resolved[name] = tuple(value) if isinstance(value, list) else value
    copied = type(held)(**resolved)
    object.__setattr__(copied, "_resolved", True)
    if strict:
        require_effects(held, copied, owner.__name__, filling, path)
    return copied


def _plain(value: Any) -> Any:
    if isinstance(value, Parameters):
        return value.to_dict()
    if isinstance(value, (tuple, list)):
        return [_plain(member) for member in value]
    if isinstance(value, Path):
        return str(value)
    return value.item() if isinstance(value, np.generic) else value


__all__ = [
    "BY_PRESET",
    "OfGroup",
    "Parameters",
    "example_of",
    "group",
    "param",
    "parameter_group",
    "parameters",
    "refuse",
]
