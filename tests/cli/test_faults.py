"""Full disks, read-only places, vanished inputs, two writers: one clear line, and earlier results intact."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.process import COMMAND, KNN, Run, Shop, completed, environment, files, running

BENCH = ("bench", "localisation", "--methods", "knn", "--set", "knn.size=32")
TRAINED = ("--method", "memae", "--set", "size=16", "--set", "train_steps=5", "--set", "train_batch=4")


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB; skipped where none may be mounted."""
    place = tmp_path / "small"
    place.mkdir()
    if completed(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", place]).returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        yield place
    finally:
        completed(["umount", "-l", place], check=True)


def commands(shop: Shop, folder: Path) -> dict[str, tuple[list[object], str]]:
    """Each command with results in a folder, and the name of one."""
    labels = folder.parent / "l.csv"
    defects = [path for path in shop.images if path.parent.name != "good"]
    labels.write_text("path,label\n" + "".join(f"{path},1\n" for path in defects))
    good = shop.data / "test" / "good"
    sharded = ["--engine", "processes", "--workers", 0, "--shard-images", 4]
    return {
        "fit": (["fit", shop.data, "--out", folder / "m", *KNN], "m"),
        "fit, trained": (["fit", shop.data, "--out", folder / "m", *TRAINED, "--checkpoint-every", 0], "m"),
        "label": (["label", shop.anomem, "--labels", labels, "--out", folder / "m"], "m"),
        "calibrate": (["calibrate", shop.knn, good, "--alpha", 0.2, "--out", folder / "m"], "m"),
        "csv": (["score", shop.knn, shop.data, "--out", folder / "r.csv"], "r.csv"),
        "parquet": (["score", shop.knn, shop.data, "--out", folder / "r.parquet"], "r.parquet"),
        "heatmaps": (["score", shop.anomem, shop.data / "test", "--heatmaps", folder / "maps"], "maps"),
        "shards": (["score", shop.knn, shop.data / "test", "--out", folder / "run", *sharded], "run"),
        "export": (["export", shop.knn, "--out", folder / "m.onnx"], "m.onnx"),
        "bench": ([*BENCH, "--data", shop.data, "--out", folder / "runs.jsonl"], "runs.jsonl"),
    }


NAMES = ("fit", "fit, trained", "label", "calibrate", "csv", "parquet", "heatmaps", "shards", "export", "bench")


def fill(folder: Path) -> None:
    """Leave no byte on the disk."""
    with (folder / "filler").open("wb", buffering=0) as stream:
        try:
            while True:
                stream.write(bytes(1024))
        except OSError:
            pass


def error_of(code: int, err: str) -> str:
    assert code == 2, err
    assert "Traceback" not in err
    (line,) = [line for line in err.splitlines() if line.startswith("anomem: error: ")]
    return line


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_full_disk(shop: Shop, here: Run, small: Path, name: str) -> None:
    arguments, result = commands(shop, small)[name]
    (small / "m").write_text("an earlier model")
    (small / "r.csv").write_text("earlier rows")
    fill(small)
    code, _, err = here(*arguments)
    line = error_of(code, err)
    assert str(small / result) in line or name in ("fit", "fit, trained")
    assert "space" in line
    assert (small / "m").read_text() == "an earlier model"
    assert (small / "r.csv").read_text() == "earlier rows"
    assert not [place for place in files(small) if place.endswith((".parquet", ".png", ".onnx", ".xml"))]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_read_only_place(shop: Shop, here: Run, small: Path, name: str) -> None:
    arguments, result = commands(shop, small)[name]
    (small / "m").write_text("an earlier model")
    completed(["mount", "-o", "remount,ro", small], check=True)
    code, _, err = here(*arguments)
    assert str(small / result) in error_of(code, err)
    assert (small / "m").read_text() == "an earlier model"


@pytest.mark.parametrize("name", ["csv", "parquet"])
def test_a_vanished_image_leaves_the_earlier_table(shop: Shop, here: Run, tmp_path: Path, name: str) -> None:
    rows = [*map(str, shop.images), str(tmp_path / "gone.png")]
    (tmp_path / "t.csv").write_text("path\n" + "\n".join(rows) + "\n")
    out = tmp_path / f"r.{name}"
    out.write_text("earlier rows")
    code, _, err = here("score", shop.knn, tmp_path / "t.csv", "--out", out)
    line = error_of(code, err)
    assert f"t.csv:12: {tmp_path / 'gone.png'}" in line
    assert "give the path of an image" in line
    assert out.read_text() == "earlier rows"


def test_a_vanished_model_or_folder(shop: Shop, here: Run, tmp_path: Path) -> None:
    for arguments in (["score", "gone", shop.data], ["score", shop.knn, "gone"], ["fit", "gone", "--out", "m"]):
        code, _, err = here(*arguments)
        assert "gone" in error_of(code, err)
    assert files(tmp_path) == set()


@pytest.mark.slow
def test_two_writers_of_a_file_leave_one_whole_result(shop: Shop, tmp_path: Path) -> None:
    results = []
    for alpha in ("0.1", "0.5"):
        command = [*COMMAND, "score", str(shop.knn), str(shop.data), "--alpha", alpha, "--out"]
        completed([*command, f"{alpha}.csv"], cwd=tmp_path, env=environment(), check=True)
        results.append(((tmp_path / f"{alpha}.csv").read_bytes(), [*command, "both.csv"]))
    assert results[0][0] != results[1][0]
    options = {"cwd": tmp_path, "env": environment()}
    with running(results[0][1], **options) as first, running(results[1][1], **options) as second:
        assert [process.wait(timeout=120) for process in (first, second)] == [0, 0]
    assert (tmp_path / "both.csv").read_bytes() in [content for content, _ in results]
    assert files(tmp_path) == {"0.1.csv", "0.5.csv", "both.csv"}
    assert os.access(tmp_path / "both.csv", os.R_OK)
