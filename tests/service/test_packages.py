"""Packages that the station adds."""

from __future__ import annotations

import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.test_house import closure

MOST = 16


def test_the_station_adds_few_packages() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))
    direct = [Requirement(line).name for line in project["project"]["optional-dependencies"]["serve"]]
    added = {canonicalize_name(name) for name in direct}.union(*(closure(name) for name in direct)) - closure("anomem")
    assert {"fastapi", "sqlalchemy", "uvicorn"} <= added
    assert len(added) <= MOST, f"{len(added)}: {sorted(added)}"
