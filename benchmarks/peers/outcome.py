"""Output format of all sides: raw scores, maps where available, and cost; needs numpy alone."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import resource
import time
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np


def options(description: str | None, models: Iterable[str]) -> argparse.ArgumentParser:
    """Return a parser with the common options of all sides.

    Parameters
    ----------
    description : str or None
        Docstring of the script; its first line is shown.
    models : iterable of str
        Choices of ``--model``.

    Returns
    -------
    argparse.ArgumentParser
        Parser for further options.
    """
    parser = argparse.ArgumentParser(description=(description or "").split("\n", 1)[0])
    parser.add_argument("folder", type=Path, help="folder with train/good and test/<type>")
    parser.add_argument("--model", choices=sorted(models), required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("--name", help="stem of the result files (default: SET-MODEL)")
    parser.add_argument("--size", type=int, default=224, help="side of the square that images are resized to")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    return parser


def parsed(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parse the command line, with absolute paths and the stem of the result files."""
    args = parser.parse_args()
    args.folder, args.out = args.folder.resolve(), args.out.resolve()
    args.name = args.name or f"{args.folder.name}-{args.model}"
    return args


class Watch:
    """Stopwatch of fitting and scoring: seconds, processor time and peak memory.

    Starts on creation; ``fitted`` marks the end of fitting, ``figures`` that of scoring.
    """

    def __init__(self) -> None:
        self._before, self._start = peak_mb(), clocks()
        self._fit_peak, self._fitted = self._before, self._start

    def fitted(self) -> None:
        """Mark the end of fitting."""
        self._fit_peak, self._fitted = peak_mb(), clocks()

    def figures(self, images: int) -> dict[str, float]:
        """Mark the end of scoring.

        Parameters
        ----------
        images : int
            Number of scored images.

        Returns
        -------
        dict
            Seconds, images per second and megabytes (2**20 bytes).
        """
        scored = clocks()
        fit, score = self._fitted - self._start, scored - self._fitted
        return {
            "fit_seconds": round(fit[0], 3),
            "fit_cpu_seconds": round(fit[1], 3),
            "score_seconds": round(score[0], 3),
            "score_cpu_seconds": round(score[1], 3),
            "images_per_second": round(images / score[0], 2),
            "load_average": os.getloadavg()[0],
            "rss_before_fit_mb": round(self._before, 1),
            "peak_rss_fit_mb": round(self._fit_peak, 1),
            "peak_rss_mb": round(peak_mb(), 1),
        }


def clocks() -> np.ndarray[Any, Any]:
    """Read the wall clock and this process's processor time, for differences only."""
    # Processor time distinguishes a slow method from a busy machine.
    return np.array([time.perf_counter(), time.process_time()])


def peak_mb() -> float:
    """Return the highest resident memory of this process so far, in 2**20 bytes."""
    # Not getrusage: its maximum includes that of the parent process.
    status = Path("/proc/self/status")
    if status.exists():
        line = next(li for li in status.read_text(encoding="ascii").splitlines() if li.startswith("VmHWM"))
        return int(line.split()[1]) / 2**10
    # Bytes on macOS, kilobytes elsewhere.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2 ** (20 if platform.system() == "Darwin" else 10)


def describe(args: argparse.Namespace, packages: Iterable[str]) -> dict[str, Any]:
    """Describe the common settings and the versions.

    Parameters
    ----------
    args : argparse.Namespace
        Options of :func:`options`; also ``weights`` and ``normalization`` where the side has them.
    packages : iterable of str
        Packages whose versions are recorded.

    Returns
    -------
    dict
        JSON-ready.
    """
    weights = getattr(args, "weights", None)
    return {
        "model": args.model,
        "set": args.folder.name,
        "image_size": args.size,
        "normalization": getattr(args, "normalization", "lite0"),
        "batch_size": args.batch,
        "threads": args.threads,
        "cpu_count": os.cpu_count(),
        "seed": args.seed,
        "weights_sha256": weights and hashlib.sha256(weights.read_bytes()).hexdigest(),
        "versions": {name: version(name) for name in packages} | {"python": platform.python_version()},
    }


def save(
    args: argparse.Namespace,
    paths: Sequence[str | Path],
    scores: np.ndarray[Any, Any],
    maps: np.ndarray[Any, Any] | None,
    facts: dict[str, Any],
) -> None:
    """Write the raw results and the figures, and print the figures.

    Parameters
    ----------
    args : argparse.Namespace
        Options of :func:`options`.
    paths : sequence of str or pathlib.Path
        Images, in the order of the scores; stored relative to the set's folder.
    scores : numpy.ndarray
        Shape ``(images,)``, higher for more anomalous.
    maps : numpy.ndarray or None
        Shape ``(images, height, width)``; float32, as a narrower type would cause ties.
    facts : dict
        Content of the JSON file.
    """
    args.out.mkdir(parents=True, exist_ok=True)
    columns: dict[str, Any] = {
        "paths": np.array([Path(path).relative_to(args.folder).as_posix() for path in paths]),
        "scores": np.asarray(scores, dtype=np.float32),
    }
    if maps is not None:
        columns["maps"] = np.asarray(maps, dtype=np.float32)
    np.savez(args.out / f"{args.name}.npz", **columns)
    text = json.dumps(facts, indent=2)
    (args.out / f"{args.name}.json").write_text(text + "\n", encoding="utf-8")
    print(text)
