"""anomalib's PaDiM, run in the environment of the peers."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from benchmarks.common import HERE, Bench


def run_peer(bench: Bench, folder: Path, *more: Any) -> dict[str, Any]:
    """Fit to and score a folder with anomalib's PaDiM in its own environment; returns its facts."""
    args, out = bench.args, bench.folder / "peer"
    command = [args.peer_python, HERE / "peers" / "anomalib_peer.py", folder, "--model", "padim", "--out", out]
    command += ["--weights", args.peer_weights, "--threads", args.threads, "--name", "run", *more]
    own = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    subprocess.run([str(part) for part in command], check=True, env=own, stdout=subprocess.DEVNULL)
    facts: dict[str, Any] = json.loads((out / "run.json").read_text(encoding="utf-8"))
    return facts
