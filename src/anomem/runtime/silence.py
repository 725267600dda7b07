"""Environment variables by which dependencies are told not to report to their makers."""

import os

__all__ = ["silence"]

_SILENT = {"ORT_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}


def silence() -> None:
    """Tell dependencies not to report, before any of them is imported; child processes inherit it."""
    os.environ.update(_SILENT)
