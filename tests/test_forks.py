"""Models loaded before a fork, and models sent to other processes."""

from __future__ import annotations

import os
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest

from anomem.errors import ModelFileError
from anomem.runtime import session as session_module
from anomem.runtime.session import Session
from tests.cli.process import completed, environment
from tests.exports import copied, exported, exported_ir, fitted, pictures

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork there")

_PROBE = """
import multiprocessing, sys
import anomem
model = anomem.load(sys.argv[1])
images = sys.argv[2:]

def score(sent):
    return [f"{value:.4g}" for value in (sent or model).anomaly_score(images, workers=0)]

print("parent", score(None))
with multiprocessing.get_context("fork").Pool(1) as pool:
    for sent in (None, model) if hasattr(model, "engine") else (None,):
        try:
            print("worker", pool.apply_async(score, [sent]).get(timeout=100))
        except anomem.errors.AnomemError as error:
            print("worker", error)
"""


def forked(file: Path) -> list[str]:
    """Score with a model in this process's child, and in forked workers of that: what each says."""
    command = [sys.executable, "-c", _PROBE, str(file), *map(str, pictures()[:6])]
    ran = completed(command, env=environment(OMP_NUM_THREADS="2"), check=True)
    return [line.partition(" ")[2] for line in ran.stdout.splitlines()]


def test_torch_computes_in_a_fork(tmp_path: Path) -> None:
    fitted("padim").save(tmp_path / "m")
    parent, worker = forked(tmp_path / "m")
    assert parent == worker


def test_onnxruntime_computes_in_a_fork() -> None:
    pytest.importorskip("onnxruntime")
    parent, worker, sent = forked(exported("memae").file)
    assert parent == worker == sent


def test_openvino_computes_in_a_fork() -> None:
    pytest.importorskip("openvino")
    parent, worker, sent = forked(exported_ir("fp32").file)
    assert parent == worker == sent


def test_a_fork_with_openvino_ends() -> None:
    """Without a call too: the engine's threads, which the fork lacks, are not waited for."""
    pytest.importorskip("openvino")
    file, image = str(exported_ir("fp32").file), str(pictures()[0])
    probe = f"import os, sys, anomem; model = anomem.load({file!r}); model.anomaly_score({image!r})"
    probe += "\nchild = os.fork()\nif not child: sys.exit(7)\nprint(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))"
    ran = completed([sys.executable, "-c", probe], env=environment(), check=True)
    assert ran.stdout.strip() == "7"


# ------------------------------------------------------------- pickle


def test_a_session_travels_by_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    session = Session.open(copied(exported("memae"), tmp_path).name, threads=1)
    session.set_alpha(0.5)
    content = pickle.dumps(session)
    monkeypatch.chdir("/")
    monkeypatch.setattr(session_module, "_engines", {})  # as another process
    again = pickle.loads(content)
    assert again.engine is not session.engine
    assert again.engine.threads == 1
    assert again.calibration_.alpha == 0.5
    assert np.array_equal(again.anomaly_score(pictures()), session.anomaly_score(pictures()))


def test_a_session_of_a_replaced_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    file = copied(exported("memae"), tmp_path)
    session = Session.open(file, threads=1)
    scores = session.anomaly_score(pictures())
    content = pickle.dumps(session)
    other = Session.open(file)
    other.set_alpha(0.5)
    other.save()
    monkeypatch.setattr(session_module, "_engines", {})
    with pytest.raises(ModelFileError, match="has been replaced since the session was opened"):
        pickle.loads(content)
    file.write_bytes(b"another file")
    assert np.array_equal(session.anomaly_score(pictures()), scores)


def test_an_openvino_model_outlives_its_files(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    file = copied(exported_ir("fp32"), tmp_path)
    session = Session.open(file)
    first = session.anomaly_score(pictures()[:1])
    for part in (file, file.with_suffix(".bin")):
        part.write_bytes(b"\x3f" * part.stat().st_size)  # in place, as cp does
    assert np.array_equal(session.anomaly_score(pictures()[:1]), first)
    together = session.anomaly_score(pictures())  # compiles the network once more, for many tiles
    assert together[0] == pytest.approx(first[0], rel=1e-5)
