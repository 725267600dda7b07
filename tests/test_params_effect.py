"""Settings without effect are refused, in every method; files of earlier fits still load."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import Field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import anomem
from anomem.detectors import DETECTORS, get
from anomem.detectors.anomem import AnoMem
from anomem.detectors.fyd import FYD
from anomem.detectors.fyd.detector import FROZEN, FeatureAlignment
from anomem.errors import ParameterError
from anomem.params import Parameters, Range, param, parameter_group, parameters
from anomem.params.allowed import Allowed, Each, Either, OneOf
from anomem.params.declared import BY_PRESET, OfGroup
from anomem.params.effect import holds, names

Conditional = tuple[type[Parameters], str, Field[object]]


@parameter_group
class Dimmer(Parameters):
    """A dimmer."""

    kind: str = param("knob", OneOf(("knob", "app")), doc="Kind.")
    port: int = param(80, Range(1, 9999, integer=True), doc="Port of kind=app.", when="kind=app")


@parameters
class Lamp(Parameters):
    """A lamp with a light that may be off."""

    light: float | None = param(1.0, Range(0.0), doc="Brightness.", optional=True)
    colour: str = param("white", OneOf(("white", "red")), doc="Colour.", when="light")
    battery: int = param(1, Range(1, integer=True), doc="Battery.", when="light=none or colour=red|white")
    dimmer: Dimmer = anomem.params.group(Dimmer, doc="Dimmer.")


def test_a_setting_without_effect_is_refused_with_the_fix() -> None:
    with pytest.raises(ParameterError) as caught:
        Lamp(light=None, colour="red").resolve()
    assert str(caught.value) == ("Lamp: colour='red' has no effect with light=None; set light, or leave colour out")
    with pytest.raises(ParameterError) as caught:
        Lamp(dimmer=Dimmer(port=8080)).resolve()
    assert str(caught.value) == (
        "Lamp: dimmer.port=8080 has no effect with dimmer.kind='knob'; set dimmer.kind=app, or leave dimmer.port out"
    )


def test_alternative_values_are_named_once_with_their_setting() -> None:
    with pytest.raises(ParameterError, match=r"; set training\.train_backbone=late or all, or leave training\.lr out"):
        FYD(**{"training.train_backbone": "none", "training.lr": 0.1}).resolve()


@pytest.mark.parametrize("lamp", [Lamp(colour="red"), Lamp(light=None), Lamp(light=None, battery=2), Lamp(light=0)])
def test_settings_with_effect_and_defaults_are_accepted(lamp: Lamp) -> None:
    assert lamp.resolve().battery == lamp.battery


def test_a_group_without_effect_may_be_off() -> None:
    assert FYD(**FROZEN).resolve().feature_aligner is None
    with pytest.raises(ParameterError, match=r"feature_aligner=.* has no effect with training=None; set training"):
        FYD(training=None, feature_aligner=FeatureAlignment(bounded=False)).resolve()


def test_values_of_an_earlier_fit_are_not_refused() -> None:
    assert Lamp(light=None, colour="red").resolve(strict=False).colour == "red"


# --- every method -----------------------------------------------------------------------------


def owners(cls: type[Parameters]) -> Iterator[type[Parameters]]:
    """A class of parameters, and its groups'."""
    yield cls
    for declared in cls.declared().values():
        if declared.metadata["group"] is not None:
            yield from owners(declared.metadata["group"])


def conditional() -> list[Conditional]:
    every = dict.fromkeys(owner for method in DETECTORS for owner in owners(get(method)))
    fields = [(owner, name, declared) for owner in every for name, declared in owner.declared().items()]
    return [(owner, name, declared) for owner, name, declared in fields if declared.metadata["when"]]


def candidates(allowed: Allowed) -> list[Any]:
    """Some allowed values."""
    if isinstance(allowed, Either):
        return [value for option in allowed.options for value in candidates(option)]
    if isinstance(allowed, OneOf):
        return list(allowed.values)
    if isinstance(allowed, OfGroup):
        name, declared = next(iter(allowed.kind.declared().items()))
        return [allowed.kind(**{name: value}) for value in candidates(declared.metadata["allowed"])]
    if isinstance(allowed, Each):
        return [(value,) * (allowed.length or 1) for value in candidates(allowed.item)]
    return [allowed.example(), *(value for value in (0, 1, 2, 3, 0.25, 0.5, 64) if allowed.accepts(value))]


def filled(owner: type[Parameters]) -> Mapping[str, Any]:
    """Values of the preset that applies by default."""
    return owner.presets.get(getattr(owner(), "preset", ""), {})


def settings(owner: type[Parameters], when: str) -> Iterator[dict[str, Any]]:
    """Values of the parameters that a condition depends on, one or two of them at a time."""
    tried: dict[str, list[Any]] = {}
    for name in names(when):
        declared = owner.declared()[name]
        off = [None] if declared.metadata["optional"] else []
        tried[name] = [*off, *candidates(declared.metadata["allowed"])]
    combined: list[dict[str, Any]] = [{}]
    for name, values in tried.items():
        combined = [{**given, name: value} for given in combined for value in values]
    yield from combined


def test_conditions_name_parameters_and_values_that_exist() -> None:
    for owner, name, declared in conditional():
        for condition in declared.metadata["when"].split(" or "):
            other, _, values = condition.partition("=")
            assert other in owner.declared(), f"{owner.__name__}.{name}: {other}"
            facts = owner.declared()[other].metadata
            known = {str(value) for value in candidates(facts["allowed"])} | ({"none"} if facts["optional"] else set())
            assert set(values.split("|")) - {""} <= known, f"{owner.__name__}.{name}: {values}"


def test_every_setting_without_effect_is_refused_in_every_method() -> None:
    seen = 0
    for owner, name, declared in conditional():
        when = declared.metadata["when"]
        taken = [declared.default, declared.metadata["usual"], filled(owner).get(name)]
        other = next(value for value in candidates(declared.metadata["allowed"]) if value not in taken)
        outcomes = set()
        for setting in settings(owner, when):
            held = holds(when, owner(**setting).resolve(strict=False))
            outcomes.add(held)
            if held:
                assert owner(**setting, **{name: other}).resolve()[name] is not BY_PRESET
                continue
            assert owner(**setting).resolve()[names(when)[0]] == setting[names(when)[0]]
            with pytest.raises(ParameterError, match=f"{name}=.* has no effect with .*; set .*, or leave {name} out"):
                owner(**setting, **{name: other}).resolve()
        assert outcomes == {True, False}, f"{owner.__name__}.{name}: {when}"
        seen += 1
    assert seen >= 50


def test_a_doc_that_names_the_value_of_another_setting_declares_the_condition() -> None:
    for method in DETECTORS:
        for owner in owners(get(method)):
            for name, declared in owner.declared().items():
                named = set(re.findall(r"\b(\w+)=\w+", declared.metadata["doc"])) & owner.declared().keys()
                assert not named or set(names(declared.metadata["when"] or "")) & named, f"{owner.__name__}.{name}"


def test_presets_and_tiny_parameters_keep_no_setting_without_effect() -> None:
    for method in DETECTORS:
        cls = get(method)
        for preset in cls.presets:
            cls(preset=preset).resolve()  # type: ignore[call-arg]
        cls(**cls.test_params).resolve()


def test_a_file_with_such_a_setting_loads_and_a_new_fit_refuses_it(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (36, 64, 64, 3), np.uint8)
    detector = AnoMem(**AnoMem.test_params, reduction="max").fit(
        images[:32], alpha=0.2, calibration="split", device="cpu"
    )
    detector.top = 0.25  # as versions before the check allowed
    detector.save(tmp_path / "old.safetensors")
    loaded = anomem.load(tmp_path / "old.safetensors")
    assert isinstance(loaded, AnoMem)
    loaded.label(images[32:], device="cpu")
    assert loaded.top == 0.25
    with pytest.raises(
        ParameterError, match=r"AnoMem: top=0\.25 has no effect with reduction='max'; set reduction=top"
    ):
        loaded.fit(images, device="cpu")
