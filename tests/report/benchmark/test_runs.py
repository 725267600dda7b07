"""Run files in a report: accepted content, notes, errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from anomem.errors import InputError
from anomem.report.benchmark.line import Cost, Decision, run_of
from anomem.report.benchmark.runs import Sweep, clean, read_all
from tests.report.benchmark.lines import line, on, write


def test_several_files_make_one_report_and_shared_lines_count_once(tmp_path: Path) -> None:
    ours = [line(0.9), line(0.8, seed=1)]
    first = write(tmp_path / "ours.jsonl", ours)
    second = write(tmp_path / "more.jsonl", [ours[1], line(0.7, method="anomalib-padim")])
    found = read_all([first, second, first])
    assert [run.values["image_auroc"] for run in found.runs] == [0.9, 0.8, 0.7]
    assert [run.peer for run in found.runs] == [False, False, True]
    assert found.notes == (f"{second}: 1 lines are also in an earlier file; counted once.",)


def test_what_a_line_says_is_made_plain(tmp_path: Path) -> None:
    task = {"k": 3, "draw": 7, "apart": "hole", "maps": False}
    entry = line(0.9, half=0.02, protocol="cross-type", task=task, seed=2, **on("cifar100:coarse", category="fish"))
    (run,) = read_all([write(tmp_path / "r.jsonl", [entry])]).runs
    assert run.family == "cifar100:coarse"
    assert run.column == ("cifar100:coarse", "fish", "hole")
    assert run.facts == {"k": 3, "maps": False}
    assert run.repeat == (2, 7)
    assert run.intervals == {"image_auroc": (0.88, 0.92)}
    assert run.error("image_auroc") == pytest.approx(0.02 / 1.96, rel=1e-4)
    assert run.error("pixel_auroc") is None
    assert run.trial == (None, None)


def test_figures_of_a_line_are_typed_and_what_cannot_be_one_is_absent() -> None:
    found = run_of(
        line(
            0.9,
            at_alpha={"alpha": 0.05, "n_false": 2, "detection_rate": "all"},
            trivial={"mean_grey": 0.6, "std_grey": 1.5, "file_size": None},
            types={"hole": {"auroc": 0.8}, "crack": {"auroc": 7}, "odd": 3},
            roc={"fpr": [0.0, 0.5, 1.0], "tpr": [0.0, 0.9, 1.0]},
            history=[{"facts": {"items": 64, "effective_items": 20.5}}, {"facts": {"items": 0}}, 3],
            splits={"rate": 0.04, "expected": 0.05, "each": [{"within_quantile": True}, {}, 3]},
            measured={"seconds": {"fit": 3}, "peak_mb": {"fit": 90.0}, "maps_from_cache": {"hits": 2, "misses": 0}},
            state_mb=4.5,
            made_by={"version": "0.1.0", "cores": 2, "gpu": None},
            sweep={"name": "beta", "parameter": "beta", "value": [2.0]},
        ),
        "runs.jsonl: line 1",
    )
    assert found.decision == Decision(0.05, 2.0, None, None, None)
    assert found.trivial == {"mean_grey": 0.6}
    assert found.types == {"hole": 0.8}
    assert [column.tolist() for column in found.roc] == [[0.0, 0.5, 1.0], [0.0, 0.9, 1.0]]
    assert found.memory == ((64.0, 20.5),)
    assert (found.expected, found.within, found.values["false_alarm_rate"]) == (0.05, (True, False), 0.04)
    assert found.cost == Cost(3.0, None, 90.0, 4.5, from_cache=True)
    assert found.made_by == {"version": "0.1.0", "cores": "2"}
    assert found.sweep == Sweep("beta", "beta", [2.0])
    assert (found.n_normal, found.n_anomalous) == (60.0, 60.0)
    bare = run_of(line(0.9, roc={"fpr": [0.0, 1.0], "tpr": [0.0, "x"]}, measured=7, splits=[]), "runs.jsonl: line 1")
    assert (bare.roc, bare.within, bare.cost.fit_seconds) == (None, (), None)


def test_all_text_of_a_line_is_made_printable_on_reading() -> None:
    bad = "a\x1b[31m\n\u202e"
    found = run_of(
        line(
            0.9,
            **dict.fromkeys(("protocol", "data", "set", "category", "method", "label", "group"), bad),
            task={bad: bad, "apart": bad},
            parameters={bad: [bad, {bad: bad}]},
            sweep={"name": bad, "parameter": bad, "value": [bad]},
            types={bad: {"auroc": 0.5}},
            made_by={"version": bad},
        ),
        "runs.jsonl: line 1",
    )
    texts = [found.protocol, found.method, found.label, found.set, found.family, found.group, found.apart]
    texts += [*found.column, *texts_in(found.facts), *texts_in(found.params), *texts_in(found.types)]
    texts += [found.sweep.name, found.sweep.parameter, *texts_in(found.sweep.value), *texts_in(found.made_by)]
    assert len(texts) > 15
    assert all(text.isprintable() for text in texts), texts


def texts_in(value: Any) -> list[str]:
    """Every text of a JSON value, names included."""
    if isinstance(value, dict):
        return [text for pair in value.items() for entry in pair for text in texts_in(entry)]
    if isinstance(value, list):
        return [text for entry in value for text in texts_in(entry)]
    return [value] if isinstance(value, str) else []


def test_former_names_of_parameters_are_read_as_todays() -> None:
    former = {"preset": "object", "train_steps": 9, "crop": 0.5, "beta": 8.0, "label_head": "distance"}
    today = {
        "preset": "object",
        "beta": 8.0,
        "stage_one.steps": 9,
        "stage_one.views.crop": 0.5,
        "stage_two.learner": "distance",
    }
    old, new = (run_of(line(0.9, method="anomem", parameters=given), "f: line 1") for given in (former, today))
    assert (old.params, old.parameters, old.unit) == (new.params, new.parameters, new.unit)
    assert old.params == today
    swept = {"name": "steps", "parameter": "train_steps", "value": 0}
    sweep = run_of(line(0.9, method="anomem", parameters={"train_steps": 0}, sweep=swept), "f: line 1")
    assert sweep.params == {"stage_one": None}
    assert sweep.sweep.parameter == "stage_one.steps"


def test_unknown_parameters_of_other_versions_stay() -> None:
    given = {"beta": 8.0, "no_such": 1, "group.member": 2}
    assert run_of(line(0.9, method="anomem", parameters=given), "f: line 1").params == given


def test_a_peers_line_needs_little(tmp_path: Path) -> None:
    small = {"format": 1, "key": "a", "protocol": "localisation", "data": "magnetic_tile", "category": "magnetic_tile"}
    small |= {"method": "anomalib-padim", "seed": 0, "task": {}, "image": {"auroc": 0.9}}
    (run,) = read_all([write(tmp_path / "r.jsonl", [small])]).runs
    assert (run.label, run.family, run.images, run.parameters) == ("anomalib-padim", "magnetic_tile", None, "{}")


def test_a_line_that_was_not_finished_is_left_out_and_said(tmp_path: Path) -> None:
    path = write(tmp_path / "r.jsonl", [line(0.9)])
    path.write_text(path.read_text() + json.dumps(line(0.8, seed=1))[:300])
    found = read_all([path])
    assert len(found.runs) == 1
    assert found.notes == (f"{path}: incomplete last line left out; rerun its bench command to resume.",)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"protocol": 3}, "line 2: protocol is 3, not a name"),
        ({"method": ""}, "line 2: method is '', not a name"),
        ({"seed": "0"}, "line 2: seed is '0', not a whole number"),
        ({"seed": True}, "line 2: seed is True, not a whole number"),
        ({"task": []}, "line 2: task and parameters must be objects"),
        ({"task": {"draw": 0.5}}, "line 2: draw is 0.5, not a whole number"),
        ({"sweep": {"name": "beta"}}, "line 2: sweep needs name, parameter and value"),
        ({"image": {"auroc": float("nan")}}, "line 2: image.auroc is nan, not a fraction from 0 to 1 or null"),
        ({"image": {"auroc": 91.5}}, "line 2: image.auroc is 91.5, not a fraction from 0 to 1 or null"),
        ({"pixel": {"aupro": "0.9"}}, "line 2: pixel.aupro is '0.9', not a fraction"),
        ({"distance_variance": float("inf")}, "line 2: distance_variance is inf, not a finite number or null"),
        ({"image": {"auroc": 0.9, "auroc_ci": [0.95, 0.9]}}, "line 2: image.auroc_ci is [0.95, 0.9], not an interval"),
        ({"image": {"auroc": 0.9, "auroc_ci": 3}}, "line 2: image.auroc_ci is 3, not an interval"),
        ({"format": 2}, "line 2 has format 2, not 1"),
        ({"key": ["a"]}, "line 2 is no run of anomem bench"),
    ],
)
def test_a_line_that_cannot_be_used_is_named(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    path = write(
        tmp_path / "r.jsonl", [line(0.9), line(0.8, **{"seed": 5, "key": "b", "images_sha256": "x", **changes})]
    )
    with pytest.raises(InputError) as error:
        read_all([path])
    assert said in str(error.value)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


def test_two_answers_to_one_question_are_refused(tmp_path: Path) -> None:
    first = write(tmp_path / "a.jsonl", [line(0.9)])
    for name, other in (("same key", line(0.8)), ("other key", line(0.9, key="else", images_sha256="other"))):
        second = write(tmp_path / f"{name}.jsonl", [other])
        with pytest.raises(InputError, match=r"line 1: same unit of work as .*a.jsonl: line 1; leave one"):
            read_all([first, second])
    # A try with fewer images is another unit; so is a point of a sweep.
    more = [line(0.7, limit=9), line(0.8, sweep={"name": "s", "parameter": "p", "value": 1})]
    assert len(read_all([first, write(tmp_path / "more.jsonl", more)]).runs) == 3


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no finished unit of work; run anomem bench first"),
        (b'{"format": 1, "key"', "no finished unit of work"),
        (b"path,score\na.png,0.3\n", "line 1 is no run of anomem bench"),
        (b"\xff\xfe\x00 binary\n", "line 1 is no run of anomem bench"),
        (b"[1, 2]\n", "line 1 is no run of anomem bench"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "r.jsonl"
    path.write_bytes(content)
    with pytest.raises(InputError, match=said):
        read_all([path])


def test_a_line_twice_in_one_file_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "r.jsonl", [line(0.9), line(0.9)])
    with pytest.raises(InputError, match="line 2 repeats an earlier one; remove it"):
        read_all([path])


def test_names_are_made_printable() -> None:
    assert clean("a\nb\x1b[31m") == "a\\nb\\x1b[31m"
    assert clean("Größe 3 µm") == "Größe 3 µm"
    assert clean("\u202egnp") == "\\u202egnp"
    assert clean("x" * 500, 10) == "x" * 9 + "…"
