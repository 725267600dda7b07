"""Builds two distributions from one tree: whose files are whose, and that both have one version.

`anomem-runtime` takes its sources from the folder beside this one, or, in a source distribution, from within.
`anomem` depends on `anomem-runtime` of its own version exactly, because modules may move from one to the other.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.metadata.plugin.interface import MetadataHookInterface

HERE = Path(__file__).resolve().parent


def sources() -> Path:
    """Folder of the package ``anomem``: in this folder in a source distribution, beside it in the repository."""
    inside = HERE / "src" / "anomem"
    return inside if inside.is_dir() else HERE.parent / "src" / "anomem"


def version() -> str:
    """Return the version, defined in ``version.py`` alone."""
    text = (sources() / "version.py").read_text(encoding="utf-8")
    return next(re.finditer(r'^__version__ = "(.+)"$', text, flags=re.MULTILINE)).group(1)


class RuntimeFiles(BuildHookInterface[Any]):
    """For `anomem-runtime`: ships the files that its ``pyproject.toml`` lists."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Bring them along; an editable installation takes them from where they stand."""
        if version == "editable":
            return
        place = "src/anomem" if self.target_name == "sdist" else "anomem"
        for pattern in self.config["files"]:
            found = sorted(sources().glob(pattern))
            if not found:
                raise FileNotFoundError(f"{sources() / pattern}: pyproject.toml ships it, but there is no such file")
            for path in found:
                build_data["force_include"][str(path)] = f"{place}/{path.relative_to(sources()).as_posix()}"


class SameRuntime(MetadataHookInterface):
    """For `anomem`: its dependencies, and `anomem-runtime` of its own version."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Fill in the dependencies."""
        metadata["dependencies"] = [f"anomem-runtime=={metadata['version']}", *self.config["dependencies"]]
