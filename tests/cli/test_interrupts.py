"""Ctrl-C and kill at any moment: exit codes, one line, no partial files. Real processes, real signals."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

import anomem as library
from tests.cli.process import COMMAND, KNN, TINY, Shop, call, completed, environment, files, running

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals are sent otherwise there")


def start(arguments: Sequence[object], cwd: Path) -> AbstractContextManager[subprocess.Popen[str]]:
    return running([*COMMAND, *map(str, arguments)], cwd=cwd, env=environment())


def end(process: subprocess.Popen[str], number: int) -> tuple[int, str, str]:
    process.send_signal(number)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def wait_for(happened: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    while not happened():
        assert process.poll() is None, "ended before it could be interrupted"
        time.sleep(0.01)


def many_images(shop: Shop, folder: Path, copies: int) -> Path:
    folder.mkdir(parents=True)
    for i in range(copies):
        for path in shop.images:
            shutil.copy(path, folder / f"{i:03d}-{path.parent.name}-{path.name}")
    return folder


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [
        pytest.param(signal.SIGINT, 130, "interrupted", marks=pytest.mark.slow),
        (signal.SIGTERM, 143, "terminated"),
    ],
)
def test_score_interrupted_among_its_heatmaps(shop: Shop, tmp_path: Path, number: int, code: int, word: str) -> None:
    many_images(shop, tmp_path / "in", 40)
    before = files(tmp_path)

    def drawing() -> bool:
        return len(list(tmp_path.glob(".maps-*/*.png"))) > 3

    with start(["score", shop.anomem, "in", "--out", "r.csv", "--heatmaps", "maps"], tmp_path) as process:
        wait_for(drawing, process)
        returned, out, err = end(process, number)
    assert returned == code
    assert out == ""
    assert err == f"anomem: {word}; nothing was written\n"
    assert files(tmp_path) == before


def test_fit_interrupted_while_it_learns(shop: Shop, tmp_path: Path) -> None:
    many_images(shop, tmp_path / "in" / "train" / "good", 60)
    (tmp_path / "m").write_text("an older model")
    before = files(tmp_path)
    with start(["fit", "in", "--out", "m", *KNN], tmp_path) as process:
        assert "600 normal" in process.stdout.readline()
        time.sleep(0.5)
        returned, _, err = end(process, signal.SIGINT)
    assert returned == 130
    assert err.splitlines()[-1] == "anomem: interrupted; nothing was written"
    assert "Traceback" not in err
    assert files(tmp_path) == before
    assert (tmp_path / "m").read_text() == "an older model"


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.3, 0.6, 0.75, 0.85, 0.95])
@pytest.mark.parametrize("command", ["fit", "score", "label", "evaluate"])
def test_interrupted_at_any_moment(
    shop: Shop, tmp_path: Path, command: str, share: float, durations: dict[str, float]
) -> None:
    """Whenever it comes, a file is whole or not there, and the last line says which."""
    arguments, targets = job(command, shop, tmp_path)
    if command not in durations:
        started = time.perf_counter()
        completed([*COMMAND, *map(str, arguments)], cwd=tmp_path, env=environment(), check=True)
        durations[command] = time.perf_counter() - started
        for target in targets:
            shutil.rmtree(tmp_path / target) if (tmp_path / target).is_dir() else (tmp_path / target).unlink()
    before = files(tmp_path)
    with start(arguments, tmp_path) as process:
        time.sleep(share * durations[command])
        returned, _, err = end(process, signal.SIGINT)

    there = {target for target in targets if (tmp_path / target).exists()}
    kept = tuple(f"{target}.checkpoint" for target in targets)  # what --resume continues
    others = {
        name for name in files(tmp_path) - before if name.split("/")[0] not in targets and not name.startswith(kept)
    }
    assert others == set(), "something was left behind"
    if returned == 0:
        assert there == set(targets)
        return
    # Python may still be starting, or already shutting down, where nobody can print a line.
    if returned == 130:
        said = err.splitlines()[-1]
        assert said.startswith("anomem: interrupted; ")
        assert ("nothing was written" in said or "continue with --resume" in said) == (there == set())
        assert all(target in said for target in there)
    if "m" in there:
        assert library.load(tmp_path / "m").counts_["n_calibration"] > 0
    if "maps" in there:
        assert len(list((tmp_path / "maps").glob("*.png"))) == len(list((tmp_path / "in").iterdir()))


@pytest.fixture(scope="module")
def durations() -> dict[str, float]:
    """Seconds that each command takes when nobody interrupts it."""
    return {}


def job(command: str, shop: Shop, folder: Path) -> tuple[list[object], list[str]]:
    """Arguments of a command, and the files and folders that it writes."""
    if command == "fit":
        return ["fit", shop.data, "--out", "m", *TINY, "--alpha", "0.1"], ["m"]
    if command == "label":
        rows = [f"{path},1" for path in shop.images if path.parent.name != "good"]
        (folder / "l.csv").write_text("\n".join(["path,label", *rows]) + "\n")
        return ["label", shop.anomem, "--labels", "l.csv", "--out", "m"], ["m"]
    if command == "score":
        many_images(shop, folder / "in", 10)
        return ["score", shop.anomem, "in", "--out", "r.csv", "--heatmaps", "maps"], ["r.csv", "maps"]
    return ["evaluate", shop.anomem, shop.data, "--out", "e.json", "--report", "page"], ["e.json", "page"]


_WHILE_IMPORTING = """
import os, signal, sys
from anomem.cli.main import main

module, sys.argv = sys.argv[1], ["anomem", "doctor"]

class Finder:
    def find_spec(self, name, *_):
        if name == module:
            os.kill(os.getpid(), signal.SIGTERM)

sys.meta_path.insert(0, Finder())
main()
"""


@pytest.mark.parametrize("module", ["click", pytest.param("timm", marks=pytest.mark.slow)])
def test_terminated_while_something_is_imported(module: str, tmp_path: Path) -> None:
    """One line, and no exception in the middle of an import: C++ in it would abort."""
    ran = completed([sys.executable, "-c", _WHILE_IMPORTING, module], cwd=tmp_path, env=environment())
    assert ran.returncode == 143
    assert ran.stderr == "anomem: terminated; nothing was written\n"


TRAINED = ("--method", "memae", "--set", "size=16", "--set", "train_steps=400", "--set", "train_batch=4", "--json")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_fit_resumes_to_the_same_model(shop: Shop, tmp_path: Path, number: int) -> None:
    with start(["fit", shop.data, "--out", "m", *TRAINED, "--checkpoint-every", 0], tmp_path) as process:
        wait_for((tmp_path / "m.checkpoint").exists, process)
        _, _, err = end(process, number)
    word = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}.get(signal.Signals(number))
    if word is not None:
        assert err == f"anomem: {word}; m.checkpoint holds the training so far: continue with --resume\n"
    assert not (tmp_path / "m").exists()
    assert call(["fit", shop.data, "--out", "m", *TRAINED, "--resume"], tmp_path).code == 0
    assert files(tmp_path) == {"m"}, "a checkpoint is removed once the model is written"
    assert call(["fit", shop.data, "--out", "whole", *TRAINED], tmp_path).code == 0
    resumed, whole = library.load(tmp_path / "m"), library.load(tmp_path / "whole")
    assert resumed.anomaly_score(shop.images).tolist() == whole.anomaly_score(shop.images).tolist()
    assert resumed.calibration_.scores.tolist() == whole.calibration_.scores.tolist()
