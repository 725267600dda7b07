"""AnoMem: anomaly detection by a multi-scale contrasted memory."""

from anomem.detectors.anomem.detector import AnoMem
from anomem.detectors.anomem.presets import Contrast, StageOne, StageTwo
from anomem.nn.views import Views

__all__ = ["AnoMem", "Contrast", "StageOne", "StageTwo", "Views"]
