"""Default tests with the lowest versions that pyproject.toml allows: ``python -m benchmarks.campaign.lowest``.

Makes a virtual environment in a temporary folder, installs each direct dependency at its lower bound (what they bring
along is left to pip), and runs the tests of the parts that use them. Needs a package registry and some gigabytes; an
hour on two cores. ``--list`` prints the versions alone.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

from benchmarks.campaign.result import write_result

ROOT = Path(__file__).parents[2]
TESTS = ("tests/runtime", "tests/data", "tests/nn", "tests/cli", "tests/scale", "tests/test_detector.py")


def lowest() -> list[str]:
    """Return each direct dependency, and those of the extras, pinned to its lower bound.

    Examples
    --------
    >>> [line for line in lowest() if line.startswith("numpy")]
    ['numpy==2.0']
    """
    found: dict[str, str] = {}
    for place in (ROOT / "pyproject.toml", ROOT / "runtime" / "pyproject.toml"):
        content = tomllib.loads(place.read_text(encoding="utf-8"))
        project = content["project"]
        hooks = content.get("tool", {}).get("hatch", {}).get("metadata", {}).get("hooks", {}).get("custom", {})
        lines = [*project.get("dependencies", ()), *hooks.get("dependencies", ())]
        lines += [line for extra in project.get("optional-dependencies", {}).values() for line in extra]
        for line in lines:
            needed = Requirement(line)
            bound = re.search(r">=([\w.]+)", str(needed.specifier))
            if bound is not None and not needed.name.startswith("anomem"):
                extras = f"[{','.join(sorted(needed.extras))}]" if needed.extras else ""
                found[needed.name] = f"{needed.name}{extras}=={bound[1]}"
    return sorted(found.values())


def main() -> int:
    """Install and test; return the exit code of the tests."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--list", action="store_true", help="print the versions and stop")
    parser.add_argument("--without", nargs="*", default=["ray"], help="packages left out")
    parser.add_argument("tests", nargs="*", default=list(TESTS))
    args = parser.parse_args()
    wanted = [line for line in lowest() if re.split(r"[\[=]", line)[0] not in args.without]
    if args.list:
        print("\n".join(wanted))
        return 0
    with tempfile.TemporaryDirectory(prefix="anomem-lowest-") as place:
        python = Path(place) / "bin" / "python"
        subprocess.run([sys.executable, "-m", "venv", place], check=True)
        install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        installed = subprocess.run([*install, *wanted], capture_output=True, text=True, check=False)
        problems = installed.stderr.strip().splitlines()[-3:] if installed.returncode else []
        summary, failed, code = "", list[str](), 1
        if not installed.returncode:
            subprocess.run([*install, "--no-deps", "-e", ROOT / "runtime", "-e", ROOT], check=True)
            test = [python, "-m", "pytest", "-q", *args.tests]
            ran = subprocess.run(test, cwd=ROOT, capture_output=True, text=True, check=False)
            lines = ran.stdout.strip().splitlines()
            summary, code = lines[-1], ran.returncode
            failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    found = {"not_installed": problems, "tests": args.tests, "summary": summary, "failed": failed}
    write_result("lowest", {"versions": wanted, **found})
    return code


if __name__ == "__main__":
    sys.exit(main())
