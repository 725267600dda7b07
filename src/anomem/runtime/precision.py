"""Names of precisions in options, model files and OpenVINO."""

from __future__ import annotations

__all__ = ["OPENVINO_HINTS", "PRECISIONS"]

PRECISIONS = {"fp32": "float32", "bf16": "bfloat16", "int8": "int8"}
"""Name of each precision in options -> name in model files."""

OPENVINO_HINTS = {"float32": "f32", "bfloat16": "bf16", "int8": "bf16"}
"""OpenVINO's name for the arithmetic of each precision; for int8 that of the other operations."""
