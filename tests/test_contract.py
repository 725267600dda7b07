"""Contract of every registered method."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet
from torch import nn

import anomem
from anomem.detectors import DETECTORS, get
from anomem.testing import CHECKS, Example, check_detector


@functools.cache
def example(method: str) -> Example:
    return Example(get(method))


THOROUGH = ("anomem", "knn", "padim", "pmb")
"""One method of each kind: two-stage, without maps, statistical, trained."""

COSTLY = {
    "an_interrupted_fit_leaves_no_model",
    "exported_scores_are_scores",
    "files_do_not_grow",
    "groups_stay_together",
    "refit_equals_a_fresh_fit",
    "region_of_interest",
    "tiles",
}
"""Checks with fits or exports of their own, of what methods share: of all other methods they are in the slow set."""


def cases() -> Iterator[ParameterSet]:
    for method, check in itertools.product(DETECTORS, CHECKS):
        apart = check in COSTLY and method not in THOROUGH
        yield pytest.param(method, check, marks=[pytest.mark.slow] if apart else [])


def test_the_costly_checks_exist() -> None:
    assert CHECKS.keys() >= COSTLY
    assert set(THOROUGH) <= set(DETECTORS)


@pytest.mark.parametrize(("method", "check"), list(cases()))
def test_contract(method: str, check: str) -> None:
    outcome = check_detector(get(method), only=[check], example=example(method))[check]
    if outcome != "passed":
        pytest.skip(outcome)


def _strides(scorer: nn.Module) -> dict[str, tuple[int, ...]]:
    """Strides of each tensor, but along sides of length 1, where they mean nothing."""
    tensors = scorer.state_dict().items()
    return {name: tuple(s for s, n in zip(t.stride(), t.shape, strict=True) if n > 1) for name, t in tensors}


@pytest.mark.parametrize("method", DETECTORS)
def test_a_loaded_model_is_laid_out_as_the_fitted_one(method: str, tmp_path: Path) -> None:
    """The cause of equal bits: kernels are chosen by layout, on one processor in other ways than on the next."""
    fitted = example(method).fitted
    fitted.save(tmp_path / "model")
    assert _strides(anomem.load(tmp_path / "model").scorer_) == _strides(fitted.scorer_)
