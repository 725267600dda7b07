"""AnoMem: anomaly detection by a multi-scale contrasted memory."""

from anomem.detectors.anomem.detector import AnoMem

__all__ = ["AnoMem"]
