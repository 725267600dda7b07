"""Runs end to end: their lines, independent of kills, number of workers and order."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anomem.benchmark.execute import Outcome, load_scores
from anomem.benchmark.fits import Settings
from anomem.benchmark.plan import Wanted, parse_settings, parts_of, plan
from anomem.benchmark.run import groups, run
from anomem.benchmark.run_file import RunFile, read_runs
from anomem.benchmark.suites import Part
from anomem.benchmark.unit import Unit, Variant, canonical
from tests.cli.process import LIMIT, completed, environment, running
from tests.conftest import WriteImages

ROOT = Path(__file__).parents[2]
KNN = Variant("knn", {"size": 32})
ANOMEM = Variant("anomem", {"preset": "object", "size": 64, "memory_size": (8,)})
BRICK, FEW = ("textures/brick",), Wanted(limit=8)
needs_signals = pytest.mark.skipif(sys.platform == "win32", reason="signals are sent otherwise there")


def without_times(lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Lines by their key, without what was measured."""
    found = [{name: value for name, value in line.items() if name != "measured"} for line in lines]
    for line in found:  # somebody may be editing the package while its tests run
        line["made_by"] = {name: v for name, v in line["made_by"].items() if name not in ("source", "revision")}
    return sorted(found, key=lambda line: str(line["key"]))


def run_all(units: Sequence[Unit], path: Path, **options: Any) -> list[Outcome]:
    with RunFile(path) as run_file:
        return list(run(units, run_file, Settings(workers=0), **options))


# --- lines --------------------------------------------------------------------------------------

PARTS = (
    Part("localisation", BRICK, (ANOMEM,)),
    Part("few-labels", BRICK, (ANOMEM,), {"k": (0, 1, 3), "draws": 1}),
    Part("few-labels", BRICK, (KNN,), {"k": (0, 1, 3), "draws": 2}),
    Part("cross-type", BRICK, (ANOMEM,), {"types": ("hole",)}),
    Part("promise", BRICK, (KNN,), {"alphas": (0.01, 0.25), "redraws": 3}, (0,)),
    Part("distance-variance", BRICK, (Variant("padim", {"size": 32, "n_channels": 8}),), {"most": 12}),
    Part("disturbed", BRICK, (KNN,), {"kinds": ("spatial",)}),
    Part("out-of-distribution", BRICK, (KNN,), {"against": ("textures/gravel",)}),
    Part("one-vs-rest", ("textures",), (KNN,), {"classes": ("brick",)}),
    Part("linear-evaluation", ("textures",), (KNN,)),
)


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Every protocol once, on a few small images."""
    folder = tmp_path_factory.mktemp("runs")
    units = plan(PARTS, FEW).units
    with RunFile(folder / "runs.jsonl") as run_file:
        outcomes = list(run(units, run_file, Settings(workers=0, scores=folder / "scores")))
    assert [outcome.error for outcome in outcomes if outcome.error] == []
    found = read_runs(folder / "runs.jsonl")
    for line in found:
        kept = folder / "scores" / f"{line['key']}.npz"
        assert kept.exists() == (line["scores_sha256"] is not None)
        line["kept"] = load_scores(kept) if kept.exists() else None
    assert {line["key"] for line in found} == {unit.key for unit in units}
    return found


def of(lines: Sequence[dict[str, Any]], protocol: str, **facts: Any) -> list[dict[str, Any]]:
    chosen = [line for line in lines if line["protocol"] == protocol]
    return [line for line in chosen if all({**line, **line["task"]}[name] == v for name, v in facts.items())]


def test_every_line_says_what_it_is(lines: list[dict[str, Any]]) -> None:
    always = {
        *("format", "key", "protocol", "data", "set", "category", "group", "role", "train", "task", "method", "label"),
        *("sweep", "parameters", "seed", "limit", "dry_steps", "resolved", "n_fit", "history", "notes", "state_mb"),
        *("scores_sha256", "images_sha256", "made_by", "measured"),
    }
    for line in lines:
        assert always <= line.keys()
        assert line["format"] == 1
        assert line["limit"] == 8
        assert line["resolved"]["size"] == line["parameters"]["size"]
        assert line["state_mb"] > 1
        assert line["made_by"]["torch"]
        assert line["made_by"]["threads"] == 1
        assert line["measured"]["seconds"]["fit"] > 0
        assert line["measured"]["peak_mb"]["fit"] > 50
    assert len({line["key"] for line in lines}) == len(lines)


def test_all_k_of_a_draw_are_judged_on_the_same_images(lines: list[dict[str, Any]]) -> None:
    found = of(lines, "few-labels", draw=0)
    assert [(line["method"], line["task"]["k"]) for line in found] == [
        *(("anomem", k) for k in (0, 1, 3)),
        ("knn", 0),
    ]
    assert len({line["images_sha256"] for line in found}) == 1
    assert {json.dumps(line["n_test"]) for line in found} == {json.dumps({"normal": 8, "anomalous": 27, "left_out": 0})}
    assert [line["labelled"]["n"] for line in found if "labelled" in line] == [1, 3]
    assert [line["n_fit"]["n_labelled"] for line in found] == [0, 1, 3, 0]
    assert [line["measured"]["concluded"] for line in found] == [False, True, True, False]
    (other,) = of(lines, "few-labels", draw=1)
    assert other["images_sha256"] != found[0]["images_sha256"]


def test_one_fit_serves_all_that_agree_in_it(lines: list[dict[str, Any]]) -> None:
    fits = [line for line in lines if line["method"] == "anomem"]
    assert len(fits) == 1 + 3 + 2
    assert [line["measured"]["shared_fit"] for line in fits] == [False] + [True] * 5
    assert len({line["measured"]["seconds"]["fit"] for line in fits}) == 1


def test_the_unseen_type_is_judged_alone_and_never_labelled(lines: list[dict[str, Any]]) -> None:
    one_class, labelled = of(lines, "cross-type")
    for line in (one_class, labelled):
        assert list(line["types"]) == ["hole"]
        assert line["n_test"] == {"normal": 8, "anomalous": 6, "left_out": 0}
    assert "hole" not in labelled["labelled"]["kinds"]
    assert sum(labelled["labelled"]["kinds"].values()) == 24
    assert one_class["images_sha256"] == labelled["images_sha256"]


def test_maps_are_judged_where_they_are_asked_for(lines: list[dict[str, Any]]) -> None:
    (located,) = of(lines, "localisation")
    assert 0 <= located["pixel"]["aupro"] <= 1
    assert located["pixel"]["n_regions"] >= 30
    assert of(lines, "few-labels", method="anomem")[0]["pixel"] is None
    assert of(lines, "disturbed")[0]["pixel"] is None, "the method draws none"


def test_other_figures(lines: list[dict[str, Any]]) -> None:
    tight, wide = of(lines, "promise")
    assert not tight["splits"]["attainable"]
    assert wide["splits"]["attainable"]
    assert len(wide["splits"]["each"]) == 3
    (foreign,) = of(lines, "out-of-distribution")
    assert foreign["category"] == "textures/gravel"
    assert list(foreign["types"]) == ["textures/gravel"]
    assert foreign["n_test"]["anomalous"] == 38
    (compact,) = of(lines, "distance-variance")
    assert compact["n_normals"] == 8
    assert 0 < compact["distance_variance"] < 10
    assert compact["distance_variance_scale_free"] != compact["distance_variance"]
    (linear,) = of(lines, "linear-evaluation")
    assert linear["accuracy"] > 0.8
    (rest,) = of(lines, "one-vs-rest")
    assert rest["train"] == {"normal": ["brick"]}
    assert sorted(rest["types"]) == ["grass", "gravel"]


def test_kept_scores_are_those_that_were_judged(lines: list[dict[str, Any]]) -> None:
    from anomem.benchmark.unit import scores_digest
    from anomem.metrics import auroc

    for line in lines:
        if line["kept"] is not None:
            assert scores_digest(line["kept"]["scores"]) == line["scores_sha256"]
        if line.get("image"):
            assert auroc(line["kept"]["scores"], line["kept"]["labels"]) == line["image"]["auroc"]


# --- resuming -----------------------------------------------------------------------------------


def test_finished_units_are_not_done_again(tmp_path: Path) -> None:
    units = plan([Part("few-labels", BRICK, (KNN,), {"k": (0, 1), "draws": 3})], FEW).units
    path = tmp_path / "runs.jsonl"
    done = run_all(units[1:2], path)
    assert [outcome.unit.key for outcome in done] == [units[1].key]
    assert [outcome.unit.key for outcome in run_all(units, path)] == [units[0].key, units[2].key]
    assert run_all(units, path) == []
    whole = tmp_path / "whole.jsonl"
    run_all(units, whole)
    assert without_times(read_runs(path)) == without_times(read_runs(whole))
    assert path.read_text() != whole.read_text(), "times differ"


def test_a_unit_that_fails_does_not_end_the_run(tmp_path: Path) -> None:
    (good,) = plan([Part("localisation", BRICK, (KNN,))], FEW).units
    bad = [
        replace(good, task=replace(good.task, data="absent/folder")),
        replace(good, task=replace(good.task, protocol="distance-variance", facts={"ridge": 0.1, "most": 9})),
    ]
    outcomes = run_all([bad[0], good, bad[1]], tmp_path / "runs.jsonl")
    assert len(outcomes) == 3
    assert {outcome.unit.key for outcome in outcomes if outcome.line is None} == {unit.key for unit in bad}
    errors = {outcome.unit.key: outcome.error for outcome in outcomes}
    assert "no such folder" in errors[bad[0].key]
    assert "knn: no distribution per position" in errors[bad[1].key]
    assert [line["key"] for line in read_runs(tmp_path / "runs.jsonl")] == [good.key]


def test_groups_keep_the_order_and_share_a_fit() -> None:
    units = plan(PARTS, FEW).units
    found = groups(units)
    assert sorted(unit.key for group in found for unit in group) == sorted(unit.key for unit in units)
    for group in found:
        assert len({unit.fit_key for unit in group}) == 1
    assert found[0][0] is units[0]
    assert len({group[0].fit_key for group in found}) == len(found)


# --- kills --------------------------------------------------------------------------------------


def killed_and_whole(folder: Path, kills: int, write_images: WriteImages, draws: int) -> dict[str, object]:
    """Run a benchmark with kills, and once without: the same lines up to times. Return what was counted."""
    root = folder / "part"
    write_images(root / "train" / "good", 12)
    write_images(root / "test" / "good", 4, seed=1)
    write_images(root / "test" / "spot", 6, seed=2, spot=True)
    asked = ["bench", "few-labels", "--methods", "knn", "--data", "part", "--set", "knn.size=32"]
    asked += ["--set", "few-labels.k=[0,1]", "--set", f"few-labels.draws={draws}"]
    command = [sys.executable, "-m", "tests.benchmark.killed", str(kills), "0", *asked]
    paths = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    ran = completed(command, cwd=folder, env=environment(PYTHONPATH=paths), timeout=10 * LIMIT)
    assert ran.returncode == 0, ran.stderr
    assert "Traceback" not in ran.stderr
    whole, found = (read_runs(folder / f"{name}.jsonl") for name in ("whole", "killed"))
    keys = [[line["key"] for line in lines] for lines in (whole, found)]
    counted = {
        "kills": int(ran.stdout),
        "units": len(whole),
        "lines_lost": len(set(keys[0]) - set(keys[1])),
        "lines_doubled": len(keys[1]) - len(set(keys[1])),
        "equal_but_for_times": without_times(found) == without_times(whole),
    }
    expected = {"kills": kills, "units": draws, "lines_lost": 0, "lines_doubled": 0, "equal_but_for_times": True}
    assert counted == expected
    # As written: a kill leaves nothing between two lines.
    assert all(json.dumps(json.loads(t)) == t for t in (folder / "killed.jsonl").read_text().splitlines())
    return counted


@needs_signals
def test_killed_twice(tmp_path: Path, write_images: WriteImages) -> None:
    killed_and_whole(tmp_path, 2, write_images, draws=3)


@needs_signals
@pytest.mark.slow
def test_killed_twenty_times(tmp_path: Path, write_images: WriteImages, results_dir: Path) -> None:
    found = killed_and_whole(tmp_path, 20, write_images, draws=60)
    (results_dir / "kills.json").write_text(json.dumps(found, indent=1) + "\n")


# --- several processes --------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.ci_sample
def test_lines_do_not_depend_on_the_number_of_processes(tmp_path: Path) -> None:
    units = plan([Part("few-labels", BRICK, (KNN,), {"k": (0, 2), "draws": 3})], FEW).units
    alone = run_all(units, tmp_path / "one.jsonl")
    several = run_all(units, tmp_path / "two.jsonl", jobs=2)
    assert [outcome.error for outcome in (*alone, *several) if outcome.error] == []
    one, two = (read_runs(tmp_path / f"{name}.jsonl") for name in ("one", "two"))
    assert len(one) == len(units)
    assert without_times(one) == without_times(two)


def children(pid: int) -> set[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return {int(child) for child in found}


@needs_signals
@pytest.mark.slow
def test_processes_end_with_the_one_that_started_them(tmp_path: Path) -> None:
    """SIGKILL leaves nobody a chance to clean up: workers notice by themselves."""
    command = [sys.executable, "-m", "anomem", "bench", "one-vs-rest", "--methods", "knn", "--data", "textures"]
    command += ["--set", "one-vs-rest.gammas=[0]", "--seeds", "0,1,2,3", "--jobs", "2", "--out", "runs.jsonl"]
    command += ["--set", "knn.size=32", "--limit", "12"]
    deadline = time.monotonic() + LIMIT
    with running(command, cwd=tmp_path, env=environment(), stdout=None, stderr=subprocess.DEVNULL) as process:
        while not (tmp_path / "runs.jsonl").exists() or not read_runs(tmp_path / "runs.jsonl"):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        workers = children(process.pid)
        assert len(workers) >= 2
    while any(Path(f"/proc/{worker}").exists() for worker in workers):
        assert time.monotonic() < deadline, "workers outlived the process that started them"
        time.sleep(0.05)
    before = len(read_runs(tmp_path / "runs.jsonl"))
    completed(command, cwd=tmp_path, env=environment(), check=True)
    assert len(read_runs(tmp_path / "runs.jsonl")) == 12 > before


@needs_signals
@pytest.mark.slow
def test_a_process_that_dies_costs_one_unit(tmp_path: Path) -> None:
    units = plan([Part("one-vs-rest", ("textures",), (KNN,), {"gammas": (0.0,)}, (0, 1))], FEW).units
    outcomes, own = [], children(os.getpid())
    with RunFile(tmp_path / "runs.jsonl") as run_file:
        for outcome in run(units, run_file, Settings(workers=0), jobs=2):
            if not outcomes:
                victim = min(children(os.getpid()) - own)
                os.kill(victim, signal.SIGKILL)
            outcomes.append(outcome)
    lost = [outcome for outcome in outcomes if outcome.line is None]
    assert len(outcomes) == len(units)
    assert len(lost) <= 1
    assert all("killed by SIGKILL" in outcome.error for outcome in lost)
    assert len(read_runs(tmp_path / "runs.jsonl")) == len(units) - len(lost)


# --- what is asked for --------------------------------------------------------------------------


def test_keys_are_the_same_however_a_unit_is_written() -> None:
    (first,) = plan([Part("localisation", BRICK, (Variant("anomem", {"memory_size": (8,), "beta": 2.0}),))], FEW).units
    (second,) = plan(
        [Part("localisation", BRICK, (Variant("anomem", {"beta": 2.0, "memory_size": [8]}, "x"),))], FEW
    ).units
    assert first.key == second.key
    parts = parts_of(
        ["localisation"], data=BRICK, assigned=parse_settings(["anomem.beta=2.0", "anomem.memory_size=[8]"])
    )
    assert plan(parts, FEW).units[0].key == first.key
    others = [
        replace(first, seed=1),
        replace(first, limit=13),
        replace(first, dry_steps=2),
        replace(first, variant=Variant("anomem", {"memory_size": (8,), "beta": 2.5})),
        replace(first, variant=Variant("knn")),
        replace(first, task=replace(first.task, facts={"maps": False})),
        replace(first, task=replace(first.task, train={"normal": ["good"]})),
        replace(first, variant=replace(first.variant, sweep={"name": "beta", "parameter": "beta", "value": 2.0})),
    ]
    assert len({first.key, *(unit.key for unit in others)}) == 9
    assert canonical({"a": np.float64(0.5), "b": (1,)}) == '{"a":0.5,"b":[1]}'
