"""Benchmark in killed forks of a process that has imported everything: real kills, without start-up time.

``python -m tests.benchmark.killed KILLS SEED ARGUMENTS...`` runs ``anomem ARGUMENTS... --out whole.jsonl`` in peace,
then with ``--out killed.jsonl`` KILLS times, each time killed at a random moment, then to its end. Prints how many were
killed in the middle.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from importlib import import_module
from pathlib import Path

from anomem.benchmark.run_file import read_runs
from anomem.cli.main import run

for heavy in ("detectors.baselines.knn", "benchmark.protocols.few_labels", "benchmark.plan", "benchmark.run"):
    import_module(f"anomem.{heavy}")


def start(arguments: list[str]) -> int:
    child = os.fork()
    if not child:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os._exit(run(arguments))
    return child


def end(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def wait(seconds: float, lines: int) -> None:
    """Wait until the time is over or so many units are finished: a faster run than the first is killed, too."""
    until, file = time.monotonic() + seconds, Path("killed.jsonl")
    while time.monotonic() < until and not (file.exists() and file.read_bytes().count(b"\n") >= lines):
        time.sleep(0.005)


def main(kills: int, seed: int, arguments: list[str]) -> int:
    if end(start([*arguments, "--out", "whole.jsonl"])):
        return 1
    # A run comes far enough to finish something now and then, but never all of it: it starts with a fit, which all
    # units share, and the units that follow take about alike.
    first, *others = (line["measured"]["seconds"]["total"] for line in read_runs("whole.jsonl"))
    longest = first + 0.8 * sum(others) / kills
    rng, killed = random.Random(seed), 0
    for _ in range(kills):
        child = start([*arguments, "--out", "killed.jsonl"])
        wait(rng.uniform(0, longest), len(others))
        os.kill(child, signal.SIGKILL)
        killed += end(child) == -signal.SIGKILL
    sys.stdout.write(f"{killed}\n")
    sys.stdout.flush()
    return end(start([*arguments, "--out", "killed.jsonl"]))


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]))
