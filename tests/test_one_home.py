"""Shared helpers: each is defined once, and used by every caller."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import anomem
from anomem.errors import nearest, one_line, suggestion
from anomem.runtime import machine
from anomem.runtime.plain import plain
from anomem.runtime.precision import OPENVINO_HINTS, PRECISIONS
from anomem.runtime.text import percent, percent_digits, rate

PACKAGE = Path(anomem.__file__).parent

HOMES = {
    "suggestions": (r"difflib|get_close_matches", {"errors.py"}),
    "one-line texts": (r"\.join\(str\(\w+\)\.split\(\)\)|\.join\(text\.split\(\)\)", {"errors.py"}),
    "peak memory": (r"VmHWM|ru_maxrss", {"runtime/machine.py"}),
    "processor name": (r"model name|platform\.processor", {"runtime/machine.py"}),
    "ends of generators": (r"except StopIteration", {"runtime/progress.py", "training.py"}),
    "names of precisions": (r'"fp32": "|"float32": "', {"runtime/precision.py"}),
    "rounding of alpha (n + 1)": (r"floor\(alpha|alpha \* \(n", {"runtime/alpha.py"}),
    "the ROC curve": (r"metrics\.roc_curve\(", {"evaluation/figures.py"}),
    "pixel scores": (r"PixelScores\b", {"metrics/pixel.py", "metrics/__init__.py", "evaluation/pixels.py"}),
    "cleaning of what files say": (
        r"\bclean\(",
        {f"report/benchmark/{name}.py" for name in ("line", "runs", "bars", "sets", "measurements", "results_page")},
    ),
}


@pytest.mark.parametrize("what", HOMES)
def test_it_has_one_home(what: str) -> None:
    pattern, homes = HOMES[what]
    found = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if re.search(pattern, re.sub(r'"""(?s:.)*?"""', "", path.read_text(encoding="utf-8")))
    }
    assert found
    assert found <= homes


def test_suggestions_name_the_nearest_or_all() -> None:
    assert suggestion("anomen", ["anomem", "padim"]) == "did you mean anomem?"
    assert suggestion("zzz", ["anomem", "padim"]) == "known: anomem, padim"
    assert suggestion("padin", ["anomem"], among=["anomem", "padim"]) == "did you mean padim?"
    assert nearest("labl", ["label"], cutoff=0.95) is None


def test_errors_without_a_message_are_told_by_their_kind() -> None:
    assert one_line(ValueError("a\nb\t c")) == "a b c"
    assert one_line(MemoryError()) == "MemoryError"
    assert one_line("") == ""


@pytest.mark.parametrize(("fraction", "shown"), [(1.0, "100"), (0.0, "0"), (0.9996, ">99.9"), (0.00049, "<0.1")])
def test_what_is_not_all_or_nothing_is_never_shown_as_such(fraction: float, shown: str) -> None:
    assert percent_digits(fraction) == shown
    assert percent(fraction).replace(" ", "") == f"{shown}%"


def test_chosen_rates_keep_the_digits_that_were_chosen() -> None:
    assert [rate(value) for value in (0.01, 0.0025, 0.1)] == ["1 %", "0.25 %", "10 %"]


def test_plain_values_are_what_json_knows_and_strict_ones_are_left_to_a_strict_writer() -> None:
    content = {"a": np.arange(2), "b": np.float64("nan"), 3: (Path("x"), True, None)}
    assert plain(content) == {"a": [0, 1], "b": None, "3": ["x", True, None]}
    kept = plain({"a": (np.int64(2), float("inf"), Path("x"))}, strict=True)
    assert kept == {"a": [2, float("inf"), Path("x")]}
    with pytest.raises(TypeError, match="keys must be text"):
        plain({3: 4}, strict=True)


def test_every_precision_has_an_arithmetic() -> None:
    assert set(PRECISIONS.values()) == set(OPENVINO_HINTS)


def test_peak_memory_is_of_this_process_and_starts_anew() -> None:
    machine.forget_peak()
    before = machine.peak_mb()
    block = np.ones(20_000_000)  # 160 MB
    after = machine.peak_mb()
    assert block.size == 20_000_000
    assert 100 < after - before < 400
    assert machine.processor().strip()
    assert machine.cores() >= 1
