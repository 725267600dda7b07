"""Result files of the campaign."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from anomem.benchmark.environment import made_by
from anomem.runtime.atomic import atomic_path

__all__ = ["write_result"]

FOLDER = Path(__file__).parents[1] / "results" / "campaign"


def write_result(name: str, result: Mapping[str, Any], path: Path | None = None) -> Path:
    """Write figures as ``NAME.json`` with the software and processor that made them; return the path."""
    path = path or FOLDER / f"{name}.json"
    with atomic_path(path) as part:
        text = json.dumps({**result, "made_by": made_by("cpu", 1)}, indent=1, allow_nan=False)
        part.write_text(text + "\n", encoding="utf-8")
    print(path)
    return path
