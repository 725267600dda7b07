"""Run lines of peers, for reports beside runs of `anomem bench`.

A peer is a further method of the protocol ``localisation``. Values that peers lack are null or absent: calibration,
decisions, a state.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.common import opened

MEBIBYTE = 2**20 / 1e6
HARDWARE = ("system", "cpu", "cores", "memory_gb", "gpu", "device", "threads")


Measured = tuple[str, str, dict[str, Any], dict[str, Any]]
"""Name and title of a peer, its options, and its measurements."""


def write_lines(path: Path, units: Iterable[Measured], limit: int | None) -> None:
    """Append a line per unit to a file of run lines, unless present.

    Parameters
    ----------
    path : Path
        Created where it is missing.
    units : iterable of Measured
    limit : int or None
        Maximum number of images per kind.
    """
    from anomem.benchmark.run_file import RunFile

    with RunFile(path) as journal:
        for measured in units:
            line = line_of(measured, limit)
            if line["key"] not in journal.keys:
                journal.append(line)


def line_of(measured: Measured, limit: int | None) -> dict[str, Any]:
    """Return the run line of one measurement, as in ``docs/benchmarking.md``."""
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
