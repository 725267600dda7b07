"""Means of run lines: over draws and seeds, then over the categories of a set, of objects and textures apart."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["METRICS", "Mean", "means"]

METRICS: dict[str, tuple[str, ...]] = {
    "image_auroc": ("image", "auroc"),
    "image_ap": ("image", "ap"),
    "pixel_auroc": ("pixel", "auroc"),
    "aupro": ("pixel", "aupro"),
    "accuracy": ("accuracy",),
    "distance_variance": ("distance_variance",),
    "distance_variance_scale_free": ("distance_variance_scale_free",),
    "false_alarm_rate": ("splits", "rate"),
    "detection_rate": ("splits", "detection"),
}
"""Where a line has each figure that is averaged."""

_REPEATED = ("draw",)
ALL = "all"


@dataclass(frozen=True)
class Mean:
    """Mean figures of one method at one setting on one set.

    Parameters
    ----------
    protocol, set, method : str
        ``method`` is the label.
    group : str
        "all" categories, or "object" or "texture" ones.
    setting : dict
        Facts of the task, the sweep's value among them.
    categories : tuple of str
    n : int
        Draws and seeds that the spread is over.
    values : dict
        Metric to (mean, standard deviation over draws and seeds of the mean over categories).
    """

    protocol: str
    set: str
    method: str
    group: str
    setting: dict[str, Any]
    categories: tuple[str, ...]
    n: int
    values: dict[str, tuple[float, float]]


def means(lines: Iterable[Mapping[str, Any]]) -> list[Mean]:
    """Average run lines.

    Parameters
    ----------
    lines : iterable of mappings
        As `anomem.benchmark.run_file.read_runs` gives them. Those of another seed or draw are repetitions; those of
        other hyperparameters, limits or settings are kept apart.

    Returns
    -------
    list of Mean
        In the order of first appearance. Sets whose categories are objects and textures have a row for each, then one
        for all.
    """
    tables: dict[str, list[Mapping[str, Any]]] = {}
    for line in lines:
        tables.setdefault(_table_key(line), []).append(line)
    return [
        _mean([line for line in part if group in (ALL, line["group"])], group)
        for part in tables.values()
        for group in _groups(part)
    ]


def _groups(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    found = [group for group in ("object", "texture") if any(line["group"] == group for line in lines)]
    return [*found, ALL] if len(found) > 1 else [ALL]


def _table_key(line: Mapping[str, Any]) -> str:
    names = ("protocol", "set", "label", "parameters", "sweep", "limit", "dry_steps")
    variant = line["data"].partition("/")[0]
    return json.dumps([*(line[name] for name in names), variant, _setting(line)], sort_keys=True)


def _setting(line: Mapping[str, Any]) -> dict[str, Any]:
    # What a cross-type task sets apart is its category: a row a type, and their mean.
    facts = {name: value for name, value in line["task"].items() if name not in (*_REPEATED, "apart")}
    sweep = line["sweep"]
    return facts if sweep is None else {**facts, str(sweep["parameter"]): sweep["value"]}


def _mean(lines: Sequence[Mapping[str, Any]], group: str) -> Mean:
    first = lines[0]
    categories = tuple(dict.fromkeys(_category(line) for line in lines))
    values: dict[str, tuple[float, float]] = {}
    repeats: set[tuple[Any, Any]] = set()
    for metric, path in METRICS.items():
        by_repeat: dict[tuple[Any, Any], list[float]] = {}
        for line in lines:
            value = _at(line, path)
            if value is not None:
                by_repeat.setdefault((line["seed"], line["task"].get("draw")), []).append(value)
        if by_repeat:
            repeats |= by_repeat.keys()
            each = [statistics.fmean(part) for part in by_repeat.values()]
            values[metric] = (statistics.fmean(each), statistics.stdev(each) if len(each) > 1 else 0.0)
    return Mean(
        first["protocol"], first["set"], first["label"], group, _setting(first), categories, len(repeats), values
    )


def _category(line: Mapping[str, Any]) -> str:
    apart = line["task"].get("apart")
    return str(line["category"] if apart is None else f"{line['category']} {apart}")


def _at(line: Mapping[str, Any], path: Sequence[str]) -> float | None:
    value: Any = line
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return None if value is None else float(value)
