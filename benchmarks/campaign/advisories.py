"""Installed dependencies against a committed snapshot of advisories: ``python -m benchmarks.campaign.advisories``.

Works without a network. ``advisories.json`` beside this file holds, per package, the ranges of versions with known
weaknesses, as reviewed on its date; a package of anomem's closure that the snapshot does not name is reported as not
reviewed. A version inside a range is a finding, and so is such a lower bound of pyproject.toml.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from importlib.metadata import distributions, requires, version
from pathlib import Path
from typing import Any

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from benchmarks.campaign.lowest import lowest
from benchmarks.campaign.result import write_result

SNAPSHOT = Path(__file__).with_name("advisories.json")
EXTRAS = ("export", "openvino", "serve", "tables", "video", "mqtt", "postgres")


def closure(name: str, extras: tuple[str, ...]) -> set[str]:
    """Return the installed packages that a package with some extras brings along."""
    installed = {canonicalize_name(found.metadata["Name"]) for found in distributions()}
    environment = {str(key): str(value) for key, value in default_environment().items()}
    seen: set[tuple[str, str]] = set()
    pending = [(canonicalize_name(name), extra) for extra in ("", *extras)]
    while pending:
        package, extra = pending.pop()
        if (package, extra) in seen or package not in installed:
            continue
        seen.add((package, extra))
        for line in requires(package) or []:
            needed = Requirement(line)
            if needed.marker is None or needed.marker.evaluate(environment | {"extra": extra}):
                pending += [(canonicalize_name(needed.name), wanted) for wanted in ("", *needed.extras)]
    return {package for package, _ in seen} - {canonicalize_name(name)}


def check(packages: dict[str, str], snapshot: dict[str, Any]) -> dict[str, Any]:
    """Return findings, and packages without a review.

    Parameters
    ----------
    packages : dict
        Versions by name.
    snapshot : dict
        ``packages``: lists of ``{"id", "versions", "note"}`` by name; an empty list: reviewed, nothing known.
    """
    known = snapshot["packages"]
    findings = [
        {"package": name, "version": found, "id": entry["id"], "note": entry["note"]}
        for name, found in sorted(packages.items())
        for entry in known.get(name, ())
        if SpecifierSet(entry["versions"]).contains(found, prereleases=True)
    ]
    return {"findings": findings, "not_reviewed": sorted(name for name in packages if name not in known)}


def main() -> int:
    """Check the installed packages; return 1 if one has a known weakness."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--snapshot", type=Path, default=SNAPSHOT)
    args = parser.parse_args()
    snapshot = json.loads(args.snapshot.read_text(encoding="utf-8"))
    packages = {name: version(name) for name in closure("anomem", EXTRAS) | closure("anomem-runtime", ())}
    bounds = dict(re.sub(r"\[.*\]", "", line).split("==") for line in lowest())
    found = {**check(packages, snapshot), "of_lower_bounds": check(bounds, snapshot)["findings"]}
    print(json.dumps(found, indent=1))
    write_result("advisories", {"snapshot": snapshot["date"], "packages": packages, **found})
    return 1 if found["findings"] or found["of_lower_bounds"] else 0


if __name__ == "__main__":
    sys.exit(main())
