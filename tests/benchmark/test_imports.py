"""Imports between benchmark modules go in one direction."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import anomem

ROOT = Path(anomem.__file__).parent
ROOM = "anomem.benchmark"


def imported(path: Path) -> set[str]:
    """Modules of the room that a module imports, at its head or inside a function."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(ROOM):
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names if alias.name.startswith(ROOM))
    return found


def test_no_module_of_the_benchmark_imports_in_a_circle() -> None:
    paths = {
        f"anomem.{'.'.join(path.relative_to(ROOT).with_suffix('').parts)}": path
        for path in (ROOT / "benchmark").rglob("*.py")
    }
    graph = {name: imported(path) & paths.keys() for name, path in paths.items()}
    order = list(TopologicalSorter(graph).static_order())  # CycleError names the circle
    assert order.index(f"{ROOM}.execute") < order.index(f"{ROOM}.workers") < order.index(f"{ROOM}.run")
