"""Data set and models fitted to it, made once."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from anomem.cli.main import run
from anomem.data.synthetic import write_textures
from tests.cli.process import KNN, TINY, Command, Ran, Run, Shop, call, call_here


@pytest.fixture
def anomem(tmp_path: Path) -> Command:
    """Run ``anomem ARGUMENTS...`` in the test's own folder."""

    def command(*arguments: object, cwd: Path = tmp_path, **changes: str) -> Ran:
        return call(arguments, cwd, **changes)

    return command


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command inside this process, in the test's own folder: code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def command(*arguments: object) -> tuple[int, str, str]:
        code = run([str(argument) for argument in arguments])
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return command


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """Thirty brick images to learn from, five normal and five defective to test on, two models."""
    root = tmp_path_factory.mktemp("shop")
    (data,) = write_textures(root, n_train=30, n_test=5, size=72, seed=0, textures=["brick"])
    fitted = {}
    for name, options in (("knn", KNN), ("anomem", TINY)):
        ran = call_here(["fit", data, "--out", f"{name}.safetensors", *options, "--alpha", "0.1", "--json"], root)
        fitted[name] = ran.result
    return Shop(data, root / "knn.safetensors", root / "anomem.safetensors", fitted)


@pytest.fixture(scope="session", autouse=True)
def _interruptible() -> None:
    """Take SIGINT as a terminal would send it; a shell starts background jobs with it ignored, and children inherit
    that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
