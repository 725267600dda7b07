"""Scripts that train encoders: the demonstration and the checks of a GPU, at the smallest size."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from anomem.benchmark.run_file import read_runs
from benchmarks.encoders.demonstration import ARMS, differences
from tests.cli.process import completed


def unit(arm: str, seed: int, probe: float) -> dict[str, Any]:
    figures = {"linear_probe": probe, "neighbours": 0.5, "ood_own": 0.6, "ood_centres": 0.5}
    return {"protocol": "encoders", "task": {"arm": arm, "seed": seed, "steps": 9, "images": 8}, "figures": figures}


def test_differences_pair_the_seeds() -> None:
    lines = [unit("no memory", seed, 0.3 + seed / 10) for seed in (0, 1, 2)]
    lines += [unit("memory, two scales", seed, 0.31 + seed / 10 + seed / 100) for seed in (0, 1)]
    (found,) = differences(lines)
    assert found["task"]["case"] == "memory, two scales"
    assert found["figures"]["linear probe, points"] == {"mean": 1.5, "sd": 0.71, "n": 2}
    assert found["figures"]["Hopfield above k-means centres, same encoder, AUROC, points"]["mean"] == 10.0


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CIFAR-10 and CIFAR-100 in miniature."""
    folder, rng = tmp_path_factory.mktemp("sets"), np.random.default_rng(0)
    for name, kinds in {"cifar10": ("cat", "dog"), "cifar100": ("oak_tree", "rose")}.items():
        for part, count in (("train", 20), ("test", 8)):
            for kind in kinds:
                for i in range(count):
                    path = folder / name / part / kind / f"{i:02}.png"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(path)
    return folder


@pytest.mark.slow
def test_the_demonstration_is_taken_up_again(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANOMEM_DATA", str(root))
    out = tmp_path / "lines.jsonl"
    command = [sys.executable, "-m", "benchmarks.encoders.demonstration", "--out", str(out), "--images", "40"]
    command += ["--steps", "2", "--test-images", "16", "--set", "stage_one.batch=8", "width=0.125", "--seeds", "0"]
    assert completed([*command, "--arms", "no memory"], timeout=550).returncode == 0
    assert {line["task"]["arm"] for line in read_runs(out)} == {"no memory"}
    assert completed([*command, "1"], timeout=550).returncode == 0
    lines = read_runs(out)
    assert [line["task"]["arm"] for line in lines if "arm" in line["task"]].count("no memory") == 2
    assert {line["task"]["arm"] for line in lines if "arm" in line["task"]} == set(ARMS)
    assert len([line for line in lines if "case" in line["task"]]) == len(ARMS) - 1
    assert not list(tmp_path.glob("*.checkpoint"))


@pytest.mark.slow
def test_checks_of_a_gpu_run_on_a_processor(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANOMEM_DATA", str(root))
    out = tmp_path / "gpu.jsonl"
    command = [sys.executable, "-m", "benchmarks.gpu_check", "--tiny", "--device", "cpu", "--out", str(out)]
    assert completed(command, timeout=550).returncode == 0
    found = {line["task"]["case"]: line["figures"] for line in read_runs(out)}
    assert all(value for figures in found.values() for name, value in figures.items() if "within" in name)
    assert len(found) == 5
    assert found["pmb, as printed"]["falls"]
