"""Default tests under other numbers of cores and threads, hash seeds and orders.

``python -m benchmarks.campaign.matrix``, about 80 minutes on two idle cores. First all default tests run on all cores
and are timed; then as one process on one core, with 2 and with 4 threads; then on all cores again. Each of these five
has a ``PYTHONHASHSEED`` of its own, 0 to 4. The files with the least time per test that together hold half of them,
the quick half, then run with files, and tests within a file, in random orders 0 to 9 (``ANOMEM_TEST_ORDER``). One line
per run, in ``matrix.jsonl``: passed, failed and skipped tests. Finished runs are skipped: rerun the command to resume;
``--fresh`` starts anew. Exit code 1 if a run has a failure.

``--files tests/test_rates.py ... --only order-0`` tries it on few files, without timing.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from anomem.benchmark.environment import made_by
from benchmarks.campaign.result import FOLDER

ROOT = Path(__file__).parents[2]
DEFAULT = ("-m", "(not slow and not realdata) or ci_sample")
"""Selection of ``make test``."""

LIMIT_S = 4800
"""Time after which a run is killed and counts as failed."""

RUNS: dict[str, tuple[dict[str, str], tuple[str, ...]]] = {
    "all-cores": ({"PYTHONHASHSEED": "0"}, ()),
    "one-core": ({"PYTHONHASHSEED": "1"}, ("taskset", "-c", "0")),
    "threads-2": ({"PYTHONHASHSEED": "2", "OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "passive"}, ()),
    "threads-4": ({"PYTHONHASHSEED": "3", "OMP_NUM_THREADS": "4", "OMP_WAIT_POLICY": "passive"}, ()),
    "hash-4": ({"PYTHONHASHSEED": "4"}, ()),
}
"""Run of all default tests -> its environment and the command before Python's."""

QUICK: dict[str, dict[str, str]] = {f"order-{seed}": {"ANOMEM_TEST_ORDER": str(seed)} for seed in range(10)}
"""Run of the quick half -> its environment."""


def main() -> None:
    """Run what is missing, and exit with 1 for a failure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.campaign.matrix", description=__doc__)
    names = [*RUNS, *QUICK]
    parser.add_argument("--only", nargs="+", default=names, choices=names, metavar="RUN", help="runs")
    parser.add_argument("--files", nargs="+", help="test files instead of all, or of the quick half")
    parser.add_argument("--out", type=Path, default=FOLDER / "matrix.jsonl", help="file of the lines")
    parser.add_argument("--fresh", action="store_true", help="forget earlier lines")
    options = parser.parse_args()
    if options.fresh:
        options.out.unlink(missing_ok=True)
    lines = read(options.out)
    for name in options.only:
        if name in lines:
            continue
        if name in RUNS:
            found = whole(name, options.files or [])
        else:
            files = options.files or lines["all-cores"]["quick_half"]
            found = {**QUICK[name], **tested(files, QUICK[name], ())}
        lines[name] = added(options.out, {"run": name, **found})
    sys.exit(any(line["failed"] for line in lines.values()))


def read(path: Path) -> dict[str, dict[str, Any]]:
    """Return the lines of finished runs by name."""
    texts = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return {line["run"]: line for line in map(json.loads, texts)}


def added(path: Path, line: dict[str, Any]) -> dict[str, Any]:
    """Append a line, print its counts, and return it."""
    with path.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps({**line, "made_by": made_by("cpu", int(line.get("OMP_NUM_THREADS", "1")))}) + "\n")
    print(line["run"], {key: line[key] for key in ("passed", "failed", "seconds")}, flush=True)
    return line


def whole(name: str, files: list[str]) -> dict[str, Any]:
    """Run all default tests, first by one process per core; with that run, choose the quick half."""
    environment, before = RUNS[name]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "tests.xml"
        several = name in ("all-cores", "hash-4")
        split = ("--numprocesses", "auto", "--dist", "loadgroup") if several else ()
        line = tested((*split, *DEFAULT, f"--junitxml={report}", *files), environment, before)
        quick = {"quick_half": quick_half(report)} if name == "all-cores" and report.exists() else {}
    return {**environment, **line, **quick}


def quick_half(report: Path) -> list[str]:
    """Return the files with the least time per test that hold half of the tests of a JUnit report."""
    seconds: defaultdict[str, float] = defaultdict(float)
    counts: Counter[str] = Counter()
    for case in ElementTree.parse(report).iter("testcase"):
        file = case.get("classname", "").replace(".", "/") + ".py"
        seconds[file] += float(case.get("time", "0"))
        counts[file] += 1
    chosen: list[str] = []
    for file in sorted(counts, key=lambda file: seconds[file] / counts[file]):
        if (ROOT / file).is_file() and 2 * sum(counts[name] for name in chosen) < counts.total():
            chosen.append(file)
    return sorted(chosen)


def tested(arguments: Sequence[str], environment: dict[str, str], before: Sequence[str]) -> dict[str, Any]:
    """Run tests and return their numbers, the failed ones by name, and the seconds."""
    command = [*before, sys.executable, "-m", "pytest", "-q", "-rfE", "-p", "no:cacheprovider", *arguments]
    started = time.perf_counter()
    try:
        ran = subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=LIMIT_S,
        )
    except subprocess.TimeoutExpired:
        return {"passed": 0, "skipped": 0, "failed": [f"killed after {LIMIT_S} s"], "seconds": LIMIT_S}
    failed = re.findall(r"^(?:FAILED|ERROR) (.{1,300})", ran.stdout, flags=re.MULTILINE)
    if ran.returncode and not failed:
        failed = [f"exit code {ran.returncode}: {(ran.stderr or ran.stdout).strip()[-300:]}"]
    counts = {word: int(n) for n, word in re.findall(r"(\d+) (passed|skipped)", ran.stdout[-200:])}
    found = {"passed": counts.get("passed", 0), "skipped": counts.get("skipped", 0), "failed": failed}
    return {**found, "seconds": round(time.perf_counter() - started, 1)}


if __name__ == "__main__":
    main()
