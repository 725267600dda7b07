"""Names of precisions: one vocabulary for options, model files and OpenVINO."""

from __future__ import annotations

__all__ = ["OPENVINO_HINTS", "PRECISIONS"]

PRECISIONS = {"fp32": "float32", "bf16": "bfloat16", "int8": "int8"}
"""Names of precisions as options take them, and as models carry them."""

OPENVINO_HINTS = {"float32": "f32", "bfloat16": "bf16", "int8": "bf16"}
"""OpenVINO's name for the arithmetic of each precision, and of what int8 leaves alone."""
