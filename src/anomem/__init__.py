"""Visual anomaly detection: learn from normal images, then score, localise and decide on new ones.

Examples
--------
>>> import anomem
>>> detector = anomem.AnoMem(preset="surface")
>>> detector
AnoMem()
"""

from __future__ import annotations

from anomem.renamed import install
from anomem.runtime.silence import silence
from anomem.version import __version__

silence()
install()

# Interrupts are handled only after this module is imported, so everything else is imported lazily.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from anomem.detector import Detector
    from anomem.detectors import DETECTORS
    from anomem.detectors.anomem.detector import AnoMem
    from anomem.loading import load
    from anomem.runtime.model import Model, Scored

_LAZY = {
    "AnoMem": "anomem.detectors.anomem.detector",
    "DETECTORS": "anomem.detectors",
    "Detector": "anomem.detector",
    "Model": "anomem.runtime.model",
    "Scored": "anomem.runtime.model",
    "load": "anomem.loading",
}

__all__ = ["DETECTORS", "AnoMem", "Detector", "Model", "Scored", "__version__", "load"]


def __getattr__(name: str) -> Any:
    """Import a public name on first access (PEP 562)."""
    if name not in _LAZY:
        raise AttributeError(f"module 'anomem' has no attribute {name!r}")
    from importlib import import_module

    try:
        return getattr(import_module(_LAZY[name]), name)
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("anomem."):
            raise
        from anomem.errors import MissingExtraError

        # Only the distribution anomem-runtime is installed.
        raise MissingExtraError(f"anomem.{name}") from error


def __dir__() -> list[str]:
    return sorted(__all__)
