"""Suites and sweeps: every entry of the tables works."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from anomem.benchmark.fits import STEPS, Settings
from anomem.benchmark.image_sets import BenchmarkSet
from anomem.benchmark.plan import Wanted, parse_settings, parts_of, plan
from anomem.benchmark.protocols.base import Protocol
from anomem.benchmark.protocols.registry import PROTOCOLS, new_protocol
from anomem.benchmark.protocols.sweep import SWEEPS, Sweep
from anomem.benchmark.run import run
from anomem.benchmark.run_file import RunFile, read_runs
from anomem.benchmark.suites import SUITES, Part
from anomem.benchmark.unit import Task, Unit, Variant, canonical
from anomem.detectors import DETECTORS, get
from anomem.errors import InputError, ParameterError
from tests.benchmark.sets import classes, defects

EVERYWHERE = [(suite, number) for suite, parts in SUITES.items() for number in range(len(parts))]


@pytest.mark.parametrize(("suite", "number"), EVERYWHERE)
def test_every_part_can_be_built(suite: str, number: int) -> None:
    part = SUITES[suite][number]
    protocol = new_protocol(part.protocol, part.options)
    assert part.data
    assert part.variants
    for variant in part.variants:
        get(variant.method)(**variant.params).resolve()
    for variant, _ in protocol.expanded(part.variants):
        get(variant.method)(**variant.params).resolve()


def test_suites_cover_every_protocol() -> None:
    assert {part.protocol for part in SUITES["smoke"]} == set(PROTOCOLS)
    assert {part.protocol for part in (*SUITES["cpu"], *SUITES["cpu-long"])} == set(PROTOCOLS)
    for part in SUITES["smoke"]:
        assert all(name.startswith("textures") for name in part.data), "it needs no data"
    used = {part.options["of"] for parts in SUITES.values() for part in parts if part.protocol == "sweep"}
    assert used == set(SWEEPS)


def test_labels_tell_variants_of_one_method_apart() -> None:
    for parts in SUITES.values():
        for part in parts:
            names = [variant.label or variant.method for variant in part.variants]
            assert len(set(names)) == len(names)


# --- sweeps -------------------------------------------------------------------------------------


def points(name: str) -> list[tuple[Variant, Protocol]]:
    axis = SWEEPS[name]
    sweep = Sweep(of=name)
    variant = Variant(axis.method or "anomem")
    return sweep.expanded([variant])


@pytest.mark.parametrize("name", SWEEPS)
def test_a_sweep_varies_exactly_one_parameter(name: str) -> None:
    axis = SWEEPS[name]
    found = points(name)
    assert len(found) == len(axis.values)
    varied: dict[str, set[str]] = {}
    for variant, protocol in found:
        for key, value in {**variant.params, **protocol.get_params()}.items():
            varied.setdefault(key, set()).add(canonical({"": value}))
        assert variant.sweep == {"name": name, "parameter": axis.parameter, "value": variant.sweep["value"]}  # type: ignore[index]
    assert [key for key, values in varied.items() if len(values) > 1] == [axis.parameter]
    assert len(varied[axis.parameter]) == len(axis.values)
    if axis.method:
        assert len({protocol.name for _, protocol in found}) == 1
        assert axis.parameter in dict(get(axis.method).declared_deep())


@pytest.mark.parametrize("name", SWEEPS)
def test_points_of_a_sweep_are_units_of_their_own(name: str) -> None:
    axis = SWEEPS[name]
    of_classes = axis.protocol in ("one-vs-rest", "linear-evaluation")
    data = classes(2, 200, 4) if of_classes else defects({"crack": 4})
    keys = set()
    for variant, protocol in points(name):
        tasks = [t for t in protocol.tasks(data, unopened) if isinstance(t, Task)]
        assert tasks
        keys |= {Unit(task, variant, 0).key for task in tasks}
        assert all(Unit(task, replace(variant, sweep=None), 0).key not in keys for task in tasks)
    assert len(keys) >= len(axis.values)


def unopened(name: str) -> BenchmarkSet:
    raise InputError(f"{name}: absent")


def test_what_a_sweep_varies_must_not_be_set() -> None:
    with pytest.raises(ParameterError, match="beta: varied by the sweep beta; do not set it"):
        Sweep(of="beta").expanded([Variant("anomem", {"beta": 2.0})])
    with pytest.raises(InputError, match="sweep beta: needs anomem; name it with --methods anomem"):
        Sweep(of="beta").expanded([Variant("knn")])


# --- what is asked for --------------------------------------------------------------------------


def test_words_become_parts() -> None:
    (part,) = parts_of(["few-labels"], data=("textures/brick",), assigned={})
    assert (part.protocol, part.data, part.variants) == ("few-labels", ("textures/brick",), (Variant("anomem"),))
    (swept,) = parts_of(["sweep:delta-h"], data=("textures/brick",), assigned={})
    assert (swept.protocol, swept.options, swept.variants) == ("sweep", {"of": "delta-h"}, (Variant("pmb"),))
    assert parts_of(["smoke"], assigned={}) == list(SUITES["smoke"])
    some = parts_of(["smoke"], methods=("knn",), assigned={})
    assert {variant.method for part in some for variant in part.variants} == {"knn"}
    assigned = parse_settings(["knn.k=5", "few-labels.draws=3", "few-labels.k=[0,7]"])
    changed = parts_of(["few-labels"], methods=("knn", "anomem"), data=("textures/brick",), assigned=assigned)
    assert changed[0].options == {"draws": 3, "k": (0, 7)}
    assert [variant.params for variant in changed[0].variants] == [{"k": 5}, {}]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["smok"], "did you mean smoke"),
        (["few-label"], "did you mean few-labels"),
        (["sweep:betta"], "did you mean sweep:beta"),
        (["xyz"], "known: smoke, cpu, cpu-long, development, memory, paper, report, one-vs-rest"),
        (["promise"], "name one with --data"),
    ],
)
def test_words_that_mean_nothing(names: list[str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        parts_of(names, assigned={})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("beta=3", "expected method.key=value"),
        ("anomem.beta", "expected key=value"),
        ("anomen.beta=3", "'anomen' is neither a method nor a protocol; did you mean anomem"),
        ("anomem.betta=3", "did you mean beta"),
        ("promise.alpha=3", "did you mean alphas"),
    ],
)
def test_settings_that_mean_nothing(text: str, said: str) -> None:
    with pytest.raises(ParameterError, match=said):
        parse_settings([text])


# --- plans --------------------------------------------------------------------------------------

KNN = (Variant("knn", {"size": 32}),)


def test_what_is_left_out_is_said(tmp_path: Path) -> None:
    parts = [
        Part("localisation", ("textures/brick", "cifar10"), KNN),
        Part("localisation", ("textures",), KNN),
        Part("localisation", ("textures/brick",), (Variant("not-yet"),)),
        Part("few-labels", ("textures/brick",), (Variant("supervised"),), {"k": (0, 20), "draws": 2}),
    ]
    found = plan(parts[:3], Wanted(root=tmp_path))
    assert len(found.units) == 1
    absent, classes_only, method = found.left_out
    assert absent.startswith("cifar10: ")
    assert "CIFAR-10 can be asked for at https://" in absent
    assert "run one-vs-rest on sets of classes" in classes_only
    assert method == "not-yet: no such method in this version"
    with pytest.raises(InputError, match="too few for k = "):
        plan([replace(parts[3], data=("textures/brick",))], Wanted(data=("textures/brick",)))
    with pytest.raises(InputError, match=r"cifar10: .*absent"):
        plan(parts[:1], Wanted(root=tmp_path, data=("cifar10",)))
    with pytest.raises(InputError, match="no unit to run: .*no such method in this version"):
        plan(parts[2:3], Wanted())
    with pytest.raises(InputError, match="--data textures/grass: no requested suite or protocol uses it"):
        plan(parts[:1], Wanted(data=("textures/brick", "textures/grass")))


def test_plans_narrow_down() -> None:
    units = plan(SUITES["smoke"], Wanted()).units
    assert len(units) == len({unit.key for unit in units})
    brick = plan(SUITES["smoke"], Wanted(data=("textures/brick",))).units
    assert {unit.task.data for unit in brick} == {"textures/brick"}
    assert {unit.key for unit in brick} < {unit.key for unit in units}
    seeded = plan(SUITES["smoke"], Wanted(seeds=(3, 4), limit=9, dry_steps=2)).units
    assert {(unit.seed, unit.limit, unit.dry_steps) for unit in seeded} == {(3, 9, 2), (4, 9, 2)}
    promises = plan([Part("promise", ("textures/brick",), KNN)], Wanted()).units
    assert {unit.seed for unit in promises} == {0, 1, 2, 3, 4}
    with pytest.raises(ParameterError, match="k=0 is not allowed"):
        plan([Part("localisation", ("textures/brick",), (Variant("knn", {"k": 0}),))], Wanted())


def test_one_unit_however_often_it_is_asked_for() -> None:
    part = Part("localisation", ("textures/brick",), KNN)
    assert len(plan([part, part], Wanted()).units) == 1


def test_every_budget_of_steps_is_known_to_dry_runs() -> None:
    """A method whose budget has another name would train for hours in a dry run."""
    named = {name.rpartition(".")[2] for m in DETECTORS for name, _ in get(m).declared_deep() if "steps" in name}
    assert named - {"retrieval_steps"} <= set(STEPS)


# --- the paper suite, in miniature ---------------------------------------------------------------


def noise(rng: np.random.Generator, side: int) -> np.ndarray:
    return rng.integers(60, 180, (side, side, 3), dtype=np.uint8)


def write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture(scope="module")
def miniature(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders and MVTec folders under the names of the catalogue, a handful of images each."""
    root = tmp_path_factory.mktemp("sets")
    rng = np.random.default_rng(0)
    fine = {"cifar10": ("cat", "dog", "frog"), "mnist": ("0", "1"), "cifar100": ("oak_tree", "rose", "tulip")}
    for name, kinds in fine.items():
        for kind in kinds:
            for part, count in (("train", 12), ("test", 3)):
                for i in range(count):
                    write(root / name / part / kind / f"{i:02}.png", noise(rng, 32))
    for category in ("bottle", "tile"):
        for i in range(14):
            write(root / "mvtec_ad" / category / "train" / "good" / f"{i:02}.png", noise(rng, 40))
        for i in range(4):
            write(root / "mvtec_ad" / category / "test" / "good" / f"{i:02}.png", noise(rng, 40))
            for kind in ("crack", "hole"):
                image, mask = noise(rng, 40), np.zeros((40, 40), np.uint8)
                image[5:15, 5:15], mask[5:15, 5:15] = 255, 255
                write(root / "mvtec_ad" / category / "test" / kind / f"{i:02}.png", image)
                write(root / "mvtec_ad" / category / "ground_truth" / kind / f"{i:02}_mask.png", mask)
    return root


def one_of_each(part: Part, root: Path, dry_steps: int = 2) -> Iterator[Unit]:
    """Of every variant (of every point of a sweep the first and the last) one unit with labels and one without."""
    # Sets that only their owners give away are stood in for by MVTec folders of the same kind of task.
    there = {"cifar10", "cifar100", "cifar100:coarse", "mnist"}
    data = tuple(name if name in there or name.startswith("mvtec_ad") else "mvtec_ad/bottle" for name in part.data)
    data = tuple("cifar10" if part.protocol == "one-vs-rest" and name == "mvtec_ad/bottle" else name for name in data)
    data = tuple(name for name in data if name.partition("/")[2] in ("", "bottle", "tile"))
    options = dict(part.options)
    if part.protocol == "out-of-distribution":
        options["against"] = ("mnist",)
    if part.protocol == "one-vs-rest":
        options |= {"draws": 1, "gammas": (0.0,) if options.get("gammas") == (0.0,) else (0.0, 0.2)}
    small = replace(part, data=data[:1], options=options, seeds=(0,))
    seen: dict[str, Unit] = {}
    for unit in plan([small], Wanted(root=root, dry_steps=dry_steps)).units:
        name = f"{unit.variant.method} {unit.variant.label} {unit.variant.sweep} {unit.task.labelled}"
        seen.setdefault(name, unit)
    units = list(seen.values())
    yield from units if part.protocol != "sweep" else (units[0], units[-1])


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(SUITES["paper"])))
def test_every_recipe_of_the_paper_suite_takes_two_steps(number: int, miniature: Path, tmp_path: Path) -> None:
    part = SUITES["paper"][number]
    units = list(one_of_each(part, miniature))
    assert units
    # At the published size a step of some of these takes minutes on a processor.
    small = [replace(unit, variant=shrunk(unit.variant)) for unit in units]
    settings = Settings(root=miniature, workers=0)
    with RunFile(tmp_path / "runs.jsonl") as run_file:
        outcomes = list(run(small, run_file, settings))
    assert [outcome.error for outcome in outcomes if outcome.error] == []
    lines = read_runs(tmp_path / "runs.jsonl")
    assert len(lines) == len({unit.key for unit in small})
    for line in lines:
        assert line["dry_steps"] == 2
        trained = [line["resolved"][name] for name in STEPS if line["resolved"].get(name)]
        assert all(steps <= 2 for steps in trained)


RECIPES = [
    (number, variant)
    for number, part in enumerate(SUITES["paper"])
    for variant in part.variants
    if part.protocol != "sweep" and not any(variant in earlier.variants for earlier in SUITES["paper"][:number])
]


@pytest.mark.slow
@pytest.mark.parametrize(("number", "variant"), RECIPES, ids=lambda given: getattr(given, "label", given) or "plain")
def test_every_recipe_of_the_paper_suite_learns_within_fifty_steps(
    number: int, variant: Variant, miniature: Path, tmp_path: Path
) -> None:
    part = replace(SUITES["paper"][number], variants=(variant,))
    small = [replace(unit, variant=shrunk(unit.variant)) for unit in one_of_each(part, miniature, 50)]
    with RunFile(tmp_path / "runs.jsonl") as run_file:
        outcomes = list(run(small, run_file, Settings(root=miniature, workers=0)))
    for outcome in outcomes:
        assert outcome.line, outcome.error
        for stage, losses in outcome.line["losses"].items():
            assert np.isfinite(losses).all(), (str(outcome.unit), stage, losses)
            assert min(losses[1:]) < losses[0], (str(outcome.unit), stage, losses)


SMALL: dict[str, Any] = {
    "widths": (4, 8, 16, 16, 16),
    "train_batch": 8,
    "output_dim": 64,
    "training.batch": 8,
    "stage_one.batch": 8,
}


def shrunk(variant: Variant) -> Variant:
    """The recipe with smaller images and batches and, where it is trained from scratch, a thinner network."""
    resolved, params = get(variant.method)(**variant.params).resolve(), dict(variant.params)
    names = dict(resolved.declared_deep())
    if resolved["size"] > 128:
        params["size"] = 64
    if "width" in names and resolved["weights"] is None:
        params["width"] = 0.125
    for name, value in SMALL.items():
        group = name.rpartition(".")[0]
        if name in names and (not group or resolved[group] is not None) and resolved[name] is not None:
            params[name] = value
    if "stage_one.batch" in params:  # The rate belongs to the batch.
        params["stage_one.lr"] = resolved["stage_one.lr"] * SMALL["stage_one.batch"] / resolved["stage_one.batch"]
    return replace(variant, params=params)
