"""Drive every reader with damaged input: ``python -m benchmarks.fuzz``, about 100,000 executions in one process.

An execution ends with a result or with one of anomem's errors, within 5 seconds of processor time and 512 MB and
without a warning. Anything else is a finding, saved with its input. An interrupted run resumes where it stopped; an
execution during which the process died, or that lasted two minutes, is a finding too. Executions with words of
libraries on stderr (libtiff's among them) are counted. ``--million`` makes 1,100,000 executions, most of them of the
cheaper readers.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
import sys
import tempfile
import time
import traceback
import warnings
import zlib
from pathlib import Path
from random import Random
from typing import Any

from anomem.errors import AnomemError, AnomemWarning
from anomem.runtime.atomic import atomic_path
from benchmarks.campaign.result import write_result
from benchmarks.fuzz import models, pictures, shards, tables, videos
from benchmarks.fuzz.reader import Reader

SECONDS = 5.0
MEGABYTES = 512
_STUCK_S = 120
MILLION = {
    "image jpeg": 60_000,
    "image png": 80_000,
    "image tiff": 60_000,
    "image bmp": 60_000,
    "image webp": 50_000,
    "image gif": 50_000,
    "image ppm": 30_000,
    "table csv": 60_000,
    "table parquet": 60_000,
    "annotations cvat": 60_000,
    "annotations json": 60_000,
    "annotations csv": 40_000,
    "store": 60_000,
    "journal": 60_000,
    "assignments": 80_000,
    "groups": 20_000,
    "folder": 10_000,
    "model file": 15_000,
    "onnx facts": 15_000,
    "onnx network": 10_000,
    "ir facts": 1_000,
    "ir network": 1_000,
    "zip": 30_000,
    "arrays": 60_000,
    "shards manifest": 20_000,
    "shard file": 10_000,
    "tar": 20_000,
    "video": 10_000,
}
"""Executions of each reader with ``--million``."""


class Campaign:
    """Executions of one run, with their counts on disk.

    Parameters
    ----------
    cache : Path
        Folder of counts and findings.
    noise : Path
        File that stderr is redirected to.
    """

    def __init__(self, cache: Path, noise: Path) -> None:
        self.cache, self.noise = cache, noise
        (cache / "findings").mkdir(parents=True, exist_ok=True)
        self._state = cache / "state.json"
        self.counts: dict[str, dict[str, Any]] = {}
        if self._state.exists():
            self.counts = json.loads(self._state.read_text(encoding="utf-8"))
        self._running = os.open(cache / "running", os.O_RDWR | os.O_CREAT, 0o666)

    def run(self, reader: Reader, runs: int) -> None:
        """Execute a reader until it has so many runs."""
        count = self.counts.setdefault(reader.name, {"runs": 0, "read": 0, "refused": 0, "findings": 0, "seconds": 0.0})
        died = self._died(reader.name)
        if died is not None and died >= count["runs"]:
            self._find(reader, died, reader.make(_random(reader.name, died)), count, "the process died")
        for i in range(count["runs"] if died is None else max(count["runs"], died + 1), runs):
            os.pwrite(self._running, f"{reader.name}\t{i}\n".ljust(64).encode(), 0)
            content = reader.make(_random(reader.name, i))
            self._execute(reader, i, content, count)
            count["runs"] = i + 1
            if not count["runs"] % 500:
                self.save()
        os.pwrite(self._running, b" " * 64, 0)
        self.save()

    def _died(self, name: str) -> int | None:
        reader, _, number = os.pread(self._running, 64, 0).decode().strip().partition("\t")
        return int(number) if reader == name else None

    def _execute(self, reader: Reader, i: int, content: bytes, count: dict[str, Any]) -> None:
        before, heard = _reset_peak(), self.noise.stat().st_size
        started = time.process_time()
        faulthandler.dump_traceback_later(_STUCK_S, exit=True)
        problem = ""
        try:
            reader.read(content)
            count["read"] += 1
        except AnomemError:
            count["refused"] += 1
        except Exception:  # noqa: BLE001 - every other error is a finding
            problem = traceback.format_exc()
        faulthandler.cancel_dump_traceback_later()
        seconds, grown = time.process_time() - started, (_peak_kb() - before) / 1024
        count["seconds"] = round(count["seconds"] + seconds, 4)
        count["slowest_s"] = round(max(count.get("slowest_s", 0.0), seconds), 3)
        count["most_mb"] = round(max(count.get("most_mb", 0.0), grown))
        if not problem and seconds > SECONDS:
            problem = f"{seconds:.1f} s"
        if not problem and grown > MEGABYTES:
            problem = f"{grown:.0f} MB"
        count["words_on_stderr"] = count.get("words_on_stderr", 0) + (self.noise.stat().st_size > heard)
        if problem:
            self._find(reader, i, content, count, problem)

    def _find(self, reader: Reader, i: int, content: bytes, count: dict[str, Any], problem: str) -> None:
        count["findings"] += 1
        place = self.cache / "findings" / f"{reader.name.replace(' ', '-')}-{i}"
        place.with_suffix(".bin").write_bytes(content)
        place.with_suffix(".txt").write_text(problem, encoding="utf-8", errors="backslashreplace")
        print(f"{reader.name} {i}: {problem.strip().splitlines()[-1][:200]}", flush=True)

    def save(self) -> None:
        """Write the counts."""
        with atomic_path(self._state) as part:
            part.write_text(json.dumps(self.counts), encoding="utf-8")


def _random(name: str, i: int) -> Random:
    return Random(zlib.crc32(name.encode()) << 32 | i)


def _reset_peak() -> int:
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _peak_kb()


def _peak_kb() -> int:
    text = Path("/proc/self/status").read_text(encoding="ascii")
    return int(text.partition("VmHWM:")[2].split(None, 1)[0])


def _readers(work: Path) -> list[Reader]:
    parts = (tables, models, shards, videos)
    return [*pictures.readers(), *(reader for part in parts for reader in part.readers(work))]


def _quiet(noise: Path) -> None:
    """Turn warnings into errors, except anomem's, and send stderr to a file."""
    warnings.simplefilter("error")
    warnings.simplefilter("ignore", AnomemWarning)
    warnings.filterwarnings("ignore", "Possible (nested )?set", FutureWarning)  # Python's, about odd expressions
    sys.stderr = os.fdopen(os.dup(2), "w", encoding="utf-8")  # Python's own words, such as this script's
    os.dup2(os.open(noise, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)


def main() -> int:
    """Run the campaign and write its counts; return 1 if there are findings."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    parser.add_argument("--cache", type=Path, default=home / "anomem-bench" / "fuzz", help="counts and findings")
    parser.add_argument("--out", type=Path, help="file of counts; written by whole runs only")
    parser.add_argument("--scale", type=float, default=1.0, help="executions as a multiple of the default")
    parser.add_argument("--million", action="store_true", help="more than 1,000,000 executions")
    parser.add_argument("--only", default="", help="readers whose names contain this text")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(
        prefix="anomem-fuzz-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None
    ) as work:
        readers = [reader for reader in _readers(Path(work)) if args.only in reader.name]
        campaign = Campaign(args.cache, Path(work) / "stderr")
        _quiet(campaign.noise)
        for reader in readers:
            campaign.run(reader, MILLION[reader.name] if args.million else max(round(args.scale * reader.runs), 1))
    counts = campaign.counts
    total = {
        name: sum(count[name] for count in counts.values())
        for name in ("runs", "read", "refused", "findings", "seconds")
    }
    print(json.dumps(total), file=sys.stdout)
    if not args.only:
        bounds = {"seconds": SECONDS, "megabytes": MEGABYTES}
        write_result("fuzz", {"total": total, "readers": counts, "bounds": bounds}, args.out)
    return 1 if total["findings"] else 0


if __name__ == "__main__":
    sys.exit(main())
