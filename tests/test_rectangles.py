"""Rectangular inputs: no squeeze, places of maps, other aspects, and equal results of every engine."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from _pytest.mark import ParameterSet
from PIL import Image
from torch import Tensor

import anomem
from anomem.data.corpus import read_corpus
from anomem.data.synthetic import crops
from anomem.detector import Detector
from anomem.detectors import DETECTORS, get
from anomem.detectors.anomem.stage_two import _tile_masks
from anomem.detectors.baselines.knn import KNN
from anomem.errors import ImageError, ModelFileError, RenamedWarning
from anomem.export.ir import METHODS as IR_METHODS
from anomem.fitting import gather_labelled, make_run
from anomem.framing import read_preprocessing
from anomem.modelfile import read_model, write_model
from anomem.runtime.images import resize_mask
from anomem.runtime.manifest import Manifest
from anomem.runtime.preprocess import GREY, Preprocessing
from anomem.runtime.progress import run_to_end
from anomem.runtime.session import Session
from anomem.runtime.sources import ArraySource, FileSource
from anomem.types import UInt8Image

SHAPES = {"1:3": (32, 96), "3:1": (96, 32), "2:3": (64, 96)}
"""Height and width of the images."""

SQUARE = {"plad", "fyd"}
"""Methods whose publications demand square inputs."""


@functools.cache
def bricks(hw: tuple[int, int], count: int = 36, half: Any = "train") -> UInt8Image:
    whole = crops("brick", count, size=max(hw), half=half, rng=np.random.default_rng(1))
    return np.ascontiguousarray(whole[:, : hw[0], : hw[1]])


@functools.cache
def fitted(method: str, hw: tuple[int, int]) -> Detector:
    detector = get(method)(**get(method).test_params)
    images, y = bricks(hw), None
    if detector.supervision == "required":
        images, y = np.concatenate([images, planted(images[:6])]), [0] * len(images) + [1] * 6
    return detector.fit(images, y, alpha=0.2, calibration="split", device="cpu")


def planted(images: UInt8Image) -> UInt8Image:
    """Return images with a bright blot in the last quarter of the long side."""
    found = images.copy()
    height, width = images.shape[1:3]
    row, column = (3 * height // 4, width // 2) if height > width else (height // 2, 3 * width // 4)
    found[:, row - 5 : row + 5, column - 5 : column + 5] = (250, 20, 250)
    return found


@pytest.mark.parametrize("method", DETECTORS)
def test_every_method_learns_from_strips(method: str, tmp_path: Path) -> None:
    hw = SHAPES["1:3"]
    detector = fitted(method, hw)
    height, width = detector.preprocessing_.hw
    assert (width / height == 3) is (method not in SQUARE)
    detector.save(tmp_path / "model")
    images = np.concatenate([bricks(hw, 4, "test"), planted(bricks(hw, 4, "test"))])
    scores = detector.anomaly_score(images, device="cpu")
    loaded = anomem.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.anomaly_score(images, device="cpu"), scores)
    assert loaded.preprocessing_ == detector.preprocessing_
    if detector.localizes:
        assert [m.shape for m in detector.anomaly_map(images[:2], device="cpu")] == [hw, hw]


EXPORTED = [
    (method, shape, suffix)
    for shape in SHAPES
    for method in DETECTORS
    if method not in SQUARE
    for suffix in (".onnx", *([".xml"] if method in IR_METHODS else []))
]
DEFAULT = {("anomem", "1:3", ".onnx"), ("padim", "2:3", ".xml")}


def _cases() -> list[ParameterSet]:
    return [pytest.param(*case, marks=[] if case in DEFAULT else [pytest.mark.slow]) for case in EXPORTED]


def _opened(detector: Detector, file: Path) -> Iterator[Session]:
    """Export a detector, which compares scores and maps of files of three shapes, and open it with every engine."""
    detector.export(file)
    for engine in ("onnxruntime", "openvino") if file.suffix == ".onnx" else ("openvino",):
        yield Session.open(file, engine=engine)


@pytest.mark.parametrize(("method", "shape", "suffix"), _cases())
def test_exported_strips_score_and_draw_as_the_model(method: str, shape: str, suffix: str, tmp_path: Path) -> None:
    hw = SHAPES[shape]
    detector = fitted(method, hw)
    images = np.concatenate([bricks(hw, 3, "test"), planted(bricks(hw, 3, "test"))])
    wanted = list(detector.score(images, maps=detector.localizes, device="cpu"))
    span = np.ptp([*(r.score for r in wanted), *detector.calibration_.scores])
    for session in _opened(detector, tmp_path / f"model{suffix}"):
        assert session.engine.hw == detector.preprocessing_.hw
        apart = sorted(abs(a.score - b.score) / span for a, b in zip(session.score(images), wanted, strict=True))
        assert apart[-1 if detector.scorer_.continuous else 0] < 1e-4
        if detector.localizes:
            for found, own in zip(session.anomaly_map(images), wanted, strict=True):
                np.testing.assert_allclose(found, own.map, atol=1e-3 * np.ptp(own.map))


@functools.cache
def noise(hw: tuple[int, int], count: int = 30) -> UInt8Image:
    grey = np.random.default_rng(count).normal(128, 8, (count, *hw, 1))
    return np.repeat(grey, 3, axis=3).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("method", ["anomem", "padim", "kmeans"])
def test_the_map_peaks_on_the_blot(method: str, shape: str) -> None:
    hw = (SHAPES[shape][0] * 2, SHAPES[shape][1] * 2)
    detector = get(method)(**get(method).test_params).fit(noise(hw), alpha=0.2, calibration="split", device="cpu")
    for found in detector.anomaly_map(planted(noise(hw, 4)), device="cpu"):
        peak = np.unravel_index(int(found.argmax()), hw)
        place = (144, hw[1] // 2) if hw[0] > hw[1] else (hw[0] // 2, 144)
        assert np.abs(np.subtract(peak, place)).max() <= 12


def _circle(hw: tuple[int, int], radius: int) -> UInt8Image:
    y, x = np.indices(hw) - np.reshape(hw, (2, 1, 1)) / 2
    return np.where((np.hypot(y, x) < radius)[:, :, None], np.uint8(255), np.uint8(0)).repeat(3, axis=2)


@pytest.mark.parametrize("hw", [(100, 300), (300, 100), (200, 300)])
def test_a_circle_stays_a_circle(hw: tuple[int, int]) -> None:
    normals = ArraySource([_circle(hw, 40)] * 3)
    seen = {}
    for aspect in ("auto", "square"):
        (picture,) = read_preprocessing(KNN(size=96, aspect=aspect).resolve(), normals).cut(normals.load(0))
        rows, columns = (np.flatnonzero(picture[:, :, 0].max(axis=axis) > 127) for axis in (1, 0))
        seen[aspect] = np.log(len(rows) / len(columns))
    assert abs(seen["auto"]) < np.log(1.1)
    assert abs(seen["square"]) > np.log(1.4)


def test_sizes_are_read_upright_without_decoding(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    Image.fromarray(noise((90, 30), 1)[0]).save(tmp_path / "turned.jpg", exif=exif)
    content = (tmp_path / "turned.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(content[:-200])  # a header, and some of the pixels
    source = FileSource([tmp_path / "turned.jpg", tmp_path / "cut.jpg"])
    assert source.load(0).shape == (30, 90, 3)
    with pytest.raises(ImageError):
        source.load(1)
    assert [source.height_width(i) for i in range(2)] == [(30, 90)] * 2
    with Image.open(tmp_path / "turned.jpg") as opened:
        memory = ArraySource([content, opened, np.zeros((30, 90), np.uint8)])
        assert [memory.height_width(i) for i in range(3)] == [(30, 90)] * 3


def test_images_of_another_aspect_are_padded_and_counted() -> None:
    images = [*bricks((32, 96), 28), *bricks((64, 64), 2)]
    detector = KNN(size=64, max_items=14).fit(images, alpha=0.2, calibration="split", device="cpu")
    frame = detector.frame_
    assert (frame.image_hw, frame.input_hw, frame.grid_hw) == ((32, 96), (32, 96), None)
    assert (frame.n_images, frame.n_letterboxed) == (30, 2)
    assert "2 of 30 normal images differ by more than 10 %" in frame.sentences()[1]
    (picture,) = detector.preprocessing_.cut(np.full((64, 64, 3), 9, np.uint8))
    assert (picture[:, 32:64] == 9).all()
    assert (picture[:, :32] == GREY).all()
    assert (picture[:, 64:] == GREY).all()


def test_images_of_many_aspects_are_stretched_to_a_square() -> None:
    rng = np.random.default_rng(0)
    normals = ArraySource([np.zeros((40, int(side), 3), np.uint8) for side in rng.integers(20, 160, 40)])
    preprocessing = read_preprocessing(KNN(size=64).resolve(), normals)
    assert preprocessing.input_hw is None
    assert not preprocessing.pads((40, 20))


def test_tiles_are_as_square_as_their_images_allow() -> None:
    for hw, expected in (((300, 500), (64, 64)), ((32, 500), (32, 64))):
        normals = ArraySource([np.zeros((*hw, 3), np.uint8)])
        preprocessing = read_preprocessing(KNN(size=64, tile=64).resolve(), normals)
        height, width = preprocessing.hw
        assert height * expected[1] == width * expected[0]


def test_masks_reach_the_pixels_of_their_defect() -> None:
    hw = SHAPES["1:3"]
    detector = fitted("anomem", hw)
    mask = np.zeros((1, *hw), bool)
    mask[:, 11:21, 67:77] = True
    corpus = run_to_end(read_corpus(planted(bricks(hw, 1)), masks=list(mask), default_label=1))
    run = make_run(detector.resolve(), device="cpu", fit_precision="float32", batch_size=4, workers=0)
    nothing = dict.fromkeys(("learn", "tune", "calibration"), frozenset[int]())
    labelled, _ = gather_labelled(corpus, np.arange(1), detector.preprocessing_, nothing, run)
    (prepared,) = next(labelled.images.prepared(1))
    found = _tile_masks(labelled, 0, prepared)(slice(None))[0, 0].numpy() > 0.5
    np.testing.assert_array_equal(found, resize_mask(mask[0], detector.preprocessing_.hw))


@pytest.mark.parametrize("letterbox", [False, True])
def test_parameters_and_files_of_before_keep_their_frame(letterbox: bool, tmp_path: Path) -> None:
    with pytest.warns(RenamedWarning, match="letterbox is now aspect"):
        detector = KNN(size=64, max_items=14, letterbox=letterbox)
    assert detector.aspect == ("letterbox" if letterbox else "square")
    detector.fit(bricks((32, 96)), alpha=0.2, calibration="split", device="cpu")
    tensors, manifest = _parts(detector, tmp_path / "new")
    older = json.loads(manifest.to_json())
    assert "input_hw" not in older["preprocessing"]
    for part in ("params", "resolved"):
        del older[part]["aspect"]
        older[part]["letterbox"] = letterbox
    del older["facts"]["frame"]
    write_model(tmp_path / "old", tensors, Manifest.from_json(json.dumps(older)))
    loaded = anomem.load(tmp_path / "old")
    assert loaded.preprocessing_ == detector.preprocessing_ == Preprocessing(64, letterbox=letterbox)
    assert loaded.frame_ is None
    images = bricks((32, 96), 3, "test")
    np.testing.assert_array_equal(loaded.anomaly_score(images), detector.anomaly_score(images))


def test_a_rectangle_that_is_not_the_networks_is_refused(tmp_path: Path) -> None:
    tensors, manifest = _parts(fitted("padim", SHAPES["1:3"]), tmp_path / "model")
    changed = json.loads(manifest.to_json())
    changed["preprocessing"]["input_hw"] = [96, 32]
    write_model(tmp_path / "changed", tensors, Manifest.from_json(json.dumps(changed)))
    with pytest.raises(ModelFileError, match="differ in size"):
        anomem.load(tmp_path / "changed")


def _parts(detector: Detector, path: Path) -> tuple[dict[str, Tensor], Manifest]:
    detector.save(path)
    return read_model(path)
