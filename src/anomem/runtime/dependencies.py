"""Imports of dependencies without their telemetry.

ONNX Runtime keeps a device id and a database of events, which it tries to send; OpenVINO and nncf report every import.
Nothing else here uses the network, and the same variables stop both in child processes.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from threading import RLock
from types import ModuleType

from anomem.errors import MissingExtraError
from anomem.runtime.silence import silence

__all__ = ["import_openvino", "import_quietly", "installed", "without_telemetry"]

_REPORTER = "openvino_telemetry"
_importing = RLock()


def installed(package: str) -> bool:
    """Return True if a package can be imported."""
    return importlib.util.find_spec(package) is not None


def import_quietly(package: str, extra: str, distribution: str = "anomem-runtime") -> ModuleType:
    """Import ONNX Runtime, OpenVINO or nncf without its telemetry.

    Parameters
    ----------
    package : str
    extra, distribution : str
        Extra, and its distribution, that installs the package.

    Raises
    ------
    MissingExtraError
        The package is not installed.
    """
    if not installed(package):
        raise MissingExtraError(package, extra, distribution)
    silence()
    with without_telemetry():
        return import_module(package)


@contextmanager
def without_telemetry() -> Iterator[None]:
    """Hide ``openvino_telemetry`` from imports inside the block only."""
    with _importing:
        if _REPORTER in sys.modules:
            yield
            return
        sys.modules[_REPORTER] = None  # type: ignore[assignment]
        try:
            yield
        finally:
            del sys.modules[_REPORTER]


def import_openvino() -> ModuleType:
    """Import OpenVINO; see `import_quietly`."""
    return import_quietly("openvino", "openvino")
