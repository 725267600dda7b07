"""The same shards on Ray: workers that die are replaced, and either engine continues what the other began."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from anomem.scale import score_shards
from tests.cli.process import completed, environment, running
from tests.scale.images import model, rows_of, write_images

pytestmark = [pytest.mark.slow]
ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'anomem[ray]'", exc_type=ImportError)

CALL = """
import json, sys
from dataclasses import asdict
from anomem.scale import score_shards
found = score_shards(*sys.argv[1:2], sys.argv[2:3], sys.argv[3], engine=sys.argv[4], workers=2, shard_images=2)
print(json.dumps(asdict(found), default=str))
"""


def command(fitted: Path, images: Path, run: Path, engine: str = "ray") -> list[str]:
    return [sys.executable, "-c", CALL, str(fitted), str(images), str(run), engine]


def contents(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (run / "shards").glob("*.parquet")}


def ray_workers() -> list[int]:
    """Processes that compute shards; those of Ray itself end the cluster with them."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if (place / "cmdline").read_text().startswith("ray::MapBatches"):
                found.append(int(place.name))
        except OSError:
            pass
    return found


def test_ray_writes_the_shards_of_processes(tmp_path: Path) -> None:
    fitted = model(tmp_path)
    write_images(tmp_path / "in", 9)
    score_shards(fitted, [tmp_path / "in"], tmp_path / "one", workers=0, shard_images=2)
    ran = completed(command(fitted, tmp_path / "in", tmp_path / "two"), cwd=tmp_path, env=environment())
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["computed"] == 5
    assert contents(tmp_path / "two") == contents(tmp_path / "one")
    (tmp_path / "two" / "shards" / "000002.parquet").unlink()
    assert score_shards(fitted, [tmp_path / "in"], tmp_path / "two", workers=0, shard_images=2).computed == 1
    assert contents(tmp_path / "two") == contents(tmp_path / "one")


def test_killed_workers_are_replaced_and_no_row_is_lost(tmp_path: Path) -> None:
    fitted = model(tmp_path)
    write_images(tmp_path / "in", 300)
    kills = 0
    with running(command(fitted, tmp_path / "in", tmp_path / "run"), cwd=tmp_path, env=environment()) as process:
        deadline = time.monotonic() + 270
        while process.poll() is None and kills < 3:
            assert time.monotonic() < deadline, "hangs"
            time.sleep(0.1)
            if len(list((tmp_path / "run" / "shards").glob("*.parquet"))) > 20 * kills:
                for worker in ray_workers()[:1]:
                    os.kill(worker, signal.SIGKILL)
                    kills += 1
        out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    assert kills
    rows = rows_of(tmp_path / "run")
    assert len({row["path"] for row in rows}) == len(rows) == json.loads(out)["n"] == 300


def test_no_cluster_at_an_address_is_one_line(tmp_path: Path) -> None:
    fitted = model(tmp_path)
    write_images(tmp_path / "in", 3)
    arguments = [sys.executable, "-m", "anomem", "score", fitted, tmp_path / "in", "--out", tmp_path / "run"]
    arguments += ["--engine", "ray", "--address", "127.0.0.1:1"]
    ran = completed(arguments, cwd=tmp_path, env=environment())
    assert ran.returncode == 2
    assert ran.stderr.splitlines()[-1].startswith("anomem: error: ray: no cluster at 127.0.0.1:1")
