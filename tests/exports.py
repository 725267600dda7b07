"""Tiny fitted models and their exported files, made once for all tests; read-only."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anomem.data.synthetic import write_textures
from anomem.detector import Detector
from anomem.detectors import get
from anomem.export.exporting import Exported


@dataclass(frozen=True)
class Pair:
    """A model and the file that it was exported to."""

    detector: Detector
    file: Path
    found: Exported


@functools.cache
def folder() -> Path:
    """A temporary folder of this process."""
    place = Path(tempfile.mkdtemp(prefix="anomem-tests-"))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    return place


@functools.cache
def bricks() -> Path:
    """36 normal images of 48 px to learn from, six normal and six defective ones to test on, in MVTec layout."""
    (root,) = write_textures(folder(), n_train=36, n_test=6, size=48, seed=0, textures=["brick"])
    return root


def pictures() -> list[Path]:
    """The images to test on."""
    return sorted((bricks() / "test").rglob("*.png"))


@functools.cache
def fitted(method: str, **params: Any) -> Detector:
    """Fit a method with its tiny parameters."""
    detector = get(method)(**{**get(method).test_params, **params})
    return detector.fit(bricks(), calibration="split", alpha=0.2, device="cpu")


@functools.cache
def exported(method: str) -> Pair:
    """Export it to ONNX."""
    detector, file = fitted(method), folder() / f"{method}.onnx"
    return Pair(detector, file, detector.export(file))


def copied(pair: Pair, place: Path) -> Path:
    """A copy of an exported file that a test may change."""
    for file in pair.file.parent.glob(f"{pair.file.stem}.*") if pair.file.suffix == ".xml" else [pair.file]:
        shutil.copy(file, place)
    return place / pair.file.name


@functools.cache
def exported_ir(precision: str) -> Pair:
    """Export a method with maps and a backbone to OpenVINO."""
    detector, file = fitted("padim"), folder() / precision / "padim.xml"
    file.parent.mkdir()
    normals = None if precision == "fp32" else bricks() / "train"
    return Pair(detector, file, detector.export(file, precision=precision, normals=normals, max_drop=1.0))
