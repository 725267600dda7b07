"""What all benchmarks share: options, resumable units of work, where the images are, and the result file."""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PACKAGES = ("anomem", "torch", "torchvision", "timm", "numpy", "pillow", "scipy", "scikit-learn")


@dataclass(frozen=True)
class Place:
    """A set of images: its folder under ``$ANOMEM_DATA``, and whether defaults were chosen on it.

    Parameters
    ----------
    folder : str
        Relative to ``$ANOMEM_DATA``.
    role : {"development", "report"}
        Development sets are what defaults are chosen on; report sets are looked at only to publish.
    note : str
        What a reader of the figures should know.
    """

    folder: str
    role: str
    note: str = ""

    @property
    def path(self) -> Path:
        """The folder; ends the program with a line that says what is missing."""
        root = os.environ.get("ANOMEM_DATA")
        if not root:
            sys.exit("set ANOMEM_DATA to the folder into which the image sets are unpacked")
        found = Path(root) / self.folder
        if not found.is_dir():
            sys.exit(f"{found}: no such folder; unpack the image set there")
        return found


CONFOUNDED = "image level confounded by brightness: no image-level claim"
SETS = {
    "magnetic_tile": Place("magnetic_tile/magnetic_tile", "development", "split is ours"),
    "toothbrush": Place("mvtec_ad_toothbrush/toothbrush", "development", "split is ours"),
    "bottle": Place("mvtec_ad_bottle/bottle", "report", "no masks"),
    "capsules": Place("visa_capsules/capsules", "report"),
    "screw": Place("mvtec_ad_screw/screw", "report", CONFOUNDED),
    "cifar10": Place("cifar10", "report"),
    "mnist_small": Place("mnist_small", "report", "1,000 + 500 images of each digit"),
    "cifar100_small": Place("cifar100_small", "development", "40 + 15 images of each fine class"),
}


@dataclass(frozen=True)
class Row:
    """One line of a table of results.

    Parameters
    ----------
    table : str
        Title of the table it stands in.
    name : str
        What was measured, on what.
    values : dict
        Column to number, text, or a :func:`spread`.
    bar : str
        What it is held against; empty where nothing was asked.
    met : bool or None
        Whether it reaches the bar; None without one.
    """

    table: str
    name: str
    values: Mapping[str, Any]
    bar: str = ""
    met: bool | None = None


@dataclass
class Bench:
    """One benchmark in the making: its options and the units of work done so far.

    Parameters
    ----------
    name : str
        Of the result file.
    title : str
        Headline of its tables.
    args : argparse.Namespace
        Options of :func:`options` and the script's own.
    """

    name: str
    title: str
    args: argparse.Namespace
    _units: dict[str, dict[str, Any]] = field(default_factory=dict)
    _used: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Read what an earlier run has done."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.args.fresh:
            for file in self.folder.iterdir():
                if file.is_file():
                    file.unlink()
        if self._journal.exists():
            for line in self._journal.read_text(encoding="utf-8").splitlines():
                unit = json.loads(line)
                self._units[_canonical(unit["key"])] = unit

    @property
    def folder(self) -> Path:
        """Where units, features and models of this benchmark are kept; limited runs keep theirs apart."""
        part = f"limit-{self.args.limit}" if self.args.limit else "full"
        return Path(self.args.cache) / part / self.name

    @property
    def _journal(self) -> Path:
        return self.folder / "units.jsonl"

    def unit(self, key: Mapping[str, Any], work: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """Return the result of one unit of work, done now unless an earlier run has done it.

        Parameters
        ----------
        key : dict
            What distinguishes the unit; JSON-ready.
        work : callable
            Does it; returns a JSON-ready dict.
        """
        found = self._units.get(_canonical(key))
        if found is None:
            started = time.perf_counter()
            result = dict(work())
            found = {
                "key": dict(key),
                "result": result,
                "seconds": round(time.perf_counter() - started, 1),
                **revision(),
            }
            with self._journal.open("a", encoding="utf-8") as journal:
                journal.write(json.dumps(found) + "\n")
            self._units[_canonical(key)] = found
            print(f"{self.name} {_short(key)}: {found['seconds']} s", file=sys.stderr, flush=True)
        self._used.append(found)
        return dict(found["result"])

    def write(self, rows: Sequence[Row], *, sets: Iterable[str], notes: Sequence[str] = ()) -> Path:
        """Write the result file: everything needed to read the figures and to take them again.

        Parameters
        ----------
        rows : list of Row
            The tables.
        sets : list of str
            Names in :data:`SETS`.
        notes : list of str
            Sentences below the tables.
        """
        content = {
            "name": self.name,
            "title": self.title,
            "command": shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *_portable(sys.argv[1:])]),
            "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
            **revision(),
            "revisions_of_units": sorted({f"{u['revision']} {u['source']}" for u in self._used}),
            "seconds_of_units": round(sum(u["seconds"] for u in self._used), 1),
            "versions": versions(),
            "hardware": hardware(self.args.threads),
            "parameters": {k: _plain(v) for k, v in vars(self.args).items() if k not in _NOT_PARAMETERS},
            "sets": {name: asdict(SETS[name]) for name in sets},
            "rows": [asdict(row) for row in rows],
            "notes": list(notes),
        }
        if len(content["revisions_of_units"]) > 1:
            print("units of several revisions are mixed; --fresh takes them all again", file=sys.stderr)
        target = self.folder if self.args.limit else Path(self.args.out)
        target.mkdir(parents=True, exist_ok=True)
        path = target / f"{self.name}.json"
        path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        print(path)
        return path


_NOT_PARAMETERS = ("cache", "out", "fresh", "peers", "peer_python", "peer_pythons", "peer_weights", "journal")


def options(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options that every benchmark has."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    parser = argparse.ArgumentParser(description=(description or "").split("\n", 1)[0])
    parser.add_argument("--cache", type=Path, default=home / "anomem-bench", help="units of work, features, models")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder of the result files")
    parser.add_argument("--fresh", action="store_true", help="forget the units that an earlier run has done")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1), help="of torch")
    parser.add_argument("--limit", type=int, help="images of each kind at most: to try a script out, never to publish")
    return parser


def start(name: str, title: str, args: argparse.Namespace) -> Bench:
    """Begin, or take up, a benchmark; sets the number of threads of this process and of those it starts."""
    os.environ["OMP_NUM_THREADS"] = str(args.threads)
    return Bench(name, title, args)


def isolated(work: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """Call a module-level function in a fresh process, so that its peak memory is its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def peak_mb() -> float:
    """Highest resident memory of this process so far, in 2**20 bytes."""
    from anomem.runtime import machine

    return round((machine.peak_mb() or 0.0) * 1e6 / 2**20, 1)


def spread(values: Sequence[float], digits: int = 2) -> dict[str, Any]:
    """Mean, standard deviation and number of some values."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return {"mean": round(statistics.fmean(values), digits), "sd": round(deviation, digits), "n": len(values)}


def percent(fraction: float | None) -> float | None:
    """From 0..1 to percent with two decimals."""
    return None if fraction is None else round(100 * fraction, 2)


def revision() -> dict[str, str]:
    """Git's revision, marked where the package differs from it, and a fingerprint of the package's source."""
    source = hashlib.sha256()
    for path in sorted((HERE.parent / "src").rglob("*.py")):
        source.update(path.read_bytes())
    return {"revision": _git("describe", "--always", "--dirty=+"), "source": source.hexdigest()[:12]}


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that matter."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "from source"
    return found


def hardware(threads: int) -> dict[str, Any]:
    """Processor, cores and memory of this machine, and the threads used."""
    from anomem.runtime.machine import processor

    memory = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    return {"cpu": processor(), "cores": os.cpu_count(), "memory_gb": memory, "threads": threads}


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=HERE, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def _canonical(key: Mapping[str, Any]) -> str:
    return json.dumps(key, sort_keys=True)


def _short(key: Mapping[str, Any]) -> str:
    return " ".join(f"{k}={v}" for k, v in key.items())


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def _portable(arguments: Sequence[str]) -> list[str]:
    """The command line without paths of this machine, NAME=PATH among them."""
    parted = [a.rpartition("=") for a in arguments]
    return [before + equals + (Path(a).name if Path(a).is_absolute() else a) for before, equals, a in parted]
