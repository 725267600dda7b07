"""Environment variables that disable the telemetry of dependencies."""

import os

__all__ = ["silence"]

_SILENT = {"ORT_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}


def silence() -> None:
    """Disable the telemetry of dependencies before their import; child processes inherit the setting."""
    os.environ.update(_SILENT)
