"""Environment and cost of a unit: software, hardware, seconds, memory."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from anomem.runtime.machine import cores, forget_peak, peak_mb, processor
from anomem.version import __version__

__all__ = ["Meter", "made_by", "metered", "one_thread_count"]

PACKAGES = ("torch", "torchvision", "timm", "numpy", "pillow", "scipy", "scikit-learn", "accelerate")
_PACKAGE = Path(__file__).resolve().parents[1]


@dataclass
class Meter:
    """Cost of a piece of work.

    Parameters
    ----------
    seconds : float
        Wall-clock time.
    peak_mb : float
        Highest resident memory of the process meanwhile, megabytes of 10**6 bytes. Where the system cannot reset
        the peak (other than Linux), the highest so far.
    peak_gpu_mb : float
        Highest memory allocated on the current CUDA device meanwhile; 0 without one.
    """

    seconds: float = 0.0
    peak_mb: float = 0.0
    peak_gpu_mb: float = 0.0

    def add(self, other: Meter) -> None:
        """Add the cost of more work."""
        self.seconds += other.seconds
        self.peak_mb = max(self.peak_mb, other.peak_mb)
        self.peak_gpu_mb = max(self.peak_gpu_mb, other.peak_gpu_mb)


@contextmanager
def metered() -> Iterator[Meter]:
    """Measure the enclosed block; the meter has its figures afterwards. Meters may not overlap."""
    meter, cuda = Meter(), torch.cuda.is_available()
    forget_peak()
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    try:
        yield meter
    finally:
        if cuda:
            torch.cuda.synchronize()
            meter.peak_gpu_mb = torch.cuda.max_memory_allocated() / 1e6
        meter.seconds = time.perf_counter() - started
        meter.peak_mb = peak_mb() or 0.0


@contextmanager
def one_thread_count(threads: int) -> Iterator[None]:
    """Limit torch and numpy's linear algebra to this many threads, so that sums are taken in one order."""
    import scipy.linalg  # noqa: F401  only libraries that are loaded already can be limited: this brings its own
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with threadpool_limits(threads):
            yield
    finally:
        torch.set_num_threads(before)


@cache
def made_by(device: str, threads: int) -> dict[str, Any]:
    """Return software and hardware as plain values for a run line.

    ``revision`` is git's, with a plus where files differ from it, and the package's version where there is no
    repository; ``source`` is a fingerprint of the package's modules.
    """
    return {
        "version": __version__,
        "revision": _revision(),
        "source": _fingerprint(),
        "python": platform.python_version(),
        **{package: _version(package) for package in PACKAGES},
        "system": platform.platform(terse=True),
        "cpu": processor(),
        "cores": cores(),
        "memory_gb": _memory_gb(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "device": device,
        "threads": threads,
    }


def _revision() -> str:
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--exclude=*"],
            cwd=_PACKAGE,
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
    except (OSError, subprocess.TimeoutExpired):
        return __version__
    # An installed package may lie inside an unrelated repository.
    return found.stdout.strip() if _PACKAGE.parent.name == "src" and found.stdout.strip() else __version__


def _fingerprint() -> str:
    source = hashlib.sha256()
    for path in sorted(_PACKAGE.rglob("*.py")):
        source.update(path.relative_to(_PACKAGE).as_posix().encode() + path.read_bytes())
    return source.hexdigest()[:12]


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _memory_gb() -> float | None:
    if not hasattr(os, "sysconf"):
        return None
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
