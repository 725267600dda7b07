"""Visual anomaly detection: show it normal images, and it scores, localises and promises.

Examples
--------
>>> import anomem
>>> detector = anomem.AnoMem(preset="surface")
>>> detector
AnoMem()
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from anomem.version import __version__

if TYPE_CHECKING:
    from anomem.detector import Detector
    from anomem.detectors import DETECTORS, load
    from anomem.detectors.anomem import AnoMem
    from anomem.results import Scored

_LAZY = {
    "AnoMem": "anomem.detectors.anomem",
    "DETECTORS": "anomem.detectors",
    "Detector": "anomem.detector",
    "Scored": "anomem.results",
    "load": "anomem.detectors",
}

__all__ = ["DETECTORS", "AnoMem", "Detector", "Scored", "__version__", "load"]


def __getattr__(name: str) -> Any:
    """Import the heavy rooms only when one of their names is asked for (PEP 562)."""
    if name not in _LAZY:
        raise AttributeError(f"module 'anomem' has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
