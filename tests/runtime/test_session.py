"""Exported models: the original model's scores, without torch."""

from __future__ import annotations

import copy
import json
import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import anomem
from anomem.data.synthetic import crops
from anomem.detector import Detector
from anomem.errors import (
    AnomemWarning,
    CalibrationError,
    ImageError,
    InputError,
    MissingExtraError,
    ModelFileError,
    ParameterError,
)
from anomem.runtime.exported import ExportedFacts, read_facts, write_facts
from anomem.runtime.metadata import read_texts, write_texts
from anomem.runtime.preprocess import Preprocessing
from anomem.runtime.session import Session
from tests.cli.process import completed
from tests.exports import Pair, bricks, copied, exported, fitted, pictures

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def pair() -> Pair:
    return exported("memae")


@pytest.fixture(scope="module")
def session(pair: Pair) -> Session:
    return Session.open(pair.file, threads=1)


def assert_same(session: Session, detector: Detector, images: Any) -> None:
    """Scores, maps, p-values and decisions are equal up to rounding."""
    scores = detector.anomaly_score(images)
    np.testing.assert_allclose(session.anomaly_score(images), scores, rtol=1e-5)
    assert np.ptp(scores) > 0.1
    assert np.array_equal(session.p_value(images), detector.p_value(images))
    assert np.array_equal(session.predict(images), detector.predict(images))
    maps = [list(model.anomaly_map(images)) for model in (session, detector)]
    for found, wanted in zip(*maps, strict=True):
        assert found.dtype == np.float32
        assert found.shape == wanted.shape
        np.testing.assert_allclose(found, wanted, atol=1e-5)


# ------------------------------------------------------------- scores


def test_files_score_as_in_the_model(pair: Pair, session: Session) -> None:
    assert_same(session, pair.detector, pictures())


def test_every_way_to_give_images(pair: Pair, session: Session) -> None:
    arrays = np.stack([np.asarray(Image.open(path)) for path in pictures()])
    wanted = session.anomaly_score(pictures())
    for images in (bricks() / "test", [str(path) for path in pictures()], arrays, list(arrays), iter(pictures())):
        assert np.array_equal(session.anomaly_score(images), wanted)
    assert session.anomaly_score(pictures()[0]) == wanted[:1]


def test_zip_scores_and_calibrates_like_its_folder(pair: Pair, tmp_path: Path) -> None:
    zipped = shutil.make_archive(str(tmp_path / "bricks"), "zip", bricks())
    session, other = (Session.open(copied(pair, tmp_path), threads=1) for _ in range(2))
    assert np.array_equal(session.anomaly_score(f"{zipped}/test"), session.anomaly_score(bricks() / "test"))
    with pytest.raises(InputError, match=r"bricks\.zip/test: .* holds anomalous images by its name"):
        session.calibrate(f"{zipped}/test", alpha=0.2)
    session.calibrate(f"{zipped}/test/good", alpha=0.2)
    other.calibrate(bricks() / "test/good", alpha=0.2)
    assert np.array_equal(session.calibration_.scores, other.calibration_.scores)


@pytest.mark.parametrize(
    "how",
    [
        {"tile": 32, "overlap": 0.25},
        {"letterbox": True},
        {"roi": np.tri(40, 30, dtype=bool)},
        {"tile": 20, "overlap": 0.5, "roi": np.eye(48, dtype=bool)[::-1] | np.tri(48, dtype=bool)},
    ],
    ids=["tiles", "letterbox", "roi", "tiles and roi"],
)
def test_tiles_letterbox_and_regions(pair: Pair, how: dict[str, Any], tmp_path: Path) -> None:
    preprocessing = Preprocessing(16, **how)
    state = pair.detector._state()
    detector = type(pair.detector).from_state({}, state.replaced(preprocessing=preprocessing))
    file, facts = copied(pair, tmp_path), read_facts(pair.file)
    manifest = {**vars(facts.manifest), "preprocessing": preprocessing.to_dict()}
    changed = ExportedFacts(type(facts.manifest)(**manifest), preprocessing, facts.calibration, facts.digests)
    write_facts(file, changed)
    rng = np.random.default_rng(0)
    images = [
        *crops("brick", 3, size=48, half="test", rng=rng),
        crops("gravel", 1, size=70, half="test", rng=rng)[0, :40],
    ]
    assert_same(Session.open(file), detector, images)


def test_labels_have_a_say_in_tiles_too(tmp_path: Path) -> None:
    pair = exported("anomem")  # exported before it knew labels
    assert "one_class" not in [o.name for o in onnx.load(pair.file).graph.output]


def test_batches_and_threads_do_not_matter(pair: Pair, session: Session) -> None:
    wanted = session.anomaly_score(pictures())
    for batch_size in (1, 5, 64):
        np.testing.assert_allclose(
            session.anomaly_score(pictures(), batch_size=batch_size, workers=0), wanted, rtol=1e-6
        )
    with ThreadPoolExecutor(2) as pool:
        for found in pool.map(lambda _: session.anomaly_score(pictures()), range(4)):
            np.testing.assert_allclose(found, wanted, rtol=1e-6)
    two = Session.open(pair.file, threads=2)
    np.testing.assert_allclose(two.anomaly_score(pictures()), wanted, rtol=1e-6)


def test_unreadable_images_are_named_or_left_out(session: Session, tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(pictures()[0].read_bytes()[:100])
    with pytest.raises(ImageError, match=r"bad\.png"):
        session.anomaly_score([bad, pictures()[0]])
    assert session.predict([bad, pictures()[0]], skip_bad=True)[0] == -1
    with pytest.raises(ImageError, match=r"missing\.png"):
        session.anomaly_score([tmp_path / "missing.png"])
    with pytest.raises(InputError, match="0 images"):
        session.anomaly_score([])


def test_a_method_without_maps_refuses_to_draw_them() -> None:
    with pytest.raises(InputError, match="draws no maps"):
        Session.open(exported("plad").file).anomaly_map(pictures())


def test_only_the_processor_computes(session: Session) -> None:
    assert len(session.anomaly_score(pictures()[:1], device="cpu")) == 1
    with pytest.raises(ParameterError, match="device='cuda'"):
        session.anomaly_score(pictures()[:1], device="cuda")


def test_load_opens_both_kinds(pair: Pair, tmp_path: Path) -> None:
    pair.detector.save(tmp_path / "model.safetensors")
    assert isinstance(anomem.load(tmp_path / "model.safetensors"), Detector)
    assert isinstance(anomem.load(pair.file), Session)
    with pytest.raises(ParameterError, match="engine='openvino' is for exported models"):
        anomem.load(tmp_path / "model.safetensors", engine="openvino")


def test_a_session_needs_no_torch(pair: Pair) -> None:
    code = (
        "import json, sys\n"
        "from anomem.runtime.session import Session\n"
        "session = Session.open(sys.argv[1], threads=1)\n"
        "scores = session.anomaly_score(sys.argv[2:]).tolist()\n"
        "maps = [float(m.sum()) for m in session.anomaly_map(sys.argv[2:])]\n"
        "known = {'torch', 'scipy', 'sklearn', 'timm', 'matplotlib', 'onnx', 'click'} & set(sys.modules)\n"
        "print(json.dumps([scores, maps, sorted(known)]))"
    )
    command = [sys.executable, "-c", code, str(pair.file), *map(str, pictures())]
    ran = completed(command, check=True)
    scores, maps, known = json.loads(ran.stdout)
    assert known == []
    np.testing.assert_allclose(scores, pair.detector.anomaly_score(pictures()), rtol=1e-5)
    np.testing.assert_allclose(maps, [m.sum() for m in pair.detector.anomaly_map(pictures())], rtol=1e-5)


# ------------------------------------------------------------- calibration


def test_alpha_changes_after_the_export(pair: Pair, tmp_path: Path) -> None:
    file = copied(pair, tmp_path)
    session = Session.open(file).set_alpha(0.5)
    assert session.calibration_ == copy.copy(pair.detector).set_alpha(0.5).calibration_
    with pytest.raises(CalibrationError, match="needs 999 calibration normals"):
        session.set_alpha(0.001)
    assert Session.open(file).calibration_.alpha == 0.2
    session.save(tmp_path / "copy.onnx")
    session.save()
    for path in (file, tmp_path / "copy.onnx"):
        again = Session.open(path)
        assert again.calibration_ == session.calibration_
        assert np.array_equal(again.anomaly_score(pictures()), session.anomaly_score(pictures()))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["copy.onnx", "memae.onnx"]


def test_calibrating_on_fresh_normals_is_what_the_model_does(pair: Pair, tmp_path: Path) -> None:
    normals = [*sorted((bricks() / "test" / "good").iterdir()), *sorted((bricks() / "train").rglob("*.png"))]
    session, detector = Session.open(copied(pair, tmp_path)), copy.copy(pair.detector)
    lines = []
    for model in (session, detector):
        with pytest.warns(AnomemWarning, match="that the model has learnt from") as caught:
            model.calibrate(normals, alpha=0.3)
        lines.append(str(caught[0].message))
    assert lines[0] == lines[1]
    assert session.calibration_.n == detector.calibration_.n == 6 + pair.detector.calibration_.n
    np.testing.assert_allclose(session.calibration_.scores, detector.calibration_.scores, rtol=1e-5)
    np.testing.assert_allclose(session.map_scale_, detector.map_scale_, rtol=1e-4)
    assert session.digests_ == detector.digests_
    assert session.counts_ == detector.counts_
    session.save()
    assert Session.open(session.path).calibration_ == session.calibration_


def test_groups_are_kept_in_the_file(pair: Pair, tmp_path: Path) -> None:
    session = Session.open(copied(pair, tmp_path))
    normals = sorted((bricks() / "test" / "good").iterdir())
    session.calibrate(normals, alpha=0.5, groups=[i // 2 for i in range(6)])
    assert session.calibration_.n_groups == 3
    session.save()
    assert Session.open(session.path).calibration_ == session.calibration_


def test_learnt_images_alone_calibrate_nothing(pair: Pair, session: Session) -> None:
    learnt = pair.detector.digests_by_role_["learn"]
    seen = [p for p in sorted((bricks() / "train").rglob("*.png")) if next(session.score([p])).digest in learnt]
    assert seen
    with pytest.warns(AnomemWarning), pytest.raises(InputError, match="no image to calibrate on is new"):
        Session.open(pair.file).calibrate(seen)


# ------------------------------------------------------------- files that are not right


@pytest.mark.parametrize("size", [0, 1, 7, 100, 0.5, -1])
def test_a_cut_file_is_refused_by_name(pair: Pair, size: float, tmp_path: Path) -> None:
    content = pair.file.read_bytes()
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(content[: int(size * len(content)) if size == 0.5 else int(size)])
    with pytest.raises(ModelFileError, match=r"damaged\.onnx: not an ONNX model, or damaged"):
        Session.open(damaged)


def test_other_peoples_models_are_refused(pair: Pair, tmp_path: Path) -> None:
    content = onnx.load(pair.file)
    del content.metadata_props[:]
    onnx.save(content, tmp_path / "theirs.onnx")
    with pytest.raises(ModelFileError, match=r"theirs\.onnx: without anomem's manifest"):
        Session.open(tmp_path / "theirs.onnx")


@pytest.mark.parametrize(
    ("key", "old", "new", "words"),
    [
        ("manifest", '"input_hw": [16, 16]', '"input_hw": [32, 32]', "damaged"),
        ("manifest", '"method"', '"methud"', "unknown key"),
        ("manifest", '"format_version": 1', '"format_version": 4', "newer anomem"),
        (
            "manifest",
            '"precision": "float32", "map_scale"',
            '"precision": "float8", "map_scale"',
            "precision must be one of",
        ),
        ("arrays", '"<f4"', '"|O"', "damaged"),
        ("arrays", '"shape": [', '"shape": [9', "damaged"),
        ("arrays", '"calibration_scores"', '"scores"', "damaged"),
    ],
)
def test_changed_facts_are_refused(pair: Pair, key: str, old: str, new: str, words: str, tmp_path: Path) -> None:
    file = copied(pair, tmp_path)
    texts = read_texts(file)
    assert old in texts[key]
    write_texts(file, {**texts, key: texts[key].replace(old, new)})
    with pytest.raises(ModelFileError, match=words) as caught:
        Session.open(file)
    assert "memae.onnx" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_pillow_images_and_file_contents_score_alike(pair: Pair, session: Session) -> None:
    wanted = session.anomaly_score(pictures())
    contents = [path.read_bytes() for path in pictures()]
    assert np.array_equal(session.anomaly_score(contents), wanted)
    assert np.array_equal(session.anomaly_score([Image.open(path) for path in pictures()]), wanted)
    assert session.anomaly_score(contents[0]) == session.anomaly_score(Image.open(pictures()[0])) == wanted[:1]
    assert np.array_equal(session.anomaly_score(np.array([str(path) for path in pictures()])), wanted)
    digests = [[result.digest for result in session.score(images)] for images in (contents, pictures())]
    assert digests[0] == digests[1]


def test_the_limit_on_pixels_is_an_option(session: Session) -> None:
    with pytest.raises(ImageError, match="48 x 48 pixels are more than the limit of 100"):
        session.anomaly_score(pictures(), max_pixels=100)
    results = list(session.score(pictures(), max_pixels=100, skip_bad=True))
    assert all("more than the limit" in (result.error or "") for result in results)


def test_calibrating_skips_what_cannot_be_read(pair: Pair, tmp_path: Path) -> None:
    session = Session.open(copied(pair, tmp_path))
    os.mkfifo(tmp_path / "pipe.png")
    fresh = [*(bricks() / "test" / "good").glob("*.png"), tmp_path / "pipe.png"]
    with pytest.raises(ImageError, match=r"pipe\.png: is a pipe"):
        session.calibrate(fresh, 0.5)
    session.calibrate(fresh, 0.5, skip_bad=True)
    assert session.calibration_.n == len(fresh) - 1


def test_a_network_that_cannot_run_is_refused(pair: Pair, tmp_path: Path) -> None:
    content = onnx.load(pair.file)
    content.graph.node[0].op_type = "NoSuchOperator"
    onnx.save(content, tmp_path / "strange.onnx")
    write_texts(tmp_path / "strange.onnx", read_texts(pair.file))  # of a digest of its own
    with pytest.raises(ModelFileError, match=r"strange\.onnx: not an ONNX model that can be run") as caught:
        Session.open(tmp_path / "strange.onnx")
    assert "\n" not in str(caught.value)


def test_what_is_no_exported_file_is_refused(pair: Pair, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"missing\.onnx: no such model file"):
        Session.open(tmp_path / "missing.onnx")
    with pytest.raises(ModelFileError, match="not an exported model"):
        Session.open(tmp_path / "model.safetensors")
    page = tmp_path / "page.xml"
    for text, words in (
        ("<html/>", "not an OpenVINO IR"),
        ("<net", "damaged"),
        ("<net/>", "without anomem's manifest"),
    ):
        page.write_text(text)
        with pytest.raises(ModelFileError, match=words):
            Session.open(page)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"engine": "tensorrt"}, "expected auto, onnxruntime, openvino"),
        ({"threads": 0}, "threads must be at least 1"),
    ],
)
def test_wrong_options_are_named(pair: Pair, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ParameterError, match=words):
        Session.open(pair.file, **options)


def test_a_missing_engine_is_named_with_its_extra(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'anomem-runtime\[onnxruntime\]'"):
        Session.open(pair.file)
    with pytest.raises(MissingExtraError, match=r"pip install 'anomem-runtime\[openvino\]'"):
        Session.open(pair.file, engine="openvino")


def test_an_exported_model_learns_nothing(pair: Pair) -> None:
    from anomem.detectors import load

    with pytest.raises(ModelFileError, match="an exported model"):
        load(pair.file)
    assert fitted("memae") is pair.detector
