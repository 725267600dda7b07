"""Exported files that were changed, by accident or on purpose."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anomem.errors import ModelFileError
from anomem.runtime.exported import ExportedFacts, read_facts
from anomem.runtime.metadata import read_texts, write_texts
from anomem.runtime.seal import seal
from anomem.runtime.session import Session
from tests.exports import Pair, exported

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

BYTE, REAL = onnx.TensorProto.UINT8, onnx.TensorProto.FLOAT
IMAGES, ONE_EACH = ("b", 3, 16, 16), ("b",)


@pytest.fixture(scope="module")
def pair() -> Pair:
    return exported("memae")


def test_one_changed_bit_is_refused(pair: Pair, tmp_path: Path) -> None:
    whole, file = pair.file.read_bytes(), tmp_path / "memae.onnx"
    rng = np.random.default_rng(0)
    for at in (*rng.integers(0, len(whole), 20), whole.index(b"anomem.seal") + 8, whole.index(b"anomem-sha256:") + 30):
        content = bytearray(whole)
        content[at] ^= 64
        file.write_bytes(content)
        with pytest.raises(ModelFileError, match=r"memae\.onnx: "):
            Session.open(file)


def test_files_of_older_versions_without_a_digest_are_read(pair: Pair, tmp_path: Path) -> None:
    content = onnx.load(pair.file)
    kept = [entry for entry in content.metadata_props if entry.key != "anomem.seal"]
    del content.metadata_props[:]
    content.metadata_props.extend(kept)
    onnx.save(content, tmp_path / "old.onnx")
    assert Session.open(tmp_path / "old.onnx").name == "memae"


def test_arrays_that_unpack_without_end_are_refused(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from anomem.runtime import exported

    texts = read_texts(pair.file)
    bomb = json.dumps({**json.loads(texts["arrays"]), "unknown": {"dtype": "|O", "shape": "?", "data": 1}})
    found = ExportedFacts.from_texts({**texts, "arrays": bomb}, name="x")  # nobody looks into what is not known
    assert found.calibration.n == read_facts(pair.file).calibration.n
    monkeypatch.setattr(exported, "MAX_ARRAY_BYTES", 100)
    with pytest.raises(ModelFileError, match="x: damaged: .*an array that is too large"):
        ExportedFacts.from_texts(texts, name="x")
    with pytest.raises(ModelFileError, match="x: damaged"):
        ExportedFacts.from_texts({**texts, "arrays": "[" * 100_000}, name="x")


def test_texts_without_end_are_refused(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    from anomem.runtime import metadata

    monkeypatch.setattr(metadata, "MAX_TEXT_BYTES", 100)
    with pytest.raises(ModelFileError, match="more text than the limit of 0 MiB"):
        read_texts(pair.file)


def node(kind: str, inputs: str, output: str, **options: Any) -> Any:
    return onnx.helper.make_node(kind, inputs.split(), [output], **options)


CAST, MEAN = node("Cast", "image", "f", to=REAL), node("ReduceMean", "f axes", "score", keepdims=0)
WHOLE = node("Cast", "image", "score", to=REAL)
NETWORKS = {
    "images of one axis": ([WHOLE], ONE_EACH, ONE_EACH, BYTE),
    "images of floats": ([node("ReduceMean", "image axes", "score", keepdims=0)], IMAGES, ONE_EACH, REAL),
    "two inputs": ([CAST, node("Add", "f y", "z"), MEAN], IMAGES, ONE_EACH, BYTE, "y"),
    "maps for scores": ([WHOLE], IMAGES, IMAGES, BYTE),
    "a score without an axis": ([CAST, node("ReduceMean", "f", "score", keepdims=0)], IMAGES, (), BYTE),
}


def written(path: Path, nodes: list[Any], shape: Any, out: Any, kind: int, extra: str | None = None) -> Path:
    make = onnx.helper.make_tensor_value_info
    inputs = [make("image", kind, shape), *([make(extra, REAL, ONE_EACH)] if extra else [])]
    axes = onnx.numpy_helper.from_array(np.array([1, 2, 3]), "axes")
    graph = onnx.helper.make_graph(nodes, "g", inputs, [make("score", REAL, out)], [axes])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    path.write_bytes(model.SerializeToString())
    return path


def test_nothing_is_printed_about_a_network_that_is_not_text(
    pair: Pair, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """ONNX Runtime quotes a name that is no UTF-8, which Python cannot show, and would try again."""
    file = written(tmp_path / "net.onnx", [node("Ca\x01t", "image", "score")], IMAGES, ONE_EACH, BYTE)
    write_texts(file, read_texts(pair.file))
    file.write_bytes(file.read_bytes().replace(b"Ca\x01t", b"Ca\xfft"))
    seal(file)
    with pytest.raises(ModelFileError, match=r"net\.onnx: not an ONNX model that can be run"):
        Session.open(file, engine="onnxruntime")
    assert capfd.readouterr() == ("", "")


def test_a_network_that_fails_where_it_computes_is_named(pair: Pair, tmp_path: Path) -> None:
    file = written(tmp_path / "net.onnx", [CAST, node("Reshape", "f axes", "r"), MEAN], IMAGES, ONE_EACH, BYTE)
    write_texts(file, read_texts(pair.file))
    with pytest.raises(ModelFileError, match=r"net\.onnx: its network fails \(.*\); export it again"):
        Session.open(file, engine="onnxruntime").anomaly_score(np.zeros((1, 16, 16, 3), np.uint8))


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("what", NETWORKS)
def test_networks_that_are_not_from_images_to_scores_are_refused(
    pair: Pair, what: str, engine: str, tmp_path: Path
) -> None:
    pytest.importorskip(engine)
    file = written(tmp_path / "net.onnx", *NETWORKS[what])
    write_texts(file, read_texts(pair.file))
    with pytest.raises(ModelFileError, match=r"net\.onnx: ") as caught:
        Session.open(file, engine=engine).anomaly_score(np.zeros((1, 16, 16, 3), np.uint8))
    assert "\n" not in str(caught.value)
