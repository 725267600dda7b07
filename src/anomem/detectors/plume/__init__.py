"""PLUME: a classifier of normal features against perturbed ones."""

from anomem.detectors.plume.detector import Plume

__all__ = ["Plume"]
