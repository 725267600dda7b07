"""Scripts of benchmarks/: importable, resumable, with lines that a report reads."""

from __future__ import annotations

import importlib
from argparse import Namespace
from pathlib import Path
from typing import Any

import benchmarks.common
from anomem.report.benchmark.measurements import read_measurements
from benchmarks.common import Bench, Row, spread

FOLDER = Path(benchmarks.common.__file__).parent
PEERS = ("run", "lines", "sides")
"""Scripts of ours; the others need the libraries of their own environments."""


def bench(folder: Path, name: str = "speed", limit: int | None = None) -> Bench:
    return Bench(name, name.title(), Namespace(cache=folder / "cache", limit=limit, threads=1, out=folder / "p.jsonl"))


def test_every_script_can_be_imported() -> None:
    names = [f"performance.{path.stem}" for path in sorted((FOLDER / "performance").glob("*.py"))]
    names += [f"campaign.{path.stem}" for path in sorted((FOLDER / "campaign").glob("*.py"))]
    for name in [*names, *(f"peers.{stem}" for stem in PEERS)]:
        importlib.import_module(f"benchmarks.{name}")
    assert len(names) > 8


def test_a_unit_is_computed_once_and_kept_for_the_next_run(tmp_path: Path) -> None:
    calls: list[int] = []

    def work() -> dict[str, Any]:
        calls.append(1)
        return {"seconds": len(calls)}

    first = bench(tmp_path)
    assert [first.unit({"round": turn}, work)["seconds"] for turn in (0, 0, 1)] == [1, 1, 2]
    assert bench(tmp_path).unit({"round": 0}, work) == {"seconds": 1}
    assert bench(tmp_path, limit=3).unit({"round": 0}, work) == {"seconds": 3}


def test_lines_replace_those_of_the_same_script_alone(tmp_path: Path) -> None:
    bench(tmp_path, "latency").write([Row("Cold", "import", {"s": 0.5})])
    for seconds in (1.0, 2.0):
        rows = [Row("Fits", "tile", {"s": spread([seconds, seconds])}), Row("Fits", "wood", {"s": None})]
        bench(tmp_path).write(rows, notes=["Warm."])
    found = read_measurements([tmp_path / "p.jsonl"])
    assert [(m.protocol, m.case) for m in found] == [("latency", "import"), ("speed", "tile"), ("speed", "wood")]
    assert found[1].figures == {"s": {"mean": 2.0, "sd": 0.0, "n": 2}}
    assert found[1].line["notes"] == ["Warm."]
    assert found[1].line["made_by"]["threads"] == 1


def test_a_try_leaves_the_committed_lines_alone(tmp_path: Path) -> None:
    path = bench(tmp_path, limit=2).write([Row("Fits", "tile", {"s": 1.0})])
    assert not (tmp_path / "p.jsonl").exists()
    assert tmp_path / "cache" in path.parents
