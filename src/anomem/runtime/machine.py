"""Processor, cores and peak memory."""

from __future__ import annotations

import os
import platform
import sys
from contextlib import suppress
from pathlib import Path

__all__ = ["cores", "forget_peak", "peak_mb", "processor"]

_CPU_FACTS, _STATUS = Path("/proc/cpuinfo"), Path("/proc/self/status")


def processor() -> str:
    """Return the name of the processor, or of its architecture if the system reports no model."""
    if _CPU_FACTS.exists():
        for line in _CPU_FACTS.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def cores() -> int:
    """Return the number of cores available to this process."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def peak_mb() -> float | None:
    """Return the highest resident memory of this process so far, megabytes of 10**6 bytes; None on Windows."""
    # Preferred to getrusage, whose maximum is inherited from the parent process.
    if _STATUS.exists():
        for line in _STATUS.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024 / 1e6
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def forget_peak() -> None:
    """Reset the peak to the current memory, if the system allows it (Linux)."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
