"""`score --engine processes`: counts, and one line for every mistake."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.cli.process import COMMAND, Command, Run, Shop, environment, running

SHARDS = ("--engine", "processes", "--shard-images", 4, "--workers", 0)


def test_counts_of_a_run(here: Run, shop: Shop) -> None:
    code, out, err = here("score", shop.knn, shop.data / "test", "--out", "run", *SHARDS, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert (found["n"], found["errors"], found["shards"], found["computed"]) == (10, 0, 3, 3)
    rows = [row for i in range(3) for row in pq.read_table(f"run/shards/{i:06d}.parquet").to_pylist()]
    code, out, err = here("score", shop.knn, shop.data / "test", "--json")
    assert [row["path"] for row in rows] == [row["path"] for row in json.loads(out)["results"]]
    assert found["anomalous"] == sum(row["anomalous"] for row in json.loads(out)["results"])
    code, out, _ = here("score", shop.knn, shop.data / "test", "--out", "run", *SHARDS)
    assert out.endswith("3 shards in run, 0 of them computed now\n")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("test", "--engine", "processes"), "--engine processes: results are a folder of shards; name it as --out"),
        (("test", "--out", "run", *SHARDS, "--fdr", 0.1), "--fdr: judges all images together"),
        (("test", "--out", "run", *SHARDS, "--address", "here"), "--address: is of a Ray cluster"),
        (("test", "--shard-images", 3), "--shard-images: is for --engine processes or ray"),
        (("s3://parts/a.png",), "s3://parts/a.png: is a URL"),
        (("a.tar",), "a.tar: is a tar"),
        (("gone.tar", "--out", "run", *SHARDS), "gone.tar: no such file"),
        (("gone.parquet", "--out", "run", *SHARDS), "gone.parquet: No such file"),
        (("odd://parts", "--out", "run", *SHARDS), "odd://parts: cannot be read (Protocol not known"),
        (("test", "--out", "no/run", *SHARDS), "the folder"),
    ],
)
def test_mistakes_are_one_line(here: Run, shop: Shop, options: tuple[object, ...], said: str) -> None:
    places = [shop.data / "test" if option == "test" else option for option in options]
    code, out, err = here("score", shop.knn, *places)
    assert (code, out) == (2, "")
    (line,) = [line for line in err.splitlines() if not line.startswith("anomem: note")]
    assert said in line
    assert not Path("run/shards").exists()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").exists(), reason="reads /proc")
def test_a_killed_worker_is_replaced_and_a_killed_run_continues(anomem: Command, shop: Shop, tmp_path: Path) -> None:
    arguments = ["score", shop.knn, shop.data, "--out", "run", "--engine", "processes", "--shard-images", 1]
    arguments += ["--workers", 1, "--json"]

    def shards() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (tmp_path / "run" / "shards").glob("*.parquet")}

    with running([*COMMAND, *map(str, arguments)], cwd=tmp_path, env=environment()) as process:
        _wait(lambda: len(shards()) > 2)
        (worker,) = _workers(process.pid)
        os.kill(worker, signal.SIGKILL)
        finished = len(shards())
        _wait(lambda: len(shards()) > finished + 1)
        process.kill()
    before = shards()
    found = anomem(*arguments).result
    assert (found["n"], found["errors"], found["shards"]) == (40, 0, 40)
    assert found["computed"] <= 40 - len(before)
    assert {name: content for name, content in shards().items() if name in before} == before
    whole = anomem(*(argument if argument != "run" else "whole" for argument in arguments)).result
    assert whole["computed"] == 40
    assert {path.name: path.read_bytes() for path in (tmp_path / "whole" / "shards").iterdir()} == shards()


def _workers(pid: int) -> list[int]:
    """Children that compute; multiprocessing has another one."""
    children = map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    return [child for child in children if "spawn_main" in Path(f"/proc/{child}/cmdline").read_text()]


def _wait(happened: object) -> None:
    assert callable(happened)
    deadline = time.monotonic() + 120
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_paragraphs_of_help_stay_apart(here: Run) -> None:
    _, out, _ = here("fit", "--help")
    lines = [line.strip() for line in out.splitlines()]
    for start in ("--calibration auto takes", "--extend fits"):
        (row,) = (i for i, line in enumerate(lines) if line.startswith(start))
        assert lines[row - 1] == ""
