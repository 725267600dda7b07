"""OpenVINO: pairs of files, and three precisions, each calibrated on its own scores."""

from __future__ import annotations

import hashlib
import re
import sys
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from anomem.data.synthetic import crops
from anomem.detectors.baselines.padim import PaDiM, PaDiMScorer
from anomem.errors import AnomemWarning, ExportError, InputError, MissingExtraError, ModelFileError, ParameterError
from anomem.export.ir import METHODS
from anomem.nn.scorer import Output
from anomem.runtime.dependencies import import_openvino
from anomem.runtime.engines import open_engine
from anomem.runtime.exported import read_facts, write_facts
from anomem.runtime.metadata import read_texts, write_texts
from anomem.runtime.session import Session
from tests.cli.process import files
from tests.exports import Pair, bricks, copied, exported_ir, fitted, pictures

pytest.importorskip("openvino")
pytest.importorskip("nncf")


@pytest.fixture(params=["fp32", "bf16", "int8"])
def pair(request: pytest.FixtureRequest) -> Pair:
    return exported_ir(request.param)


def operations(file: Path) -> dict[str, Any]:
    """Operations of an IR by name."""
    return {op.get_friendly_name(): op for op in import_openvino().Core().read_model(str(file)).get_ops()}


def quantised(file: Path) -> list[tuple[int, ...]]:
    """Shapes of the weights of convolutions whose weights are stored as int8."""
    found = []
    for op in operations(file).values():
        if "Convolution" in op.get_type_name():
            source = op.input(1).get_source_output().get_node()
            while source.get_type_name() != "Constant":
                source = source.input(0).get_source_output().get_node()
            if source.get_element_type().get_type_name() == "i8":
                found.append(tuple(op.input(1).get_source_output().get_shape()))
    return found


# ------------------------------------------------------------- what is in the files


def test_an_ir_is_two_files_with_fixed_names_and_a_free_batch(pair: Pair) -> None:
    assert files(pair.file.parent) == {"padim.xml", "padim.bin"}
    model = import_openvino().Core().read_model(str(pair.file))
    assert [port.get_names() for port in model.inputs] == [{"image"}]
    assert model.inputs[0].get_element_type().get_type_name() == "u8"
    assert str(model.inputs[0].get_partial_shape()) == "[?,3,64,64]"
    assert [port.get_names() for port in model.outputs] == [{"score"}, {"map"}]


def test_float32_scores_as_the_model() -> None:
    pair = exported_ir("fp32")
    session, detector = Session.open(pair.file, threads=1), pair.detector
    np.testing.assert_allclose(session.anomaly_score(pictures()), detector.anomaly_score(pictures()), rtol=1e-5)
    np.testing.assert_allclose(session.anomaly_map(pictures()), detector.anomaly_map(pictures()), rtol=1e-4)
    assert np.array_equal(session.predict(pictures()), detector.predict(pictures()))
    assert session.calibration_ == detector.calibration_
    assert quantised(pair.file) == []


def test_scores_with_and_without_maps_are_equal_and_cost_differs(pair: Pair) -> None:
    """The map's own memories are not in the network that is compiled for scores alone."""
    session, images = Session.open(pair.file, threads=1), pictures()[:4]
    with_maps = [result.score for result in session.score(images, maps=True)]
    assert [result.score for result in session.score(images)] == with_maps
    engine = open_engine(pair.file, precision="float32", threads=1)
    sizes = [len(engine._model(alone=True, maps=maps).get_runtime_model().get_ops()) for maps in (False, True)]
    assert sizes[0] < sizes[1]


def test_batches_do_not_matter(pair: Pair) -> None:
    session = Session.open(pair.file, threads=1)
    wanted = session.anomaly_score(pictures(), batch_size=1)
    for batch_size in (5, 64):
        np.testing.assert_allclose(session.anomaly_score(pictures(), batch_size=batch_size), wanted, rtol=1e-5)


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_lower_precisions_are_calibrated_as_they_score(precision: str) -> None:
    pair = exported_ir(precision)
    session, state = Session.open(pair.file, threads=1), pair.detector._state()
    assert pair.found.calibrated
    assert session.calibration_.precision == {"bf16": "bfloat16", "int8": "int8"}[precision]
    assert session.calibration_.n == state.calibration.n == pair.found.n_calibration
    rows = session.score(sorted((bricks() / "train").rglob("*.png")))
    wanted = sorted(row.score for row in rows if row.digest in state.digests["calibration"])
    np.testing.assert_allclose(session.calibration_.scores, wanted, rtol=1e-5)
    assert not np.allclose(session.calibration_.scores, state.calibration.scores, rtol=1e-5)


def test_int8_is_what_mixes_channels_behind_the_finest_maps() -> None:
    shapes = quantised(exported_ir("int8").file)
    assert len(shapes) > 10
    assert all(len(shape) == 4 and shape[2:] == (1, 1) for shape in shapes)  # depthwise ones have a group more
    finest = [s for s in shapes if s[1] in (3, 32)]  # reading the image, and the first block
    assert finest == []


def test_int8_says_what_it_costs_and_on_what() -> None:
    found = exported_ir("int8").found
    assert found.auroc_drop_on == "planted defects"
    assert -0.5 <= found.auroc_drop < 0.3
    assert exported_ir("bf16").found.auroc_drop is None


def test_int8_says_nothing_to_the_terminal(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    fitted("padim").export(tmp_path / "model.xml", precision="int8", normals=bricks() / "train", max_drop=1.0)
    assert capfd.readouterr() == ("", "")


# ------------------------------------------------------------- what is refused


class _Reversing(PaDiMScorer):
    """Calls normal what is not, once it is exported."""

    def forward(self, images: Tensor) -> Output:
        found = super().forward(images)
        return found._replace(score=-found.score) if torch.compiler.is_compiling() else found


@dataclass(kw_only=True, repr=False, eq=False)
class _Wrong(PaDiM):
    test_params: ClassVar[dict[str, Any]] = {}


def test_a_cost_beyond_the_limit_is_an_error_and_leaves_no_file(tmp_path: Path) -> None:
    detector = fitted("padim")
    scorer = _Reversing(detector.scorer_.config)
    scorer.load_state_dict(detector.scorer_.state_dict())
    state = detector._state().replaced(scorer=scorer.eval().requires_grad_(False))
    wrong = _Wrong.from_state(detector.get_params(), state)
    with pytest.raises(ExportError, match=r"int8: costs \d+\.\d\d points of AUROC on planted defects, more than"):
        wrong.export(tmp_path / "model.xml", precision="int8", normals=bricks() / "train", max_drop=0.02)
    assert files(tmp_path) == set()
    with pytest.raises(ExportError, match="scores differ from the model's"):
        wrong.export(tmp_path / "model.xml")
    assert files(tmp_path) == set()


def test_without_normals_a_lower_precision_is_not_calibrated_and_says_so(tmp_path: Path) -> None:
    with pytest.warns(AnomemWarning, match="bfloat16, calibrated in float32"):
        found = fitted("padim").export(tmp_path / "model.xml", precision="bf16")
    assert not found.calibrated
    session = Session.open(tmp_path / "model.xml")
    with pytest.warns(AnomemWarning, match="scores in bfloat16, and was calibrated in float32"):
        session.predict(pictures()[:1])
    session.calibrate(pictures()[:6], alpha=0.5)
    assert session.calibration_.precision == "bfloat16"
    session.predict(pictures()[:1])


@pytest.mark.parametrize("method", ["knn", "pmb"])
def test_other_methods_are_refused(method: str, tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match=rf"{method}: not exported to OpenVINO.*: {', '.join(METHODS)}"):
        fitted(method).export(tmp_path / "model.xml")


@pytest.mark.parametrize(("package", "precision"), [("openvino", "fp32"), ("nncf", "int8")])
def test_a_missing_package_is_named(
    package: str, precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"{package} is not installed: pip install 'anomem\[openvino\]'"):
        fitted("padim").export(tmp_path / "model.xml", precision=precision, normals=bricks() / "train")


def test_damaged_files_are_refused_by_name(tmp_path: Path) -> None:
    network = copied(exported_ir("fp32"), tmp_path)
    weights = network.with_suffix(".bin")
    whole = weights.read_bytes()
    for content in (b"", whole[: len(whole) // 2], whole[:-1] + bytes([whole[-1] ^ 1])):
        weights.write_bytes(content)
        with pytest.raises(ModelFileError, match=r"padim\.bin: damaged, or of another export than padim\.xml"):
            Session.open(network)
    weights.unlink()
    with pytest.raises(ModelFileError, match=r"padim\.xml: its weights, padim\.bin, are missing"):
        Session.open(network)
    weights.write_bytes(exported_ir("int8").file.with_suffix(".bin").read_bytes())
    with pytest.raises(ModelFileError, match="of another export"):
        Session.open(network)
    weights.write_bytes(whole)
    text = network.read_bytes()
    for size in (0, 20, len(text) // 2, len(text) - 3):
        network.write_bytes(text[:size])
        with pytest.raises(ModelFileError, match=r"padim\.xml: not an OpenVINO IR, or damaged"):
            Session.open(network)


def test_weights_are_known_by_their_sha256(tmp_path: Path) -> None:
    network = copied(exported_ir("fp32"), tmp_path)
    texts, whole = read_texts(network), network.with_suffix(".bin").read_bytes()
    assert texts["weights"] == hashlib.sha256(whole).hexdigest()
    write_texts(network, {**texts, "weights": f"{len(whole)}-{zlib.crc32(whole):08x}"})  # as earlier versions wrote it
    assert Session.open(network).name == "padim"
    write_texts(network, {**texts, "weights": f"{len(whole)}-{zlib.crc32(whole) ^ 1:08x}"})
    with pytest.raises(ModelFileError, match="of another export"):
        Session.open(network)


# ------------------------------------------------------------- afterwards


def test_alpha_changes_in_the_file(tmp_path: Path) -> None:
    file = copied(exported_ir("bf16"), tmp_path)
    weights = file.with_suffix(".bin").read_bytes()
    Session.open(file).set_alpha(0.5).save()
    again = Session.open(file)
    assert again.calibration_.alpha == 0.5
    assert again.calibration_.precision == "bfloat16"
    assert file.with_suffix(".bin").read_bytes() == weights
    with pytest.raises(InputError, match="of an IR copy both files first"):
        again.save(tmp_path / "other.xml")


def test_an_other_processors_arithmetic_is_told(tmp_path: Path) -> None:
    file = copied(exported_ir("bf16"), tmp_path)
    facts = read_facts(file)
    here = str(facts.export["arithmetic"])
    other = "f32" if here == "bf16" else "bf16"
    write_facts(file, facts.with_arithmetic(other))
    with pytest.warns(AnomemWarning, match=f"calibrated in {other}, but this processor computes in {here}"):
        session = Session.open(file)
    session.calibrate(pictures()[:6], alpha=0.5).save()
    Session.open(file)  # and now says nothing
    assert re.search(r'"arithmetic": *\\?"|&quot;arithmetic&quot;', file.read_text(encoding="utf-8"))


def test_what_it_is_computed_with_is_refused_by_name(pair: Pair) -> None:
    with pytest.raises(ParameterError, match="onnxruntime reads no OpenVINO IR"):
        Session.open(pair.file, engine="onnxruntime")


def test_raw_openvino_gets_the_raw_scores() -> None:
    pair = exported_ir("fp32")
    tiles = crops("grass", 3, size=64, half="test", rng=np.random.default_rng(0))
    openvino = import_openvino()
    hint = {"INFERENCE_PRECISION_HINT": "f32"}
    network = openvino.Core().compile_model(str(pair.file), "CPU", hint)
    found = network({"image": np.ascontiguousarray(tiles.transpose(0, 3, 1, 2))})
    np.testing.assert_allclose(found["score"], pair.detector.anomaly_score(tiles), rtol=1e-5)
