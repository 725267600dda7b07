"""FYD: Gaussians on features that are aligned to one pose."""

from anomem.detectors.fyd.detector import FYD

__all__ = ["FYD"]
