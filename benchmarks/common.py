"""Common parts of performance and peer scripts: options, resumable units, tables as measurement lines."""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import os
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from anomem.benchmark.environment import made_by
from anomem.benchmark.image_sets import BenchmarkSet, open_bench_set
from anomem.benchmark.run_file import RunFile, read_runs
from anomem.benchmark.unit import FORMAT, canonical, plain
from anomem.data.labelled_images import Images
from anomem.runtime.atomic import atomic_path

HERE = Path(__file__).resolve().parent
SETS = {
    "toothbrush": "mvtec_ad/toothbrush",
    "bottle": "mvtec_ad/bottle",
    "screw": "mvtec_ad/screw",
    "capsules": "visa/capsules",
    "magnetic_tile": "magnetic_tile",
    "pill": "mvtec_ad/pill",
    "pill-native": "mvtec_ad:native/pill",
    "toothbrush-native": "mvtec_ad:native/toothbrush",
    "capsules-native": "visa:native/capsules",
    "aitex": "aitex_tiles",
    "stains": "fabric_stain",
}
"""Short names of the industrial sets, below ``$ANOMEM_DATA``."""

_NOT_PARAMETERS = ("cache", "out", "peer_python", "peer_pythons", "peer_weights", "lines", "earlier")


@dataclass(frozen=True)
class Row:
    """Row of a table: its case, and a number, text or `spread` per column."""

    table: str
    name: str
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Bench:
    """Run of one script: its options, finished units, and lines.

    Parameters
    ----------
    name, title : str
        Protocol of the lines; heading of their tables.
    args : argparse.Namespace
        Options of `options` and the script's own.
    """

    name: str
    title: str
    args: argparse.Namespace

    @property
    def folder(self) -> Path:
        """Folder of units, images and models; limited runs have a separate one."""
        part = f"limit-{self.args.limit}" if self.args.limit else "full"
        folder = Path(self.args.cache) / part / self.name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    @property
    def made_by(self) -> dict[str, Any]:
        """Software and hardware of this run."""
        return made_by("cpu", self.args.threads)

    @cached_property
    def _done(self) -> dict[str, Any]:
        path = self.folder / "units.jsonl"
        return {line["key"]: line["figures"] for line in read_runs(path)} if path.exists() else {}

    def unit(self, key: Mapping[str, Any], work: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """Return the figures of one unit, from an earlier run of the same sources if present."""
        hashed = _key(key, self.made_by["source"], self.made_by["cpu"])
        if hashed not in self._done:
            started = time.perf_counter()
            figures = plain(dict(work()))
            line = {"format": FORMAT, "key": hashed, "task": key, "figures": figures, "made_by": self.made_by}
            with RunFile(self.folder / "units.jsonl") as run_file:
                run_file.append(line)
            self._done[hashed] = figures
            said = " ".join(f"{name}={value}" for name, value in key.items())
            print(f"{self.name} {said}: {time.perf_counter() - started:.1f} s", file=sys.stderr, flush=True)
        return dict(self._done[hashed])

    def write(self, rows: Sequence[Row], *, notes: Iterable[str] = ()) -> Path:
        """Replace this script's lines in the file of measurements; limited runs write to their own folder."""
        path = self.folder / "lines.jsonl" if self.args.limit else Path(self.args.out)
        kept = [line for line in read_runs(path) if line["protocol"] != self.name] if path.exists() else []
        lines = [self._line(row) for row in rows]
        lines[0]["notes"] = list(notes)
        with atomic_path(path) as part:
            text = "".join(json.dumps(line, allow_nan=False) + "\n" for line in (*kept, *lines))
            part.write_text(text, encoding="utf-8")
        print(path)
        return path

    def _line(self, row: Row) -> dict[str, Any]:
        task = {"table": row.table, "case": row.name}
        given = {k: v for k, v in vars(self.args).items() if k not in _NOT_PARAMETERS}
        return {
            "format": FORMAT,
            "key": _key(self.name, task),
            "protocol": self.name,
            "title": self.title,
            "task": task,
            "figures": plain(row.values),
            "command": shlex.join(["python", *_portable()]),
            "parameters": plain({k: str(v) if isinstance(v, Path) else v for k, v in given.items()}),
            "limit": self.args.limit,
            "made_by": self.made_by,
            "measured": {"started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")},
        }


def options(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the common options."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    parser = argparse.ArgumentParser(description=(description or "").split("\n", 1)[0])
    parser.add_argument("--cache", type=Path, default=home / "anomem-bench", help="units of work, images, models")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "performance.jsonl", help="file of lines")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1), help="of torch")
    parser.add_argument("--limit", type=int, help="maximum images per kind, for trials; never for publication")
    return parser


def start(name: str, title: str, args: argparse.Namespace) -> Bench:
    """Start or resume a script; sets the number of threads of this process and its children."""
    os.environ["OMP_NUM_THREADS"] = str(args.threads)
    return Bench(name, title, args)


def opened(name: str, limit: int | None = None) -> BenchmarkSet:
    """Open an industrial set by its short name."""
    return open_bench_set(SETS[name]).thinned(limit)


def linked(folder: Path, name: str, limit: int | None = None) -> Path:
    """Return a folder in MVTec layout with links to the images of a set, so that all sides read the same files."""
    data = opened(name, limit)
    for part, images in (("train", data.train), ("test", data.test)):
        for i, path in enumerate(images.paths):
            link = link_of(folder, part, images, i)
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.exists():
                link.symlink_to(Path(path).resolve())
    return folder


def link_of(folder: Path, part: str, images: Images, i: int) -> Path:
    """Return the link to an image in the folder of `linked`."""
    return folder / part / images.kinds[i] / images.paths[i].name


def isolated(work: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """Call a module-level function in a fresh process, so that peak memory is measured separately."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def spread(values: Sequence[float], digits: int = 2) -> dict[str, Any]:
    """Return mean, standard deviation and number of some values."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return {"mean": round(statistics.fmean(values), digits), "sd": round(deviation, digits), "n": len(values)}


def percent(fraction: float | None) -> float | None:
    """Return a fraction in percent with two decimals."""
    return None if fraction is None else round(100 * fraction, 2)


def _key(*parts: Any) -> str:
    return hashlib.sha256(canonical(parts).encode()).hexdigest()[:16]


def _portable() -> list[str]:
    """Return the command line without paths of this machine, NAME=PATH among them."""
    module = getattr(sys.modules["__main__"], "__spec__", None)
    parted = [argument.rpartition("=") for argument in sys.argv[1:]]
    own = [before + equals + (Path(a).name if Path(a).is_absolute() else a) for before, equals, a in parted]
    return [*(["-m", module.name] if module else [Path(sys.argv[0]).name]), *own]
