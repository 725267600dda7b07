"""Malicious files, each read as its kind would be, and what it got: ``python -m benchmarks.campaign.malicious``.

A refusal is one of anomem's errors. Another error, more than 10 seconds of processor time or more than 1,536 MB, six
times the largest table that is read, are findings. The files are made anew in a temporary folder; nothing in them harms
a reader that unpickles or unpacks them, but a pickle that was opened leaves a mark, which is looked for.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from anomem.errors import AnomemError
from benchmarks.campaign.malicious_files import CASES, MARK, Seeds, make_seeds
from benchmarks.campaign.result import write_result

SECONDS, MEGABYTES = 10.0, 1536


def outcome(make: Callable[[Path, Seeds], Callable[[], object]], folder: Path, seeds: Seeds) -> dict[str, Any]:
    """Make a file in a folder, read it, and return what it got."""
    read = make(folder, seeds)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before, started = _peak_mb(), time.process_time()
    found: dict[str, Any] = {}
    try:
        found["got"] = f"read: {str(read())[:120]}"
    except AnomemError as error:
        found["got"] = f"{type(error).__name__}: {str(error).replace(str(folder), '...')[:200]}"
    except Exception as error:  # noqa: BLE001 - a finding
        found["got"] = f"{type(error).__name__}: {error}"[:200]
        found["finding"] = "another error"
    found |= {"seconds": round(time.process_time() - started, 2), "mb": round(_peak_mb() - before)}
    if found["seconds"] > SECONDS or found["mb"] > MEGABYTES:
        found["finding"] = "too much time or memory"
    if (folder / MARK).exists() or Path(MARK).exists():
        found["finding"] = "code in the file was run"
    return found


def _peak_mb() -> float:
    text = Path("/proc/self/status").read_text(encoding="ascii")
    return int(text.partition("VmHWM:")[2].split(None, 1)[0]) / 1024


def main() -> int:
    """Read all files and write what they got; return 1 if there are findings."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", default="", help="cases whose names contain this text; nothing is written")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="anomem-malicious-") as place:
        os.chdir(place)
        seeds = make_seeds(Path(place))
        for i, (name, make) in enumerate(CASES.items()):
            if args.only in name:
                folder = Path(place) / f"{i:03d}"
                folder.mkdir()
                found[name] = outcome(make, folder, seeds)
                print(name, found[name], flush=True)
        os.chdir("/")
    findings = [name for name, facts in found.items() if "finding" in facts]
    if not args.only:
        bounds = {"seconds": SECONDS, "megabytes": MEGABYTES}
        write_result("malicious", {"cases": len(found), "findings": findings, "bounds": bounds, "got": found}, args.out)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
