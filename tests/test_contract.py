"""Every registered method keeps the contract."""

from __future__ import annotations

import functools

import pytest

from anomem.detectors import DETECTORS, get
from anomem.testing import CHECKS, Example, check_detector


@functools.cache
def example(method: str) -> Example:
    return Example(get(method))


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("method", DETECTORS)
def test_contract(method: str, check: str) -> None:
    outcome = check_detector(get(method), only=[check], example=example(method))[check]
    if outcome != "passed":
        pytest.skip(outcome)
