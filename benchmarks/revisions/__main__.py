"""Compare results of an old revision and the working tree, bit for bit, on one machine.

``python -m benchmarks.revisions`` from the repository's root. The old revision's sources are exported with ``git
archive`` and run in a separate process. Both sides use the same interpreter and dependencies, so that every
difference comes from the package. ``--python`` names another interpreter for the old side.

Compared, for every method with tiny parameters and for anomem, padim and knn with their defaults, on the shipped
textures and on small parts of two real sets (``$ANOMEM_DATA``): scores, maps, p-values, verdicts, calibration, labels
given at the fit and later; model files, by tensor and by manifest entry; files of the old revision loaded by the
working tree; exported files, by node and constant; a benchmark journal and the commands' JSON without times.

Exit code 1 for any difference that no ``--expect NAME=REASON`` names; NAME is a pattern of items as the table shows
them, for example ``--expect 'models/*:anomem.params.*=parameters are nested'``.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from benchmarks.revisions.differences import Comparison, compare

ROOT = Path(__file__).resolve().parents[2]
OLD = "ded235d"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "anomem-revisions"


def main() -> None:
    """Run both sides, compare, and exit with 1 for an unexpected difference."""
    options = _options()
    expected = dict(_expectation(text) for text in options.expect)
    only = [argument for name in options.only for argument in ("--only", name)]
    asked = [*only, *(["--quick"] if options.quick else [])]
    old = _old_results(options, asked)
    with tempfile.TemporaryDirectory(prefix="anomem-new-") as folder:
        new = options.keep or Path(folder)
        shutil.rmtree(new, ignore_errors=True)
        print("new: the working tree", file=sys.stderr)
        _drive(sys.executable, ROOT / "src", new, [*asked, "--cross", str(old)], options.threads)
        sys.exit(report(compare(old, new), expected))


def _options() -> argparse.Namespace:
    text = (__doc__ or "").split("\n\n")
    parser = argparse.ArgumentParser(prog="python -m benchmarks.revisions", description=text[0])
    parser.add_argument("--old", default=OLD, metavar="REVISION", help=f"old revision (default {OLD})")
    parser.add_argument("--python", default=sys.executable, help="interpreter of the old side (default: this one)")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="PATTERN",
        help="methods or cases ('anomem', 'anomem-*'), 'bench', 'commands'; repeatable",
    )
    parser.add_argument("--quick", action="store_true", help="tiny parameters on textures only")
    parser.add_argument("--expect", action="append", default=[], metavar="NAME=REASON", help="allow a difference")
    parser.add_argument("--fresh", action="store_true", help="compute the old side again instead of reusing it")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="leave the new side's results in DIR (emptied first)")
    parser.add_argument("--threads", type=int, default=1, help="threads of each side (default 1)")
    return parser.parse_args()


def _expectation(text: str) -> tuple[str, str]:
    name, equals, reason = text.partition("=")
    if not (equals and name.strip() and reason.strip()):
        sys.exit(f"--expect {text}: no reason; write NAME=REASON")
    return name.strip(), reason.strip()


def _old_results(options: argparse.Namespace, asked: list[str]) -> Path:
    """Return the old side's results; cases computed on this machine before are reused."""
    commit = _git("rev-parse", "--verify", f"{options.old}^{{commit}}").decode().strip()
    folder = CACHE / f"{commit[:12]}-{_identity(options, asked)}"
    if options.fresh:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"old: {commit[:7]}, kept in {folder}", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="anomem-old-") as exported:
        with tarfile.open(fileobj=io.BytesIO(_git("archive", commit, "src"))) as archive:
            archive.extractall(exported, filter="data")
        _drive(options.python, Path(exported) / "src", folder, asked, options.threads)
    return folder


def _identity(options: argparse.Namespace, asked: list[str]) -> str:
    """Return a hash of everything besides the revision that the old side's results depend on."""
    sources = sorted([*Path(__file__).parent.glob("*.py"), *(ROOT / "tests" / "golden").glob("*.py")])
    ran = [path for path in sources if path.name in ("plan.py", "driver.py", "cases.py")]
    packages = subprocess.run([options.python, "-m", "pip", "freeze"], capture_output=True, text=True, check=False)
    others = [line for line in packages.stdout.splitlines() if "anomem" not in line]  # an editable one names a commit
    facts = [asked, options.threads, os.environ.get("ANOMEM_DATA", ""), platform.processor(), others]
    content = json.dumps(facts).encode() + b"".join(path.read_bytes() for path in ran)
    return hashlib.sha256(content).hexdigest()[:12]


def _git(*arguments: str) -> bytes:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=False)
    if done.returncode:
        sys.exit(f"git {' '.join(arguments)}: {done.stderr.decode().strip()}")
    return done.stdout


def _drive(python: str, sources: Path, out: Path, asked: list[str], threads: int) -> None:
    """Run the driver with one revision's sources, after checking that they are the ones imported."""
    out.mkdir(parents=True, exist_ok=True)
    settings = {"PYTHONPATH": str(sources), "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1", "MPLBACKEND": "Agg"}
    environment = {**os.environ, **settings}
    probe = [python, "-c", "import anomem; print(anomem.__file__)"]
    found = subprocess.run(probe, cwd=sources, env=environment, capture_output=True, text=True, check=True).stdout
    if not Path(found.strip()).is_relative_to(sources):
        sys.exit(f"{python}: imports {found.strip()} instead of {sources}; uninstall that copy or use another --python")
    command = [python, "-m", "benchmarks.revisions.driver", "--out", str(out.resolve()), *asked]
    started = time.perf_counter()
    if subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode:
        sys.exit(f"{sources}: the driver failed; see its error above")
    print(f"{time.perf_counter() - started:.0f} s", file=sys.stderr)


def report(comparison: Comparison, expected: Mapping[str, str]) -> int:
    """Print the table of differences; return the exit code."""
    unexpected = comparison.unexpected(expected)
    for difference in comparison.differences:
        mark = "DIFFERS " if difference in unexpected else "expected"
        apart = "-" if difference.max_abs is None else f"{difference.max_abs:.3g}"
        ranks = "-" if difference.ranks is None else str(difference.ranks)
        print(f"{mark}  {difference.item:<60}  max abs {apart:>9}  ranks {ranks:>3}  {difference.said}")
    for name, reason in expected.items():
        n_matched = sum(d not in Comparison(0, [d]).unexpected({name: reason}) for d in comparison.differences)
        print(f"--expect {name}: {n_matched} differences ({reason})")
    print(
        f"{comparison.n_equal} items equal, {len(comparison.differences)} differ, {len(unexpected)} of them unexpected"
    )
    return 1 if unexpected or not comparison.n_equal else 0


if __name__ == "__main__":
    main()
