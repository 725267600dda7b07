"""``anomem bench``: output, files, errors, interruption."""

from __future__ import annotations

import json
import signal
import sys
import time
from pathlib import Path

import pytest

from anomem.benchmark.run_file import read_runs
from tests.cli.process import COMMAND, Command, Run, environment, running

TINY = ("--methods", "knn", "--set", "knn.size=32", "--data", "textures/brick", "--limit", "9")


def test_runs_resumes_and_says_so(here: Run, tmp_path: Path) -> None:
    code, out, err = here("bench", "localisation", *TINY, "--out", "r.jsonl")
    assert (code, err) == (0, "")
    mean, done = out.splitlines()
    assert mean.startswith("localisation: textures brick, knn: image AUROC ")
    assert done.startswith("r.jsonl: 1 unit of work, 0 done before, 1 now (")
    (line,) = read_runs(tmp_path / "r.jsonl")
    assert line["seed"] == 0
    before = (tmp_path / "r.jsonl").read_bytes()

    code, out, err = here("bench", "localisation", *TINY, "--out", "r.jsonl", "--json")
    assert (code, err) == (0, "")
    result = json.loads(out)
    assert (result["n_units"], result["n_before"], result["n_done"]) == (1, 1, 0)
    assert result["failed"] == result["left_out"] == []
    assert result["out"] == "r.jsonl"
    (row,) = result["means"]
    assert row["image_auroc"]["mean"] == line["image"]["auroc"]
    assert (row["method"], row["categories"], row["n"]) == ("knn", ["brick"], 1)
    assert (tmp_path / "r.jsonl").read_bytes() == before, "nothing to do, nothing written"


def test_failures_are_named_and_tried_again(here: Run, tmp_path: Path) -> None:
    asked = ("bench", "distance-variance", *TINY, "--out", "r.jsonl")
    code, out, err = here(*asked)
    assert code == 1
    assert err == (
        "anomem: note: failed: distance-variance textures/brick knn seed=0 ridge=0.01 most=256: "
        "knn: no distribution per position; use padim or fyd\n"
    )
    assert "1 failed; rerun the same command to retry" in out
    code, out, _ = here(*asked, "--json")
    assert code == 1
    assert json.loads(out)["failed"][0]["unit"].startswith("distance-variance textures/brick knn")
    assert (tmp_path / "r.jsonl").read_text() == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["smok"], "no suite, protocol or sweep 'smok'; did you mean smoke?"),
        (["promise"], "promise: no image set; name one with --data, for example --data textures/brick"),
        (
            ["promise", "--data", "textures/sand"],
            "textures/sand: no texture 'sand'; choose one of brick, grass, gravel",
        ),
        (["promise", "--data", "no/such"], "no/such: no such folder and no image set of the catalogue"),
        (["promise", "--data", "textures"], "textures: promise needs a set that defines its normals"),
        (["smoke", "--methods", "kn"], "there is no method 'kn'; did you mean knn?"),
        (["smoke", "--methods", "iforest"], "suite smoke has no part with iforest"),
        (
            ["smoke", "--set", "knn.k=0"],
            "--set knn.k=0 is not allowed; expected an integer >= 1",
        ),
        (["smoke", "--set", "promise.alphas=[0]"], "--set promise.alphas=(0,) is not allowed"),
        (["smoke", "--seeds", "0,one"], "0,one; expected whole numbers"),
        (["smoke", "--out", "no/r.jsonl"], "the folder"),
        (["smoke", "--root", "nowhere"], "nowhere: no such folder; name the folder of the image sets"),
        (["smoke", "--jobs", "0"], "0 is not in the range x>=1"),
        ([], "Missing argument"),
    ],
)
def test_errors_are_one_line(here: Run, tmp_path: Path, arguments: list[str], said: str) -> None:
    code, out, err = here("bench", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("anomem: error: ")
    assert said in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_other_files_are_not_written_to(here: Run, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine\n")
    code, _, err = here("bench", "localisation", *TINY, "--out", "notes.txt")
    assert code == 2
    assert err == "anomem: error: notes.txt: line 1 is no run of anomem bench; choose another file\n"
    assert (tmp_path / "notes.txt").read_text() == "mine\n"


def test_help_names_everything(here: Run) -> None:
    code, out, _ = here("bench", "--help")
    assert code == 0
    for option in ("--methods", "--data", "--set", "--seeds", "--out", "--jobs", "--limit", "--json", "--dry-steps"):
        assert option in out


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent otherwise there")
@pytest.mark.slow
@pytest.mark.parametrize("jobs", [pytest.param(1, marks=pytest.mark.ci_sample), 2])
def test_interrupted_it_says_how_to_go_on(anomem: Command, tmp_path: Path, jobs: int) -> None:
    asked = ["bench", "one-vs-rest", "--methods", "knn", "--set", "knn.size=32", "--data", "textures", "--limit", "9"]
    asked += ["--set", "one-vs-rest.gammas=[0]", "--out", "r.jsonl", "--jobs", str(jobs)]
    asked += ["--seeds", ",".join(map(str, range(40)))]
    with running([*COMMAND, *asked], cwd=tmp_path, env=environment()) as process:
        while not (tmp_path / "r.jsonl").exists() or not read_runs(tmp_path / "r.jsonl"):
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
    held = len(read_runs(tmp_path / "r.jsonl"))
    assert process.returncode == 130
    assert out == ""
    assert err == (f"anomem: interrupted; r.jsonl holds {held} of 120 units; rerun the same command to resume\n")
    assert 1 <= held < 120
