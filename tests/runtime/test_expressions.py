"""Regular expressions: those that could take for ever are found, and usual ones are not."""

from __future__ import annotations

import re

import pytest

from anomem.runtime.expressions import endless

USUAL = (
    r"([^/]+)_[^_]*$",
    r"([^/]+?)(?:\.zip)?/[^/]*$",
    r"^(?:[^/]+/){2}([^/]+)/",
    r"\d{4}(?:-\d{2}){2}",
    r"([^_]+)(?:_[^_]+){2}\.png$",
    r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}",
    r"\d{4}-\d{2}-\d{2}_\d{2}-\d{2}-\d{2}_\d{3}_([^_]+)_[^_]+$",
    r"(?P<part>exp[0-9]+)_(?:a|b)?",
    r"lot[]+*(){|]+(?#a+)\(x\)*",
    r"(?x) (a+) \ + b  # (a+)+",
    r"(cam1|cam2)/",
)
ENDLESS = (
    "(a+)+",
    "(?:ab|a|b)*X",
    "(.{1,9}){1,9}_",
    "(a+)(?#)+X",
    "(?x)(a+) +X",
    "((?:a*b)c)*",
    ".*" * 9,
    ".?" * 9,
    r"(\w+x){9}",
    "(a*?)+?",
    "a{0,}" * 9,
)


@pytest.mark.parametrize("expression", USUAL)
def test_usual_expressions_are_allowed(expression: str) -> None:
    assert re.compile(expression)
    assert not endless(expression)


@pytest.mark.parametrize("expression", ENDLESS)
def test_endless_expressions_are_found(expression: str) -> None:
    assert re.compile(expression)
    assert endless(expression)
