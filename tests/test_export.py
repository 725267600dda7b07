"""Exported files: content, parity check, errors."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from anomem.data.imageset import to_tensor
from anomem.data.synthetic import crops
from anomem.detector import Detector
from anomem.detectors.baselines.plad import PLAD, PLADScorer
from anomem.errors import AnomemWarning, ExportError, ImageError, InputError, MissingExtraError, ParameterError
from anomem.export import graph
from anomem.export.exporting import make_wish
from anomem.nn.scorer import Output
from anomem.runtime.calibration import Calibration
from anomem.runtime.images import write_png
from anomem.runtime.session import Session
from tests.cli.process import files
from tests.exports import bricks, exported, fitted, folder, pictures

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")


# ------------------------------------------------------------- what is in a file


def test_the_graph_has_fixed_names_bytes_in_and_a_free_batch() -> None:
    pair = exported("memae")
    content = onnx.load(pair.file)
    onnx.checker.check_model(content, full_check=True)
    (image,) = content.graph.input
    shape = [d.dim_param or d.dim_value for d in image.type.tensor_type.shape.dim]
    assert (image.name, image.type.tensor_type.elem_type, shape) == (
        "image",
        onnx.TensorProto.UINT8,
        ["batch", 3, 16, 16],
    )
    shapes = {o.name: [d.dim_param or d.dim_value for d in o.type.tensor_type.shape.dim] for o in content.graph.output}
    assert shapes == {"score": ["batch"], "map": ["batch", 16, 16]}


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_any_other_program_gets_the_raw_scores_and_maps(batch: int) -> None:
    pair = exported("memae")
    session = ort.InferenceSession(pair.file, providers=["CPUExecutionProvider"])
    tiles = crops("grass", batch, size=16, half="test", rng=np.random.default_rng(0))
    score, map_ = session.run(["score", "map"], {"image": np.ascontiguousarray(tiles.transpose(0, 3, 1, 2))})
    with torch.inference_mode():
        wanted = pair.detector.scorer_(to_tensor(tiles))
    assert score.shape == (batch,)
    assert (score.dtype, map_.dtype) == (np.float32, np.float32)
    np.testing.assert_allclose(score, wanted.score.numpy(), rtol=1e-5)
    np.testing.assert_allclose(map_, wanted.map.numpy(), atol=1e-5)


def test_a_method_without_maps_exports_none() -> None:
    pair = exported("plad")
    assert [o.name for o in onnx.load(pair.file).graph.output] == ["score"]
    assert not Session.open(pair.file).localizes


def test_a_file_tells_nothing_of_the_machine_it_was_made_on() -> None:
    content = exported("memae").file.read_bytes()
    for trace in (b"site-packages", b"stack_trace", b".py", str(Path.home()).encode() + b"/", str(Path.cwd()).encode()):
        assert trace not in content


def test_what_is_known_of_a_model_travels_along() -> None:
    pair = exported("memae")
    manifest = Session.open(pair.file).manifest
    state = pair.detector._state()
    assert manifest.method == "memae"
    assert manifest.preprocessing == state.preprocessing.to_dict()
    assert manifest.resolved["widths"] == list(state.resolved["widths"])
    assert manifest.facts["export"]["format"] == "onnx"
    assert manifest.precision == "float32"


def test_exporting_changes_nothing_in_the_model() -> None:
    detector = fitted("plad", channels=2)
    before = {name: tensor.clone() for name, tensor in detector.scorer_.state_dict().items()}
    scores, random = detector.anomaly_score(pictures()), torch.get_rng_state()
    detector.export(folder() / "unchanged.onnx")
    after = detector.scorer_.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert np.array_equal(detector.anomaly_score(pictures()), scores)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(not m.inplace for m in detector.scorer_.modules() if hasattr(m, "inplace"))


# ------------------------------------------------------------- the check


class _Drifting(PLADScorer):
    """Scores otherwise once it is exported."""

    drift = 0.0

    def forward(self, images: Tensor) -> Output:
        score = super().forward(images).score
        return Output(score + self.drift * score.abs() if torch.compiler.is_compiling() else score)


class _Branching(PLADScorer):
    """Looks at the images to decide what to do."""

    def forward(self, images: Tensor) -> Output:
        score = super().forward(images).score
        return Output(score if images.float().mean() > 100 else -score)


class _Counting(PLADScorer):
    """Scores two images in another way than three."""

    def forward(self, images: Tensor) -> Output:
        score = super().forward(images).score
        return Output(score * 2 if len(images) == 2 else score)


@dataclass(kw_only=True, repr=False, eq=False)
class _Wrong(PLAD):
    test_params: ClassVar[dict[str, Any]] = {}


def with_scorer(kind: type[PLADScorer], **facts: Any) -> Detector:
    """A fitted detector whose scorer is replaced by another with the same weights."""
    detector = fitted("plad")
    scorer = kind(detector.scorer_.config)
    scorer.load_state_dict(detector.scorer_.state_dict())
    for name, value in facts.items():
        setattr(scorer, name, value)
    state = detector._state().replaced(scorer=scorer.eval().requires_grad_(False))
    return _Wrong.from_state(detector.get_params(), state)


@pytest.mark.parametrize("drift", [1e-3, -0.5, float("nan")])
def test_other_scores_are_an_error_and_leave_no_file(drift: float, tmp_path: Path) -> None:
    detector = with_scorer(_Drifting, drift=drift)
    with pytest.raises(ExportError, match="nothing was written"):
        detector.export(tmp_path / "model.onnx")
    assert files(tmp_path) == set()


def test_rounding_is_no_other_score(tmp_path: Path) -> None:
    found = with_scorer(_Drifting, drift=1e-7).export(tmp_path / "model.onnx")
    assert files(tmp_path) == {"model.onnx"}
    assert 0 <= found.max_abs_diff < 1e-5


def test_a_file_that_was_there_survives_a_failed_export(tmp_path: Path) -> None:
    target = tmp_path / "model.onnx"
    target.write_bytes(b"an older one")
    with pytest.raises(ExportError):
        with_scorer(_Drifting, drift=0.1).export(target)
    assert target.read_bytes() == b"an older one"
    assert files(tmp_path) == {"model.onnx"}


@pytest.mark.parametrize("kind", [_Branching, _Counting])
def test_what_onnx_cannot_say_is_an_error_of_one_line(kind: type[PLADScorer], tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="cannot be written as ONNX") as caught:
        with_scorer(kind).export(tmp_path / "model.onnx")
    assert "\n" not in str(caught.value)
    assert files(tmp_path) == set()


def test_scores_are_compared_on_the_images_given(tmp_path: Path) -> None:
    detector = with_scorer(_Drifting, drift=1e-9)
    bad = tmp_path / "bad.png"
    bad.write_bytes(pictures()[0].read_bytes()[:100])
    with pytest.raises(ImageError, match=r"bad\.png"):
        detector.export(tmp_path / "model.onnx", check=[pictures()[0], bad])
    assert files(tmp_path) == {"bad.png"}
    with pytest.raises(InputError, match="image files"):
        detector.export(tmp_path / "model.onnx", check=np.zeros((2, 32, 32, 3), np.uint8))


# ------------------------------------------------------------- calibration, cost


def test_a_model_of_another_precision_is_calibrated_as_the_file_scores(tmp_path: Path) -> None:
    detector = fitted("plad", precision="bfloat16")
    with pytest.warns(AnomemWarning, match="float32, calibrated in bfloat16"):
        found = detector.export(tmp_path / "as_it_was.onnx")
    assert not found.calibrated
    as_it_was = Session.open(tmp_path / "as_it_was.onnx")
    assert as_it_was.calibration_ == detector.calibration_
    with pytest.warns(AnomemWarning, match="scores in float32, and was calibrated in bfloat16"):
        as_it_was.predict(pictures())

    found = detector.export(tmp_path / "anew.onnx", normals=bricks() / "train")
    session = Session.open(tmp_path / "anew.onnx")
    assert found.calibrated
    assert found.n_calibration == detector.calibration_.n == session.calibration_.n
    assert (session.calibration_.precision, session.calibration_.alpha) == ("float32", 0.2)
    held_out = detector.digests_by_role_["calibration"]
    rows = session.score(sorted((bricks() / "train").rglob("*.png")))
    wanted = sorted(row.score for row in rows if row.digest in held_out)
    np.testing.assert_allclose(session.calibration_.scores, wanted, rtol=1e-5)
    assert isinstance(session.calibration_, Calibration)
    assert not np.array_equal(session.calibration_.scores, detector.calibration_.scores)


def test_the_cost_in_auroc_is_measured_on_the_evaluation_data(tmp_path: Path) -> None:
    found = fitted("plad").export(tmp_path / "model.onnx", eval_data=bricks(), max_drop=0.0)
    assert found.auroc_drop == 0.0  # the same order of scores
    assert found.auroc_drop_on == str(bricks())
    with pytest.raises(InputError, match="normal and anomalous ones"):
        fitted("plad").export(tmp_path / "other.onnx", eval_data=bricks() / "train")
    assert files(tmp_path) == {"model.onnx"}


# ------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("name", "options", "kind", "words"),
    [
        ("model", {}, InputError, ".onnx (ONNX) or .xml (OpenVINO)"),
        ("model.safetensors", {}, InputError, ".onnx (ONNX) or .xml (OpenVINO)"),
        ("model.onnx", {"format": "openvino"}, InputError, ".onnx (ONNX) or .xml (OpenVINO)"),
        ("model.onnx", {"format": "tflite"}, ParameterError, "onnx or openvino"),
        ("model.onnx", {"precision": "fp16"}, ParameterError, "fp32, bf16, int8"),
        ("model.onnx", {"precision": "bf16"}, ParameterError, "name a .xml file"),
        ("model.xml", {"precision": "int8"}, ParameterError, "--normals"),
        ("model.xml", {}, ParameterError, "plad: not exported to OpenVINO"),
        ("model.onnx", {"max_drop": 2}, ParameterError, "max_drop"),
        ("no/model.onnx", {}, InputError, "does not exist"),
        ("model.onnx", {"eval_data": "no/such/data"}, InputError, "no/such/data"),
        ("model.onnx", {"precison": "fp32"}, TypeError, "precison"),
    ],
)
def test_refusals_come_before_any_work(
    name: str, options: dict[str, Any], kind: type[Exception], words: str, tmp_path: Path
) -> None:
    with pytest.raises(kind, match=re.escape(words)) as caught:
        fitted("plad").export(tmp_path / name, **options)
    assert "\n" not in str(caught.value)
    assert files(tmp_path) == set()


@pytest.mark.parametrize("package", ["onnx", "onnxscript"])
def test_a_missing_package_is_named_with_its_extra(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"{package} is not installed: pip install 'anomem\[export\]'"):
        fitted("plad").export(tmp_path / "model.onnx")
    assert files(tmp_path) == set()


def test_what_is_too_large_for_the_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph, "LARGEST", 1000)
    with pytest.raises(ParameterError, match="an ONNX file holds at most 2"):
        fitted("plad").export(tmp_path / "model.onnx")


def test_unreadable_images_are_left_out_on_request(tmp_path: Path) -> None:
    good, bad = tmp_path / "a.png", tmp_path / "b.png"
    write_png(good, np.full((8, 8, 3), 90, np.uint8))
    bad.touch()
    given = {"check": [good, bad], "normals": [good, bad]}
    with pytest.warns(AnomemWarning, match=r"left out .*b\.png: the file is empty"):
        wish = make_wish("knn", tmp_path / "m.onnx", **given, skip_bad=True)
    assert [source.name(0) for source in (wish.check, wish.normals)] == [str(good), str(good)]
    assert len(wish.check) == len(wish.normals) == 1
    with pytest.raises(ImageError, match="more than the limit of 63"):
        make_wish("knn", tmp_path / "m.onnx", check=[good], max_pixels=63).check.load(0)
