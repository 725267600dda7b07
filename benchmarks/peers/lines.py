"""Run lines of peers, so that a report on runs of `anomem bench` can put them beside ours.

A peer stands there as one more method of the protocol ``localisation``. What a peer does not have is null or absent:
calibration, decisions, a state.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.common import opened

MEBIBYTE = 2**20 / 1e6
HARDWARE = ("system", "cpu", "cores", "memory_gb", "gpu", "device", "threads")


Measured = tuple[str, str, dict[str, Any], dict[str, Any]]
"""Name and title of a peer, the options it was given, and what was measured."""


def write_lines(path: Path, units: Iterable[Measured], limit: int | None) -> None:
    """Add a line for each unit to a file of run lines, unless it is there.

    Parameters
    ----------
    path : Path
        Made where it is missing.
    units : iterable of Measured
    limit : int or None
        Images of each kind at most.
    """
    from anomem.benchmark.run_file import RunFile

    with RunFile(path) as journal:
        for measured in units:
            line = line_of(measured, limit)
            if line["key"] not in journal.keys:
                journal.append(line)


def line_of(measured: Measured, limit: int | None) -> dict[str, Any]:
    """The line of one measurement, as ``docs/benchmarking.md`` describes it."""
    from anomem.benchmark.environment import made_by
    from anomem.benchmark.unit import FORMAT, Task, Unit, Variant

    name, title, given, unit = measured
    data = opened(unit["set"], limit)
    task = Task("localisation", data.name, data.category, facts={"maps": True})
    found = {key: unit[key] for key in ("epochs", "steps", "coreset_items") if unit[key] is not None}
    made = Unit(task, Variant(name, given, title), unit["seed"], limit)
    machine = {key: value for key, value in made_by("cpu", unit["threads"]).items() if key in HARDWARE}
    return {
        "format": FORMAT,
        "key": made.key,
        "protocol": task.protocol,
        "data": data.name,
        "set": data.title,
        "category": data.category,
        "group": data.group,
        "role": data.role,
        "train": {},
        "task": task.facts,
        "method": name,
        "label": title,
        "sweep": None,
        "parameters": given,
        "resolved": {**given, **found},
        "seed": unit["seed"],
        "limit": limit,
        "dry_steps": None,
        "n_fit": {"train": unit["n_train"]},
        **unit["line"],
        "made_by": {**unit["versions"], **machine},
        "measured": {
            "seconds": {"total": unit["whole_seconds"], "fit": unit["fit_seconds"], "score": unit["score_seconds"]},
            "peak_mb": {"fit": unit["peak_rss_fit_mb"] * MEBIBYTE, "score": unit["peak_rss_mb"] * MEBIBYTE},
            "images_per_second": unit["images_per_second"],
            "started": unit["started"],
        },
    }
