"""Imports of the runtime: numpy and Pillow alone."""

from __future__ import annotations

import sys

from tests.cli.process import completed

MODULES = [
    *("images", "atomic", "preprocess", "batches", "calibration", "overlay", "manifest"),
    *("sources", "scoring", "calibrating", "metadata", "exported", "engines", "session"),
]


def test_runtime_imports_neither_torch_nor_scipy_nor_matplotlib() -> None:
    lines = [f"import anomem.runtime.{name}" for name in MODULES]
    heavy = (
        "{'torch', 'scipy', 'sklearn', 'matplotlib', 'kornia', 'timm', 'pyarrow', 'onnx', 'onnxruntime', 'openvino'}"
    )
    lines.append(f"import sys; sys.exit(str({heavy} & set(sys.modules)) if {heavy} & set(sys.modules) else 0)")
    found = completed([sys.executable, "-c", "\n".join(lines)])
    assert found.returncode == 0, found.stderr
