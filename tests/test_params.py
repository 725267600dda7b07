"""Hyperparameters: declared, checked, cloned, shown, read from the command line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anomem.errors import ParameterError
from anomem.params import (
    FLAG,
    Each,
    Either,
    FileOrArray,
    OneOf,
    Parameters,
    Range,
    Text,
    param,
    parse_assignments,
)


@dataclass(kw_only=True, repr=False, eq=False)
class Lamp(Parameters):
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "day": {"watts": 5.0, "colours": ("white",)},
        "night": {"watts": 1.0, "colours": ("red", "amber")},
    }
    preset: str = param("day", OneOf(("day", "night")), doc="When.")
    watts: float | None = param(None, Range(0.0, low_open=True), doc="Power.", preset=True)
    colours: tuple[str, ...] | None = param(None, Each(OneOf(("white", "red", "amber"))), doc="Hues.", preset=True)
    lamps: int = param(1, Range(1, 8, integer=True), doc="How many.")
    dimmed: bool = param(False, FLAG, doc="Less.")
    timer: int | None = param(None, Range(1, integer=True), doc="Minutes.", optional=True)
    shade: Any = param(None, FileOrArray("a file or an array"), doc="Before it.", optional=True)


VALUES = st.fixed_dictionaries(
    {},
    optional={
        "preset": st.sampled_from(["day", "night"]),
        "watts": st.none() | st.floats(0.001, 1e6),
        "colours": st.none() | st.lists(st.sampled_from(["white", "red", "amber"]), min_size=1).map(tuple),
        "lamps": st.integers(1, 8),
        "dimmed": st.booleans(),
        "timer": st.none() | st.integers(1, 10**9),
    },
)


@given(VALUES)
def test_allowed_values_round_trip(values: dict[str, Any]) -> None:
    lamp = Lamp(**values)
    assert lamp.clone().get_params() == lamp.get_params()
    assert eval(repr(lamp)).get_params() == lamp.get_params()
    assert Lamp().set_params(**lamp.get_params()).get_params() == lamp.get_params()
    before = lamp.get_params()
    resolved = lamp.resolve()
    assert lamp.get_params() == before
    for name, value in Lamp.presets[lamp.preset].items():
        assert resolved[name] == (value if before[name] is None else before[name])
    for name in set(before) - {"watts", "colours"}:
        assert resolved[name] == before[name]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"lamps": 0}, "lamps=0 is not allowed; expected an integer >= 1 and <= 8"),
        ({"lamps": 9}, "lamps=9"),
        ({"lamps": True}, "lamps=True"),
        ({"lamps": 2.0}, "lamps=2.0"),
        ({"lamps": None}, "lamps=None"),
        ({"lamps": "3"}, "lamps='3'"),
        ({"watts": 0.0}, "watts=0.0 is not allowed; expected a number > 0"),
        ({"watts": float("nan")}, "watts=nan"),
        ({"colours": ()}, r"colours=\(\)"),
        ({"colours": ("white", "blue")}, "each one of 'white', 'red', 'amber'"),
        ({"colours": "white"}, "colours='white'"),
        ({"dimmed": 1}, "dimmed=1 is not allowed; expected one of False, True"),
        ({"timer": 0}, "timer=0"),
        ({"watts": float("inf")}, "watts=inf"),
        ({"timer": 10**400}, "timer="),
        ({"preset": "dusk"}, "preset='dusk' is not allowed; expected one of 'day', 'night'"),
        ({"preset": None}, "preset=None"),
        ({"preset": ["day"]}, "preset="),
        ({"shade": np.zeros(3)}, "shade="),
        ({"shade": 3}, "shade=3"),
    ],
)
def test_other_values_are_named(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ParameterError, match=said) as caught:
        Lamp(**values).resolve()
    assert "Lamp" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_list_resolves_to_a_tuple_and_stays_a_list() -> None:
    lamp = Lamp(colours=["red"])  # type: ignore[arg-type]
    assert lamp.resolve()["colours"] == ("red",)
    assert lamp.colours == ["red"]


def test_numpy_numbers_are_numbers() -> None:
    assert Lamp(lamps=np.int64(3), watts=np.float32(2)).resolve()["lamps"] == 3  # type: ignore[arg-type]


def test_clones_share_nothing() -> None:
    shade = np.zeros((2, 2))
    lamp = Lamp(shade=shade)
    assert lamp.clone().shade is not shade
    assert np.array_equal(lamp.clone().shade, shade)


def test_an_array_does_not_spread_repr_and_refusal_over_lines() -> None:
    lamp = Lamp(shade=np.zeros((64, 64)))
    assert "\n" not in repr(lamp)
    with pytest.raises(ParameterError) as caught:
        Lamp(shade=np.zeros((64, 64, 3))).resolve()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(("typo", "meant"), [("lamp", "lamps"), ("wats", "watts"), ("dimed", "dimmed")])
def test_the_nearest_name_is_suggested(typo: str, meant: str) -> None:
    with pytest.raises(ParameterError, match=f"did you mean {meant}"):
        Lamp().set_params(**{typo: 1})


def test_an_unlike_name_gets_the_list() -> None:
    with pytest.raises(ParameterError, match="known: preset, watts"):
        Lamp().set_params(zzz=1)


def test_a_name_refused_changes_nothing() -> None:
    lamp = Lamp()
    with pytest.raises(ParameterError):
        lamp.set_params(lamps=3, zzz=1)
    assert lamp.lamps == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lamps=3", {"lamps": 3}),
        ("watts=2.5", {"watts": 2.5}),
        ("watts=null", {"watts": None}),
        ("watts=None", {"watts": None}),
        ("dimmed=true", {"dimmed": True}),
        ("dimmed=False", {"dimmed": False}),
        ('colours=["red", "amber"]', {"colours": ("red", "amber")}),
        ("preset=night", {"preset": "night"}),
        (" lamps = 2 ", {"lamps": 2}),
        ("shade=a=b.png", {"shade": "a=b.png"}),
    ],
)
def test_assignments_are_read(text: str, expected: dict[str, Any]) -> None:
    assert parse_assignments(Lamp, [text]) == expected
    Lamp(**expected).resolve()


@pytest.mark.parametrize(("text", "said"), [("lamps", "expected key=value"), ("lanps=3", "did you mean lamps")])
def test_wrong_assignments_are_refused(text: str, said: str) -> None:
    with pytest.raises(ParameterError, match=said):
        parse_assignments(Lamp, [text])


@given(st.integers() | st.floats() | st.booleans() | st.none() | st.text())
def test_declarations_answer_for_every_value(value: object) -> None:
    for allowed in (Range(-1, 1), Range(integer=True), OneOf((1, "a")), Text(), Each(Text()), FLAG):
        assert allowed.accepts(value) in (True, False)
        assert Either((allowed, Text())).accepts(value) == (allowed.accepts(value) or Text().accepts(value))


def test_ranges_include_what_they_say() -> None:
    assert Range(0.0, 1.0).accepts(0)
    assert Range(0.0, 1.0).accepts(1.0)
    assert not Range(0.0, low_open=True).accepts(0.0)
    assert Range(0.0).accepts(1e300)
    assert not Range(0.0).accepts(-1e-300)
    assert FileOrArray("x").accepts(Path("a"))
    assert FileOrArray("x").accepts(np.zeros((2, 3)))


@pytest.mark.parametrize("value", ["[" * 5000, "9" * 5000, '{"a":' * 5000])
def test_values_too_long_for_a_line_are_refused_in_one(value: str) -> None:
    from anomem.detectors.anomem import AnoMem

    with pytest.raises(
        ParameterError, match=r"--set size=<[\d,]+ characters> is not allowed; .* --set size=224"
    ) as refused:
        parse_assignments(AnoMem, [f"size={value}"])
    assert len(str(refused.value)) < 200
