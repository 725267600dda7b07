"""Bare backbones that the throughput benchmark compares with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from anomem.runtime.engines import open_engine
from benchmarks.performance.exported import FORMS, bare_file, prepared, write_bare
from tests.exports import fitted, pictures

pytest.importorskip("openvino")
pytest.importorskip("nncf")
pytest.importorskip("onnxruntime")

ERROR = {"float32": 1e-5, "bfloat16": 0.02, "int8": 0.05}
"""Largest error per arithmetic, in standard deviations of the features."""


@pytest.mark.slow
def test_the_bare_backbone_runs_in_every_engine(tmp_path: Path) -> None:
    """Score: the mean of a tile's last feature map."""
    detector: Any = fitted("padim")
    files = pictures()
    write_bare(detector, tmp_path, files)
    tiles = prepared(detector, files)
    with torch.inference_mode():
        last = detector.scorer_.backbone(torch.from_numpy(tiles).permute(0, 3, 1, 2))[-1]
    wanted = last.flatten(1).mean(dim=1).numpy()
    for form, (_, _, arithmetic) in FORMS.items():
        engine = open_engine(bare_file(tmp_path, form), precision=arithmetic, threads=1)
        error = np.abs(engine(tiles, maps=False).score - wanted).max()
        assert error < ERROR[arithmetic] * float(last.std()), form
