"""Descriptions of declared hyperparameters: for docstrings, ``anomem methods`` and the tables of the docs."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import Field
from typing import Any, TypedDict

from anomem.params.allowed import FLAG, shown
from anomem.params.declared import Parameters

_SECTIONS = re.compile(r"^(Notes|References|Examples|See Also|Attributes|Raises)\n-+$", re.MULTILINE)


class Description(TypedDict):
    """Description of one hyperparameter; ``name`` is dotted for members of a nested object."""

    name: str
    default: Any
    allowed: str
    preset: bool
    doc: str


def describe(cls: type[Parameters]) -> list[Description]:
    """Return descriptions of all hyperparameters of a class, members of nested objects after their group."""
    return [
        {
            "name": name,
            "default": _default(declared),
            "allowed": str(declared.metadata["allowed"]),
            "preset": bool(declared.metadata["preset"]),
            "doc": declared.metadata["doc"],
        }
        for name, declared in cls.declared_deep()
    ]


def with_parameters(cls: type[Any]) -> str | None:
    """Return a class's docstring with a Parameters section made from its declarations."""
    written = cls.__dict__.get("__doc__")
    if not written or re.search(r"^\s*Parameters\n\s*-+$", written, re.MULTILINE):
        return written
    text = _dedented(written).rstrip()
    section = "\n".join(["Parameters", "----------", *_numpydoc(cls)])
    found = _SECTIONS.search(text)
    if found is None:
        return f"{text}\n\n{section}\n"
    return f"{text[: found.start()]}{section}\n\n{text[found.start() :]}\n"


def table(cls: type[Parameters], *, but: type[Parameters] | None = None) -> str:
    """Return the hyperparameters of a class as a Markdown table.

    Parameters
    ----------
    cls : class
        Class that declares the hyperparameters.
    but : class, optional
        Class whose hyperparameters are left out where `cls` declares them alike.
    """
    known = {} if but is None else {entry["name"]: entry for entry in describe(but)}
    rows = ["| parameter | default | meaning |", "|---|---|---|"]
    for entry in describe(cls):
        if known.get(entry["name"]) == entry:
            continue
        allowed = entry["allowed"]
        words = entry["doc"] if allowed == str(FLAG) else f"{entry['doc']} {allowed[:1].upper()}{allowed[1:]}."
        rows.append(f"| `{entry['name']}` | {_cell(cls, entry)} | {words.replace('|', '&#124;')} |")
    return "\n".join(rows)


def _cell(cls: type[Parameters], entry: Description) -> str:
    """Return a default as text; where presets decide, the value per preset."""
    if not entry["preset"]:
        return _short(entry["default"])
    by_preset = {name: _short(filling.get(entry["name"], entry["default"])) for name, filling in cls.presets.items()}
    first = next(iter(by_preset.values()))
    return "; ".join([first, *(f"{name}: {value}" for name, value in by_preset.items() if value != first)])


def _short(value: Any) -> str:
    if isinstance(value, Parameters):
        return "on"
    return "none" if value is None else f"`{value if isinstance(value, str) else shown(value)}`"


def _default(declared: Field[object]) -> Any:
    """Return the default as a JSON value; for a group "on" or none (off)."""
    usual = declared.metadata["usual"]
    return "on" if isinstance(usual, Parameters) else usual


def _numpydoc(cls: type[Parameters]) -> Iterator[str]:
    for name, declared in cls.declared().items():
        facts = declared.metadata
        usual = facts["usual"]
        default = "as the preset says" if facts["preset"] else f"default {shown(usual)}"
        optional = " or None" if facts["optional"] and facts["group"] is None else ""
        yield from textwrap.wrap(f"{name} : {facts['allowed']}{optional}, {default}", 116, subsequent_indent="        ")
        yield from textwrap.wrap(facts["doc"], 116, initial_indent="    ", subsequent_indent="    ")


def _dedented(text: str) -> str:
    first, _, rest = text.partition("\n")
    return f"{first.strip()}\n{textwrap.dedent(rest)}"
