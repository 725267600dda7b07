"""Groups of hyperparameters: nested objects, dotted names, former names, presets, the command line, descriptions."""

from __future__ import annotations

import dataclasses
import re
import sys
import warnings
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from anomem.detectors import DETECTORS, get, load
from anomem.detectors.anomem import AnoMem, Contrast, StageOne, StageTwo, Views
from anomem.detectors.fyd.detector import FROZEN, FYD
from anomem.errors import ParameterError, RenamedWarning
from anomem.modelfile import read_model, write_model
from anomem.params import (
    BY_PRESET,
    Each,
    OneOf,
    Parameters,
    Range,
    describe,
    group,
    param,
    parameter_group,
    parameters,
    parse_assignments,
)
from tests.cli.process import completed

DOCS = Path(__file__).parents[1] / "docs"


@parameter_group
class Bulb(Parameters):
    """A bulb."""

    watts: float = param(5.0, Range(0.0, low_open=True), doc="Power.", preset=True)
    colours: tuple[str, ...] = param(("white",), Each(OneOf(("white", "red"))), doc="Hues.")


@parameters
class Lamp(Parameters):
    """A lamp.

    Notes
    -----
    Not a real one.
    """

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "day": {},
        "night": {"bulb": Bulb(), "bulb.watts": 1.0, "timer": 30},
    }
    moved: ClassVar[dict[str, str]] = {"bulb_watts": "bulb.watts", "bulb_colours": "bulb.colours"}
    preset: str = param("day", OneOf(("day", "night")), doc="Time of day.")
    timer: int | None = param(None, Range(1, integer=True), doc="Minutes; none: for ever.", optional=True, preset=True)
    bulb: Bulb | None = group(Bulb, doc="Its bulb.", optional=True, off=("bulb_watts", 0), preset=True)
    spare: Bulb = group(Bulb, doc="Another bulb.")


def test_members_of_a_group_are_reached_by_either_spelling() -> None:
    lamp = Lamp(spare=Bulb(watts=3.0))
    assert lamp.get_params()["spare__watts"] == 3.0
    assert lamp.get_params(deep=False).keys() == {"preset", "timer", "bulb", "spare"}
    assert Lamp(**{"spare.watts": 3.0}).spare == Lamp(spare__watts=3.0).spare == lamp.spare  # type: ignore[call-arg]
    lamp.set_params(spare__colours=("red",))
    assert lamp.spare == Bulb(watts=3.0, colours=("red",)), "other members stay"
    assert Lamp().set_params(**lamp.get_params()).get_params() == lamp.get_params()
    assert repr(lamp) == "Lamp(spare=Bulb(watts=3.0, colours=('red',)))"
    assert eval(repr(lamp)).get_params() == lamp.get_params()
    assert Lamp.from_dict(lamp.to_dict()).get_params() == lamp.get_params()


def test_clones_of_groups_are_equal_and_fixed() -> None:
    lamp = Lamp(bulb=Bulb(watts=2.0))
    other = lamp.clone()
    other.set_params(bulb__watts=9.0)
    assert lamp.bulb == Bulb(watts=2.0)
    with pytest.raises(AttributeError, match="watts"):
        lamp.bulb.watts = 1.0  # type: ignore[union-attr, misc]


def test_a_preset_governs_groups_and_their_members() -> None:
    assert Lamp().bulb is BY_PRESET
    assert Lamp().resolve().bulb is None
    night = Lamp(preset="night").resolve()
    assert night.bulb == Bulb(watts=1.0)
    assert (night.timer, night["bulb.watts"], night.spare.watts) == (30, 1.0, 5.0)
    assert Lamp(preset="night", bulb__colours=("red",)).resolve().bulb == Bulb(watts=1.0, colours=("red",))  # type: ignore[call-arg]
    off = Lamp(preset="night", timer=None, bulb=None).resolve()
    assert (off.timer, off.bulb, off["bulb.watts"]) == (None, None, None), "none is a value of its own"


def test_resolved_parameters_are_fixed() -> None:
    resolved = Lamp().resolve()
    with pytest.raises(AttributeError, match="timer is fixed once resolved"):
        resolved.timer = 3
    assert dict(resolved)["preset"] == "day"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            {"spare.watts": -1.0},
            r"spare\.watts=-1\.0 is not allowed; expected a number > 0, for example spare\.watts=5",
        ),
        ({"spare": 3}, r"spare=3 is not allowed; expected Bulb\(\.\.\.\), for example spare=Bulb\(\)"),
        ({"spare.watt": 3}, r"no parameter 'spare\.watt'; did you mean spare\.watts"),
        ({"timer.watts": 3}, r"no parameter 'timer\.watts'"),
        ({"bulb": None, "bulb.watts": 3.0}, "bulb=None contradicts watts; leave one out"),
    ],
)
def test_members_are_named_in_errors(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ParameterError, match=said):
        Lamp(**values).resolve()


def test_former_names_warn_and_work() -> None:
    with pytest.warns(RenamedWarning, match=r"Lamp: bulb_watts is now bulb\.watts"):
        assert Lamp(bulb_watts=2.0).bulb == Bulb(watts=2.0)  # type: ignore[call-arg]
    with pytest.warns(FutureWarning):
        assert Lamp(bulb_watts=0, bulb_colours=("red",)).bulb is None  # type: ignore[call-arg]
    with pytest.warns(FutureWarning):
        assert Lamp(bulb_colours=("red",)).resolve().bulb is None, "without effect, as before"  # type: ignore[call-arg]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Lamp.from_dict({"preset": "day", "bulb_watts": 2.0, "bulb_colours": ["red"]}).bulb == Bulb(
            watts=2.0, colours=("red",)
        )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("memory_size=56", {"memory_size": (56,)}),
        ("memory_size=1,2,3", {"memory_size": (1, 2, 3)}),
        ("memory_size=(1,2,3)", {"memory_size": (1, 2, 3)}),
        ("memory_size=[1, 2, 3]", {"memory_size": (1, 2, 3)}),
        ("stages=('stride8', 'stride16')", {"stages": ("stride8", "stride16")}),
        ("beta=.5", {"beta": 0.5}),
        ("beta=+5.", {"beta": 5.0}),
        ("memory_size=(56,)", {"memory_size": (56,)}),
        ("stages=2,blocks.5", {"stages": (2, "blocks.5")}),
        ("stages=blocks.5", {"stages": ("blocks.5",)}),
        ("memory=none", {"memory": "none"}),
        ("retrieval_steps=none", {"retrieval_steps": None}),
        ("weights=null", {"weights": None}),
        ("backbone=123", {"backbone": "123"}),
        ("stage_one=none", {"stage_one": None}),
        ("stage_one.steps=1500", {"stage_one.steps": 1500}),
        ("stage_one.views.crop=0.5", {"stage_one.views.crop": 0.5}),
        ("stage_one.contrast.ratios=0.5", {"stage_one.contrast.ratios": (0.5,)}),
        ("train_steps=0", {"train_steps": 0}),
    ],
)
def test_assignments_take_tuples_and_dotted_names(text: str, expected: dict[str, Any]) -> None:
    assert parse_assignments(AnoMem, [text]) == expected
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RenamedWarning)
        AnoMem(**expected).resolve()


@pytest.mark.parametrize(
    "text",
    [
        "size=" + "[" * 5000,
        "size=" + "9" * 5000,
        "size=" + "9" * 900,
        "size=" + "[" * 400,
        "memory_size=[[1, 2], [3]]",
        "memory_size=1,two",
        "memory_size=[]",
        "memory_size=()",
        "beta=1/2",
        "beta=5%",
        "memory_size=",
        "beta=soft",
        "neighbourhood=2",
        "stage_one=500",
        "stage_one.steps=0",
        "stage_one.step=3",
        "stage_one",
        "label_weight=7",
    ],
    ids=lambda text: text[:30],
)
def test_a_refused_assignment_shows_one_that_works(text: str) -> None:
    with pytest.raises(ParameterError) as caught:
        parse_assignments(AnoMem, [text])
    line = str(caught.value)
    assert "\n" not in line
    assert len(line) < 400
    if "did you mean" not in line:
        example = line.rpartition("for example --set ")[2]
        assert parse_assignments(AnoMem, [example])


@pytest.mark.parametrize("method", DETECTORS)
def test_every_declared_parameter_has_an_example_that_works(method: str) -> None:
    kind = get(method)
    for name, declared in kind.declared_deep():
        if declared.metadata["group"] is None:
            with pytest.raises(ParameterError) as caught:
                parse_assignments(kind, [f"{name}={'9' * 2000}"])
            example = str(caught.value).rpartition("for example --set ")[2]
            assert example.startswith(f"{name}=")
            kind(**parse_assignments(kind, [example])).resolve()


def test_former_flat_parameters_of_anomem_become_groups() -> None:
    with pytest.warns(FutureWarning):
        old = AnoMem(  # type: ignore[call-arg]
            train_steps=9,
            lr=0.1,
            crop=0.5,
            contrast="barlow",
            contrast_jitter=0.1,
            label_weight=0.3,
            train_backbone="last",
        )
    assert (
        old.get_params()
        == AnoMem(
            stage_one=StageOne(
                steps=9,
                lr=0.1,
                train_backbone="last",
                contrast=Contrast(base="barlow"),
                views=Views(crop=0.5, contrast=0.1),
            ),
            stage_two=StageTwo(weight=0.3),
        ).get_params()
    )
    assert len(AnoMem.declared()) <= 37


def test_former_flags_of_fyd_become_groups() -> None:
    with pytest.warns(FutureWarning):
        off = FYD(image_alignment="off", feature_alignment=False, train_steps=0)  # type: ignore[call-arg]
    assert off.get_params() == FYD(**FROZEN).get_params()
    with pytest.warns(FutureWarning):
        assert FYD(**parse_assignments(FYD, ["feature_alignment=false"])).feature_aligner is None
    with pytest.warns(FutureWarning):
        on = FYD(image_alignment="on", feature_alignment=True, joint=True)  # type: ignore[call-arg]
    assert (on.image_aligner, on.feature_aligner) == (
        FYD(**{"image_aligner.keep": "on", "image_aligner.joint": True}).image_aligner,
        FYD().feature_aligner,
    )


@pytest.mark.parametrize("method", DETECTORS)
def test_every_former_name_leads_to_a_parameter(method: str) -> None:
    kind = get(method)
    names = dict(kind.declared_deep())
    assert all(new in names for new in kind.moved.values())
    assert not set(kind.moved) & set(kind.declared())


PRESETS = [(method, preset) for method in DETECTORS for preset in get(method).presets]


@pytest.mark.parametrize(("method", "preset"), PRESETS)
def test_every_preset_resolves(method: str, preset: str) -> None:
    kind = get(method)
    names = dict(kind.declared_deep())
    assert all(names[name].metadata["preset"] for name in kind.presets[preset])
    resolved = kind(preset=preset).resolve()  # type: ignore[call-arg]
    assert kind.from_dict(resolved.to_dict()).resolve().to_dict() == resolved.to_dict()


TINY: dict[str, dict[str, Any]] = {
    "anomem": {"backbone": "resnet18", "width": 0.125, "memory_size": (4,), "stage_one.steps": 1, "stage_one.batch": 4},
    "supervised": {"backbone": "resnet18", "width": 0.125, "train_steps": 1, "train_batch": 4},
    "deepsad": {"pretrain_steps": 1, "train_steps": 1, "train_batch": 4},
    "plume": {"backbone": "resnet18", "weights": None, "size": 32, "output_dim": 24, "perturbator_width": 8}
    | {"training.steps": 1, "training.lr": 1e-3},
    "fyd": {"weights": None, "size": 64, "train_batch": 4, "n_channels": 8, "training.steps": 1, "training.width": 8},
    "pmb": {"size": 32, "widths": (2, 2, 2, 2, 2), "partitions": (1,), "items": (2,), "train_steps": 1},
    "simclr": {"backbone": "resnet18", "width": 0.125, "training.steps": 1, "training.batch": 4},
    "plad": {"size": 16, "perturbator_width": 8, "channels": 2, "steps": 1},
}


@pytest.mark.parametrize("method", [method for method, preset in PRESETS if preset == "paper"])
def test_paper_presets_fit_at_tiny_size(method: str) -> None:
    images = np.random.default_rng(0).integers(0, 256, (44, 32, 32, 3), dtype=np.uint8)
    detector = get(method)(**{"preset": "paper", **TINY[method]})
    n = 40 if detector.supervision == "none" else 44
    y = [0] * 40 + [1] * (n - 40)
    detector.fit(images[:n], y, device="cpu", fit_precision="float32", calibration="split", alpha=0.2, workers=0)
    assert np.isfinite(detector.anomaly_score(images[:2], workers=0)).all()


def test_docstrings_and_descriptions_come_from_the_declaration() -> None:
    lines = Lamp.__doc__.splitlines()
    assert lines[lines.index("bulb : Bulb(...) or None, as the preset says") + 1] == "    Its bulb."
    assert lines.index("Parameters") < lines.index("Notes")
    names = [entry["name"] for entry in describe(Lamp)]
    assert names == ["preset", "timer", "bulb", "bulb.watts", "bulb.colours", "spare", "spare.watts", "spare.colours"]
    for method in DETECTORS:
        documented = get(method).__doc__ or ""
        assert all(f"\n{name} : " in documented for name in get(method).declared())


def test_tables_in_the_docs_are_up_to_date() -> None:
    done = completed([sys.executable, str(DOCS / "parameters.py"), "--check"])
    assert done.returncode == 0, f"run python docs/parameters.py: {done.stdout}{done.stderr}"


def test_the_literal_column_of_the_docs_is_a_model() -> None:
    """Every setting in the table of departures, taken together, builds AnoMem's scorer."""
    page = (DOCS / "anomem.md").read_text(encoding="utf-8")
    rows = page.partition("| | here | the literal paper |")[2].partition("\n\n")[0].splitlines()[2:]
    settings = dict(re.findall(r"`([\w.]+)=([^`]+)`", " ".join(row.split(" | ", 2)[2] for row in rows)))
    assert len(settings) > 15
    values = parse_assignments(AnoMem, [f"{name}={value.strip(chr(34))}" for name, value in settings.items()])
    paper = AnoMem(preset="paper").resolve()
    literal = AnoMem(size=32, **values).resolve()
    assert {name: literal[name] for name in values} == {name: paper[name] for name in values}
    images = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
    tiny = {"backbone": "resnet18", "width": 0.125, "stage_one.steps": 1, "stage_one.batch": 4}
    AnoMem(size=32, **values | tiny).fit(images, device="cpu", workers=0, calibration="split", alpha=0.2)


def test_files_with_former_names_load_silently_and_score_alike(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
    detector = AnoMem(size=32, memory_size=(4,), stage_one=StageOne(steps=2, batch=4, views=Views(crop=0.5)))
    detector.fit(images, calibration="split", alpha=0.2, device="cpu", workers=0).save(tmp_path / "new")
    tensors, manifest = read_model(tmp_path / "new")
    changed = {part: _with_former_names(AnoMem, getattr(manifest, part)) for part in ("params", "resolved")}
    assert changed["resolved"]["crop"] == 0.5
    assert not {"stage_one", "stage_two"} & set(changed["resolved"])
    write_model(tmp_path / "old", tensors, dataclasses.replace(manifest, **changed))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = load(tmp_path / "old")
    assert np.array_equal(loaded.anomaly_score(images[:4], workers=0), detector.anomaly_score(images[:4], workers=0))
    assert loaded.get_params()["stage_one__views__crop"] == 0.5
    loaded.label(images[:3] // 2, workers=0)


def _with_former_names(kind: type[Parameters], nested: dict[str, Any]) -> dict[str, Any]:
    """Hyperparameters as the version before groups wrote them: flat, under former names."""
    held = kind.from_dict(nested)
    groups = {name for name, declared in kind.declared().items() if declared.metadata["group"] is not None}
    flat = {name: value for name, value in nested.items() if name not in groups}
    return flat | {old: held[new] for old, new in kind.moved.items() if held[new] is not BY_PRESET}


def test_a_report_lists_members_of_groups() -> None:
    """The page about a model shows dotted names, and what a preset decided."""
    from anomem.report.evaluation.page import _parameter_lines

    images = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
    detector = AnoMem(size=32, memory_size=(4,), stage_one=StageOne(steps=2, batch=4))
    lines = {
        name: rest
        for name, *rest in _parameter_lines(
            detector.fit(images, calibration="split", alpha=0.2, device="cpu", workers=0)
        )
    }
    assert lines["stage_one.steps"] == ["2", False]
    assert lines["stage_two.cap"] == ["0.8", True]
    assert lines["beta"] == ["hard", True]
    assert "stage_two" not in lines
