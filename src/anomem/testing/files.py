"""Checks of model files."""

from __future__ import annotations

import os
import pickle
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open

from anomem.detector import Detector
from anomem.detectors import DETECTORS, load
from anomem.errors import InputError, ModelFileError
from anomem.testing.example import Example, digests, refused, require


def saved_and_loaded(example: Example) -> None:
    """Check that a loaded model scores bit for bit as the saved one, in both precisions, and saves the same file."""
    if not _registered(example):
        return
    with tempfile.TemporaryDirectory() as folder:
        for precision in ("float32", "bfloat16"):
            detector = example.fitted if precision == "float32" else example.reduced
            path, again = Path(folder) / precision, Path(folder) / f"{precision} again"
            detector.save(path)
            loaded = load(path)
            _require_same(example, detector, loaded)
            loaded.save(again)
            require(path.read_bytes() == again.read_bytes(), "saving what was loaded gives the same file")


def _registered(example: Example) -> bool:
    """Register a class in :data:`DETECTORS` while inside: loading finds a method by its name there."""
    return example.cls.name in DETECTORS


def _require_same(example: Example, detector: Detector, loaded: Detector) -> None:
    require(type(loaded) is type(detector), "the class is the same")
    require(repr(loaded) == repr(detector) and loaded.get_params() == detector.get_params(), "so are the parameters")
    require(np.array_equal(example.score(loaded), example.score(detector)), "scores are equal to the last bit")
    require(loaded.calibration_ == detector.calibration_, "the calibration is the same")
    require((loaded.counts_, digests(loaded)) == (detector.counts_, digests(detector)), "images are known by content")
    require(loaded.map_scale_ == detector.map_scale_, "the colour scale is the same")
    require(loaded.history_ == detector.history_, "the history is the same")
    if example.cls.localizes:
        maps = [np.asarray(d.anomaly_map(example.mixed[:4], device="cpu")) for d in (loaded, detector)]
        require(np.array_equal(maps[0], maps[1]), "maps are equal to the last bit")


class _Trap:
    """Object whose unpickling makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


def pickles_are_refused(_: Example) -> None:
    """Check that a pickle is refused, and its contents do not run."""
    with tempfile.TemporaryDirectory() as folder:
        trap = _Trap(Path(folder) / "sprung")
        files = [Path(folder) / name for name in ("plain.pkl", "text.pkl", "zipped.pt", "old.pt")]
        files[0].write_bytes(pickle.dumps(trap))
        files[1].write_bytes(pickle.dumps(trap, protocol=0))
        torch.save({"weights": trap}, files[2])
        torch.save({"weights": trap}, files[3], _use_new_zipfile_serialization=False)
        for file in files:
            line = refused(ModelFileError, lambda file=file: load(file), file.name)  # type: ignore[misc]
            require(file.name in line, f"the error names the file: {line}")
        require(not trap.folder.exists(), "no code of a pickle runs")


def damaged_files_are_refused(example: Example) -> None:
    """Check that a file that is cut off anywhere, empty, missing or not a model is refused by name."""
    with tempfile.TemporaryDirectory() as folder:
        path, damaged = Path(folder) / "model", Path(folder) / "damaged"
        example.fitted.save(path)
        content = path.read_bytes()
        for size in (0, 1, 7, 8, 100, len(content) // 2, len(content) - 1):
            damaged.write_bytes(content[:size])
            line = refused(ModelFileError, lambda: load(damaged), f"the first {size} of {len(content)} bytes")
            require("damaged" in line, f"the error names the file: {line}")
        refused(ModelFileError, lambda: load(Path(folder) / "missing"), "a missing file")
        refused(InputError, lambda: example.fitted.save(Path(folder) / "no" / "model"), "a missing folder")


def files_do_not_grow(example: Example) -> None:
    """Check that an additional normal image enlarges a file by its content hash alone: 8 bytes."""
    sizes = []  # of 32 and of 48 images: both fits have 8 normals to tune and 10 to calibrate
    with tempfile.TemporaryDirectory() as folder:
        for detector in (example.smaller, example.fitted):
            path = Path(folder) / "model"
            detector.save(path)
            with safe_open(str(path), framework="pt") as file:
                tensors = [file.get_tensor(name) for name in file.keys()]  # noqa: SIM118
            sizes.append(sum(t.numel() * t.element_size() for t in tensors))
    require(sizes[1] - sizes[0] <= 8 * 16, f"16 more images take 128 bytes at most, not {sizes[1] - sizes[0]}")
