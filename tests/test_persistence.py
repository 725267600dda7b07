"""Model files: atomic, plain data, errors for anything else."""

from __future__ import annotations

import json
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

import anomem
from anomem import modelfile
from anomem.data.synthetic import crops
from anomem.detectors import get
from anomem.detectors.baselines.knn import KNN
from anomem.errors import InputError, ModelFileError
from anomem.modelfile import read_manifest, read_model, write_model
from anomem.runtime.manifest import Manifest


def _manifest(note: str = "") -> Manifest:
    return Manifest(
        method="knn",
        version="0",
        params={},
        resolved={},
        architecture={},
        preprocessing={},
        calibration={"alpha": 0.1, "n": 9, "precision": "float32"},
        counts={"n_train": 1, "n_tune": 1, "n_calibration": 9, "n_labelled": 0},
        precision="float32",
        map_scale=None,
        facts={"note": note},
    )


@pytest.fixture(scope="module")
def fitted() -> KNN:
    images = crops("brick", 36, size=32, half="train", rng=np.random.default_rng(0))
    return KNN(size=32, max_items=8).fit(images, calibration="split", alpha=0.2)


@pytest.fixture
def saved(fitted: KNN, tmp_path: Path) -> Path:
    fitted.save(tmp_path / "model")
    return tmp_path / "model"


def test_tensors_and_facts_come_back(tmp_path: Path) -> None:
    tensors = {
        "half": torch.randn(3, 4).half(),
        "turned": torch.arange(6).reshape(2, 3).T,
        "last": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
        "empty": torch.zeros(0, 5),
        "trained": torch.nn.Parameter(torch.ones(2)),
    }
    write_model(tmp_path / "model", tensors, _manifest("ümläut"))
    found, manifest = read_model(tmp_path / "model")
    assert manifest == read_manifest(tmp_path / "model") == _manifest("ümläut")
    assert {k: v.dtype for k, v in found.items()} == {k: v.dtype for k, v in tensors.items()}
    assert all(torch.equal(found[k], v) for k, v in tensors.items())


@pytest.mark.parametrize("method", ["anomem", "knn"])
def test_a_network_is_built_without_drawing_weights(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What no file holds is small: nothing is built a second time for it."""
    detector = get(method)(**get(method).test_params)
    images = crops("brick", 36, size=64, half="train", rng=np.random.default_rng(0))
    detector.fit(images, calibration="split", alpha=0.2).save(tmp_path / "model")

    def built_twice() -> None:
        raise AssertionError("weights are drawn, to be overwritten")

    monkeypatch.setattr(modelfile, "own_rng", built_twice)
    loaded = anomem.load(tmp_path / "model")
    assert np.array_equal(loaded.anomaly_score(images), detector.anomaly_score(images))


def test_tensors_lie_in_memory_as_those_of_a_fit(tmp_path: Path) -> None:
    """Wherever the header ends: products of matrices round by where their factors begin."""
    tensors = {"odd": torch.zeros(3, dtype=torch.uint8), "matrix": torch.zeros(16, 16), "vector": torch.zeros(5)}
    for length in range(0, 64, 8):
        write_model(tmp_path / "model", tensors, _manifest("x" * length))
        found, _ = read_model(tmp_path / "model")
        assert {name: tensor.data_ptr() % 64 for name, tensor in found.items()} == dict.fromkeys(tensors, 0)


def test_a_file_that_changes_leaves_what_was_read_as_it_was(tmp_path: Path) -> None:
    write_model(tmp_path / "model", {"a": torch.arange(1000.0)}, _manifest())
    found, _ = read_model(tmp_path / "model")
    with (tmp_path / "model").open("r+b") as file:
        size = file.seek(0, 2)
        file.seek(size // 2)
        file.write(b"\xff" * (size // 2))
    assert torch.equal(found["a"], torch.arange(1000.0))


@given(st.integers(0, 3000))
def test_a_model_is_never_taken_for_a_pickle(tmp_path_factory: pytest.TempPathFactory, length: int) -> None:
    path = tmp_path_factory.mktemp("model") / "model"
    write_model(path, {"a": torch.zeros(2)}, _manifest("x" * length))
    assert read_manifest(path).facts["note"] == "x" * length


def test_a_model_whose_first_byte_is_a_pickles(tmp_path: Path) -> None:
    first = set()
    for length in range(0, 2048, 8):
        write_model(tmp_path / "model", {"a": torch.zeros(2)}, _manifest("x" * length))
        first.add((tmp_path / "model").read_bytes()[0])
        read_model(tmp_path / "model")
    assert 0x80 in first


def test_a_hostile_header_length_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(struct.pack("<Q", 2**62) + b"{}")
    with pytest.raises(ModelFileError, match="not a model file, or damaged"):
        read_model(tmp_path / "model")


def test_other_files_are_refused_by_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "pickle").write_bytes(pickle.dumps({"a": 1}))
    torch.save({"a": torch.ones(1)}, tmp_path / "zip")
    save_file({"a": torch.ones(1)}, tmp_path / "foreign")
    (tmp_path / "text").write_text("hello, this is no model")
    for name, said in (
        ("pickle", "is a pickle"),
        ("zip", "is a pickle"),
        ("foreign", "not an anomem model"),
        ("text", "not a model file, or damaged"),
        ("absent", "no such model file"),
        (".", "no such model file"),
    ):
        with pytest.raises(ModelFileError, match=said) as caught:
            read_model(tmp_path / name)
        assert "\n" not in str(caught.value)
        assert str(tmp_path / name) in str(caught.value)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "model"
    write_model(path, {"a": torch.zeros(2)}, _manifest("old"))
    with pytest.raises(ModelFileError, match="cannot be written"):
        write_model(path, {"a": torch.zeros(2)}, _manifest(float("nan")))  # type: ignore[arg-type]
    assert read_manifest(path).facts["note"] == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="create"):
        write_model(tmp_path / "no" / "model", {"a": torch.zeros(2)}, _manifest())


def _rewritten(path: Path, change: Any) -> None:
    """Change a saved model's manifest or tensors, and write them again."""
    tensors, manifest = read_model(path)
    content = json.loads(manifest.to_json())
    change(content, tensors)
    save_file(tensors, path, metadata={"anomem": json.dumps(content)})


CHANGES = {
    "newer version": lambda c, t: c.update(format_version=99),
    "another format": lambda c, t: c.update(format="other"),
    "unknown method": lambda c, t: c.update(method="magic"),
    "unknown key": lambda c, t: c.update(surprise=1),
    "missing tensor": lambda c, t: t.pop("scorer.bank"),
    "surplus tensor": lambda c, t: t.update({"scorer.surplus": torch.ones(1)}),
    "other shape": lambda c, t: t.update({"scorer.bank": torch.ones(3, 3)}),
    "no calibration": lambda c, t: t.pop("calibration.scores"),
    "unsorted calibration": lambda c, t: t.update({"calibration.scores": torch.tensor([2.0, 1.0] * 5)}),
    "calibration not finite": lambda c, t: t.update({"calibration.scores": torch.full((10,), torch.nan)}),
    "no digests": lambda c, t: t.pop("digests.learn"),
    "digests of another kind": lambda c, t: t.update({"digests.learn": torch.ones(3)}),
    "impossible alpha": lambda c, t: c["calibration"].update(alpha=1e-9),
    "architecture of another kind": lambda c, t: c.update(architecture={}),
    "hostile architecture": lambda c, t: c["architecture"].update(n=-1),
    "unknown backbone": lambda c, t: c["architecture"].update(backbone="no_such_model"),
    "backbone to be fetched": lambda c, t: c["architecture"].update(backbone="hf-hub:nobody/nothing"),
    "backbone of another kind": lambda c, t: c["architecture"].update(backbone=[1]),
    "tensor of another type": lambda c, t: t.update({"scorer.bank": t["scorer.bank"].double()}),
    "preprocessing of another kind": lambda c, t: c["preprocessing"].update(size="large"),
    "region announced, not there": lambda c, t: c["preprocessing"].update(roi=True),
    "unknown parameter": lambda c, t: c["params"].update(surprise=1),
    "unknown precision": lambda c, t: (c.update(precision="foo"), c["calibration"].update(precision="foo")),
    "precision of exported files": lambda c, t: (c.update(precision="int8"), c["calibration"].update(precision="int8")),
    "calibrated in another precision": lambda c, t: c["calibration"].update(precision="bfloat16"),
    "alpha beyond all floats": lambda c, t: c["calibration"].update(alpha=10**400),
    "scale beyond all floats": lambda c, t: c.update(map_scale={"low": 0, "high": 10**400}),
    "unknown metric": lambda c, t: c["architecture"].update(metric="evil"),
    "neighbours of another kind": lambda c, t: c["architecture"].update(k={}),
    "negative neighbours": lambda c, t: c["architecture"].update(k=-77),
    "number beyond all networks": lambda c, t: c["architecture"].update(dim=10**12),
    "no hyperparameters": lambda c, t: c.update(resolved={}),
    "hyperparameter outside its range": lambda c, t: c["resolved"].update(k=-1),
    "unknown hyperparameter": lambda c, t: c["resolved"].update(surprise=1),
    "history of another kind": lambda c, t: c["facts"].update(history=[{"a": 1}]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_tampered_model_is_refused_in_one_line(saved: Path, change: str) -> None:
    _rewritten(saved, CHANGES[change])
    with pytest.raises(ModelFileError) as caught:
        anomem.load(saved)
    assert str(saved) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def scales(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scales") / "model"
    images = crops("brick", 36, size=32, half="train", rng=np.random.default_rng(0))
    anomem.AnoMem(size=32, memory_size=(4,)).fit(images, calibration="split", alpha=0.2).save(path)
    return path


IMPOSSIBLE = [
    *[("scales", {"source": value}) for value in (-77, 4, None)],
    *[("scales", {"neighbourhood": value}) for value in (20000, {}, "evil")],
    *[("scales", facts) for facts in ({"hw": []}, {"hw": [7]}, {"max_grid": 0}, {"n_items": 1e300}, {"channels": "a"})],
    *[("fusion", facts) for facts in ({"top": 1e30}, {"reduction": "evil"}, {"smoothing": -1.0}, {"standardise": 3})],
]


@pytest.mark.parametrize(("part", "facts"), IMPOSSIBLE, ids=str)
def test_architectures_that_cannot_be_are_refused_in_one_line(
    part: str, facts: dict[str, Any], scales: Path, tmp_path: Path
) -> None:
    path = tmp_path / "model"
    path.write_bytes(scales.read_bytes())

    def change(content: Any, tensors: Any) -> None:
        found = content["architecture"][part]
        (found[0] if part == "scales" else found).update(facts)

    _rewritten(path, change)
    with pytest.raises(ModelFileError, match="damaged") as caught:
        anomem.load(path)
    assert "\n" not in str(caught.value)


def test_an_architecture_without_end_is_refused_before_it_is_built(scales: Path, tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.write_bytes(scales.read_bytes())
    _rewritten(path, lambda content, tensors: content["architecture"].update(stages=[1] * 50_000))
    with pytest.raises(ModelFileError, match="architecture is larger than that of any method"):
        anomem.load(path)


@pytest.mark.parametrize("part", ["manifest", "digest", "mark", "key", "tensor"])
def test_one_changed_bit_is_refused(saved: Path, part: str) -> None:
    content = bytearray(saved.read_bytes())
    at = {
        "manifest": content.index(b"n_train") + 12,
        "digest": content.index(b"anomem-sha256:") + 20,
        "mark": content.index(b"anomem-sha256:") + 2,
        "key": content.index(b"seal") + 2,
        "tensor": len(content) - 9,
    }[part]
    content[at] ^= 2
    saved.write_bytes(content)
    with pytest.raises(ModelFileError, match=str(saved)):
        anomem.load(saved)


def test_a_tensor_of_a_kind_that_torch_lacks_is_refused(saved: Path) -> None:
    content = saved.read_bytes()
    size = struct.unpack("<Q", content[:8])[0]
    header, body = json.loads(content[8 : 8 + size]), content[8 + size :]
    manifest = json.loads(header["__metadata__"]["anomem"])
    del manifest["facts"]["seal"]
    header["__metadata__"]["anomem"] = json.dumps(manifest)
    header["x"] = {"dtype": "F6_E2M3", "shape": [64], "data_offsets": [len(body), len(body) + 48]}
    changed = json.dumps(header).encode()
    saved.write_bytes(struct.pack("<Q", len(changed)) + changed + body + bytes(48))
    with pytest.raises(ModelFileError, match="damaged: a tensor cannot be read|not a model file, or damaged"):
        anomem.load(saved)


def test_names_that_no_file_can_have() -> None:
    for name in ("x" * 300, "a\0b"):
        with pytest.raises(ModelFileError, match="no such model file"):
            anomem.load(name)


def test_loading_leaves_the_random_state_alone(saved: Path) -> None:
    before = torch.get_rng_state()
    anomem.load(saved)
    assert torch.equal(torch.get_rng_state(), before)


def test_an_untouched_rewrite_loads(saved: Path, fitted: KNN) -> None:
    _rewritten(saved, lambda c, t: None)
    assert repr(anomem.load(saved)) == repr(fitted)


def test_a_region_of_interest_travels_with_the_model(tmp_path: Path) -> None:
    images = crops("brick", 36, size=32, half="train", rng=np.random.default_rng(0))
    roi = np.zeros((32, 32), np.uint8)
    roi[4:20, 4:30] = 255
    anomem_images = images[:4]
    detector = KNN(size=32, max_items=8, roi=roi).fit(images, calibration="split", alpha=0.2)
    detector.save(tmp_path / "model")
    loaded = anomem.load(tmp_path / "model")
    assert np.array_equal(loaded.anomaly_score(anomem_images), detector.anomaly_score(anomem_images))
    loaded.save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "model").read_bytes()


@pytest.mark.parametrize("backbone", ["resnetblur50", "mobilenetv3_small_050"])
def test_every_backbone_comes_back_whole(tmp_path: Path, backbone: str) -> None:
    images = crops("brick", 36, size=32, half="train", rng=np.random.default_rng(0))
    detector = get("knn")(size=32, backbone=backbone, weights=None).fit(images, calibration="split", alpha=0.2)  # type: ignore[call-arg]
    detector.save(tmp_path / "model")
    loaded = anomem.load(tmp_path / "model")
    assert np.array_equal(loaded.anomaly_score(images[:4]), detector.anomaly_score(images[:4]))


@pytest.mark.parametrize("how", ["shorter", "other"])
def test_a_loaded_model_outlives_its_file(saved: Path, how: str) -> None:
    images = crops("brick", 2, size=32, half="test", rng=np.random.default_rng(1))
    model = anomem.load(saved)
    before = model.anomaly_score(images, workers=0)
    size = saved.stat().st_size
    with saved.open("r+b") as file:  # in place, as cp does
        file.truncate(1000) if how == "shorter" else (file.seek(size // 2), file.write(b"\x3f" * (size // 2)))
    assert np.array_equal(model.anomaly_score(images, workers=0), before)


def test_errors_of_the_machine_are_not_the_files(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(config: object) -> None:
        raise MemoryError

    monkeypatch.setattr(KNN, "_build", fail)
    with pytest.raises(MemoryError):
        anomem.load(saved)
