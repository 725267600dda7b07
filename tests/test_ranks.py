"""Two ranks of torchrun learn what one process learns from the same training batches.

Tolerance: a rank computes maps of half a batch, whose convolutions may sum in another order, so that values differ in
the last digits of float32 (1e-7 relative); training steps magnify that. 1e-4 of the largest score is far below the
spread of normal scores, and losses agree to 1e-5. Two methods magnify rounding without limit: PLUME by its adversarial
training, and AnoMem, which chooses its items among distances of 8 bits. Their two ranks are compared with one process
whose batches are a rank's part.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from anomem.data.synthetic import crops
from anomem.detectors import DETECTORS
from tests.cli.process import LIMIT, completed, environment

ROOT = Path(__file__).parents[1]
SCORES, LOSSES = 1e-4, 1e-5


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """37 normal images, an odd number, and four with a defect."""
    folder = tmp_path_factory.mktemp("images")
    for kind, count in (("normal", 37), ("defect", 4)):
        (folder / kind).mkdir()
        for i, image in enumerate(crops("brick", count, size=72, half="train", rng=np.random.default_rng(0))):
            marked = image.copy()
            if kind == "defect":
                marked[20:40, 20:40] = 255
            Image.fromarray(marked).save(folder / kind / f"{i:02}.png")
    return folder


NAMES = (*DETECTORS, "anomem-frozen", "anomem-barlow", "simclr-scratch")
PARTS = ("plume", "anomem", "anomem-frozen", "anomem-barlow")
"""Compared with one process whose batches are a rank's part."""


def fitted(images: Path, names: Sequence[str], ranks: int, folder: Path) -> dict[str, dict[str, Any]]:
    out = folder / f"{ranks}.json"
    start = [sys.executable, "-m"]
    if ranks > 1:
        start += ["torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks), "-m"]
    variables = environment(OMP_NUM_THREADS="1", PYTHONPATH=f"{ROOT / 'src'}:{ROOT}")
    arguments = ["tests.ranks", images, ",".join(names), out]
    ran = completed([*start, *arguments], cwd=folder, env=variables, timeout=20 * LIMIT)
    assert ran.returncode == 0, ran.stderr[-3000:]
    found = json.loads(out.read_text())
    assert isinstance(found, dict)
    return found


@pytest.fixture(scope="module")
def learnt(images: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any]]:
    """What one process and two ranks learnt, by method."""
    folder = tmp_path_factory.mktemp("learnt")
    return fitted(images, [*NAMES, *(f"{name}-half" for name in PARTS)], 1, folder), fitted(images, NAMES, 2, folder)


def differences(one: dict[str, Any], two: dict[str, Any]) -> dict[str, float]:
    """Largest difference of scores and of losses, relative to the largest value."""
    return {
        name: float(np.abs(np.subtract(one[name], two[name])).max() / max(np.abs(one[name]).max(), 1e-12))
        for name in ("scores", "calibration", "losses")
        if one[name]
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if name != "simclr-scratch"])
def test_two_ranks_learn_what_one_process_learns(learnt: tuple[dict[str, Any], dict[str, Any]], name: str) -> None:
    one, two = learnt[0][f"{name}-half" if name in PARTS else name], learnt[1][name]
    assert "error" not in one, one
    assert "error" not in two, two
    assert len(one["losses"]) == len(two["losses"])
    found = differences(one, two)
    assert found["scores"] <= SCORES
    assert found["calibration"] <= SCORES
    assert found.get("losses", 0.0) <= LOSSES


@pytest.mark.slow
def test_batch_statistics_are_refused_with_the_reason(learnt: tuple[dict[str, Any], dict[str, Any]]) -> None:
    one, two = (found["simclr-scratch"] for found in learnt)
    assert "error" not in one
    assert two["error"].startswith("torchrun: batch normalisation in training sees its rank's part of the batch only")


@pytest.mark.slow
def test_parity_is_recorded(learnt: tuple[dict[str, Any], dict[str, Any]], results_dir: Path) -> None:
    one, two = learnt
    found = {name: two[name].get("error") or differences(one[name], two[name]) for name in NAMES}
    for name in PARTS:
        found[f"{name}, one process with batches of a rank's part"] = differences(one[f"{name}-half"], two[name])
    bounds = {"scores": SCORES, "losses": LOSSES}
    (results_dir / "ranks.json").write_text(json.dumps({"bounds": bounds, "methods": found}, indent=1) + "\n")
    assert len(found) == len(NAMES) + len(PARTS)


@pytest.mark.slow
def test_three_ranks_have_uneven_parts(images: Path, tmp_path: Path) -> None:
    one, three = (fitted(images, ["knn"], ranks, tmp_path)["knn"] for ranks in (1, 3))
    assert max(differences(one, three).values()) <= SCORES


@pytest.mark.slow
def test_the_command_writes_on_the_first_rank_only(images: Path, tmp_path: Path) -> None:
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "anomem"]
    variables = environment(OMP_NUM_THREADS="1")
    fit = [*start, "fit", images / "normal", "--out", "m", "--method", "knn", "--set", "size=64", "--json"]
    ran = completed(fit, cwd=tmp_path, env=variables)
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert json.loads(ran.stdout)["n_train"] == 37
    assert [path.name for path in tmp_path.iterdir()] == ["m"]
    ran = completed([*start, "score", "m", images], cwd=tmp_path, env=variables)
    assert ran.returncode != 0
    assert "torchrun: score runs in one process" in ran.stderr
