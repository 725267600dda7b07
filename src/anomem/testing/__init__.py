"""Contract tests, shipped: every guarantee of a detector, checked with tiny parameters on generated images.

Examples
--------
>>> from anomem.detectors import get
>>> check_detector(get("knn"), only=["init_only_assigns", "clone_and_repr_round_trip"])
{'init_only_assigns': 'passed', 'clone_and_repr_round_trip': 'passed'}
"""

from anomem.testing.example import Example
from anomem.testing.suite import CHECKS, check_detector

__all__ = ["CHECKS", "Example", "check_detector"]
