"""Synthetic run lines with the content that a report needs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from anomem.benchmark.unit import canonical


def line(auroc: float | None = 0.9, *, half: float = 0.02, **changes: Any) -> dict[str, Any]:
    """A finished unit; what is not said of it is that of localisation with anomem on bottle.

    Test images are those of the category (and the draw), whatever the method.
    """
    found: dict[str, Any] = {
        "format": 1,
        "protocol": "localisation",
        "data": "mvtec_ad/bottle",
        "set": "mvtec_ad",
        "category": "bottle",
        "group": "",
        "role": "none",
        "train": {},
        "task": {},
        "method": "anomem",
        "sweep": None,
        "parameters": {},
        "seed": 0,
        "limit": None,
        "dry_steps": None,
        "n_test": {"normal": 60, "anomalous": 60},
        "trivial": {"mean_grey": 0.55, "std_grey": 0.56, "image_size": 0.5, "file_size": 0.52},
        "made_by": {"version": "0.1.0", "revision": "abc1234", "cpu": "a processor", "threads": 1},
        **changes,
    }
    found.setdefault("label", found["method"])
    if auroc is not None and "image" not in found:
        low, high = max(0.0, auroc - half), min(1.0, auroc + half)
        found["image"] = {"auroc": auroc, "auroc_ci": [low, high], "ap": auroc}
    task = found["task"]
    if "images_sha256" not in found:
        found["images_sha256"] = sha(found["data"], found["category"], task.get("apart"), task.get("draw"))
    said = {k: v for k, v in found.items() if k not in ("image", "pixel", "trivial", "made_by", "images_sha256")}
    found.setdefault("key", sha(canonical(said))[:16])
    return found


def on(data: str, **changes: Any) -> dict[str, Any]:
    """What names a set or category: ``mvtec_ad/tile``, ``magnetic_tile``, ``cifar10`` with a category."""
    head, _, category = data.partition("/")
    return {"data": data, "set": head.partition(":")[0], "category": category or head, **changes}


def sha(*parts: Any) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def write(path: Path, lines: Iterable[Mapping[str, Any]], *, end: str = "\n") -> Path:
    path.write_text("\n".join(json.dumps(entry) for entry in lines) + end, encoding="utf-8")
    return path
