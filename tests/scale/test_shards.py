"""Sharded scoring: the rows of `score`, complete shards only, and nothing computed twice."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import fsspec
import pyarrow.parquet as pq
import pytest

import anomem
from anomem.errors import ImageError, InputError
from anomem.runtime.pixels import Reading
from anomem.scale import score_shards
from anomem.scale.ledger import locked
from anomem.scale.plan import read_shard
from anomem.scale.processes import Died, pooled
from anomem.scale.sources import TarSource, open_shard
from tests.scale.dying import opened
from tests.scale.images import model, rows_of, write_images, write_list, write_tar


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model(tmp_path_factory.mktemp("model"))


def contents(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (run / "shards").iterdir()}


def test_rows_are_those_of_score_and_an_unreadable_image_is_one(fitted: Path, tmp_path: Path) -> None:
    images = write_images(tmp_path / "in", 7)
    found = score_shards(fitted, [tmp_path / "in"], tmp_path / "run", workers=0, shard_images=3)
    assert (found.n, found.errors, found.shards, found.computed) == (7, 1, 3, 3)
    rows = rows_of(tmp_path / "run")
    assert [row["path"] for row in rows] == [str(path) for path in images]
    scored = anomem.load(fitted).score(images, skip_bad=True)
    for row, result in zip(rows, scored, strict=True):
        if row["path"] == str(images[2]):
            assert str(images[2]) in str(row["error"])
            assert (row["score"], row["p_value"], row["anomalous"]) == (None, None, None)
        else:
            assert row["error"] is None
            assert (row["p_value"], row["anomalous"]) == (result.p_value, result.anomalous)
            assert row["score"] == pytest.approx(result.score, rel=1e-6)  # other batches: other rounding


def test_a_run_computes_what_is_missing_or_damaged(fitted: Path, tmp_path: Path) -> None:
    write_images(tmp_path / "in", 7)
    run = tmp_path / "run"
    score_shards(fitted, [tmp_path / "in"], run, workers=0, shard_images=2)
    before = contents(run)
    (run / "shards" / "000001.parquet").unlink()
    (run / "shards" / "000003.parquet").write_bytes(before["000003.parquet"][:-9])
    found = score_shards(fitted, [tmp_path / "in"], run, workers=0, shard_images=2)
    assert (found.computed, found.shards, found.n) == (2, 4, 7)
    assert contents(run) == before
    assert score_shards(fitted, [tmp_path / "in"], run, workers=0, shard_images=2).computed == 0
    manifest = json.loads((run / "manifest.json").read_text())
    assert (manifest["complete"], manifest["rows"], manifest["rows_of_shards"]) == (True, 7, [2, 2, 2, 1])


def test_a_folder_of_another_run_is_refused_by_name(fitted: Path, tmp_path: Path) -> None:
    write_images(tmp_path / "in", 4)
    run = tmp_path / "run"
    score_shards(fitted, [tmp_path / "in"], run, workers=0)
    before = contents(run)
    with pytest.raises(InputError, match="alpha was 0.3, now 0.2"):
        score_shards(fitted, [tmp_path / "in"], run, workers=0, alpha=0.2)
    shutil.copy(tmp_path / "in" / "000.png", tmp_path / "in" / "new.png")
    with pytest.raises(InputError, match="another run: plan was"):
        score_shards(fitted, [tmp_path / "in"], run, workers=0)
    assert contents(run) == before
    assert len(read_shard(run / "plan.parquet", 0)) == 4
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "text").touch()
    with pytest.raises(InputError, match="holds other files"):
        score_shards(fitted, [tmp_path / "in"], tmp_path / "other", workers=0)


def test_two_runs_into_a_folder(fitted: Path, tmp_path: Path) -> None:
    write_images(tmp_path / "in", 3)
    with locked(tmp_path / "run"), pytest.raises(InputError, match="another run is writing to it"):
        score_shards(fitted, [tmp_path / "in"], tmp_path / "run", workers=0)


def test_lists_tars_and_urls(fitted: Path, tmp_path: Path) -> None:
    images = write_images(tmp_path / "in", 5)
    write_tar(tmp_path / "a.tar", images)
    names = write_list(tmp_path / "list.parquet", ["in/000.png", str(images[1]), f"file://{images[3]}", "gone.png"])
    memory = fsspec.filesystem("memory")
    memory.pipe("/parts/b.tar", (tmp_path / "a.tar").read_bytes())
    memory.pipe("/parts/x.png", images[4].read_bytes())
    memory.pipe("/parts/read.me", b"text")
    found = score_shards(fitted, [names, tmp_path / "a.tar", "memory://parts"], tmp_path / "run", workers=0)
    assert (found.n, found.errors, found.shards) == (15, 3, 4)
    rows = {str(row["path"]): row for row in rows_of(tmp_path / "run")}
    assert "no such file" in str(rows[f"{tmp_path}/gone.png"]["error"])
    assert rows[f"file://{images[3]}"]["error"] is None
    for place in (f"{tmp_path}/a.tar", "memory://parts/b.tar", "memory:///parts/b.tar"):
        if f"{place}/004.png" in rows:
            assert rows[f"{place}/004.png"]["score"] == pytest.approx(rows[f"{tmp_path}/a.tar/004.png"]["score"])
    assert sum(path.endswith("b.tar/004.png") for path in rows) == 1


def test_parts_of_a_damaged_tar_keep_their_images_and_its_error(tmp_path: Path) -> None:
    content = write_tar(tmp_path / "a.tar", write_images(tmp_path / "in", 5))
    (tmp_path / "a.tar").write_bytes(content[:5120])
    whole = TarSource(tmp_path / "a.tar", "a.tar")
    last = len(whole) - 1
    part = whole.subset([last, 0]).subset([1, 0])
    assert (len(part), part.name(0), part.digest(0)) == (2, whole.name(0), whole.digest(0))
    with pytest.raises(ImageError, match=r"a\.tar: damaged tar"):
        part.load(1)
    with open_shard(["memory://nowhere/b.tar"], Reading()) as missing:
        assert missing.subset([0]).name(0) == "memory://nowhere/b.tar"
        with pytest.raises(ImageError, match="nowhere"):
            missing.subset([0]).load(0)


@pytest.mark.parametrize(("kept", "named"), [(2000, "damaged tar"), (0, "damaged tar"), (5120, "no end mark")])
def test_a_damaged_tar_keeps_its_images_and_is_a_row(fitted: Path, tmp_path: Path, kept: int, named: str) -> None:
    content = write_tar(tmp_path / "a.tar", write_images(tmp_path / "in", 5))
    (tmp_path / "a.tar").write_bytes(content[:kept])
    found = score_shards(fitted, [tmp_path / "a.tar"], tmp_path / "run", workers=0)
    rows = rows_of(tmp_path / "run")
    assert (rows[-1]["path"], found.n) == (f"{tmp_path}/a.tar", len(rows))
    assert named in str(rows[-1]["error"])
    assert all(str(row["path"]).startswith(f"{tmp_path}/a.tar/") for row in rows[:-1])


def test_heatmaps_lie_in_a_folder_per_shard(fitted: Path, tmp_path: Path) -> None:
    write_images(tmp_path / "in", 4)
    (tmp_path / "maps" / "000001").mkdir(parents=True)  # of a killed run
    (tmp_path / "maps" / "000001" / "old.png").touch()
    score_shards(fitted, [tmp_path / "in"], tmp_path / "run", workers=0, shard_images=2, heatmaps=tmp_path / "maps")
    drawn = [row["heatmap"] for row in rows_of(tmp_path / "run")]
    assert [name and Path(str(name)).is_file() for name in drawn] == [True, True, None, True]
    found_maps = {str(path.relative_to(tmp_path / "maps")) for path in (tmp_path / "maps").rglob("*")}
    assert found_maps == {"000000", "000000/000000.png", "000000/000001.png", "000001", "000001/000001.png"}


def test_a_list_is_planned_in_row_groups(fitted: Path, tmp_path: Path) -> None:
    names = write_list(tmp_path / "list.parquet", [f"{i}.png" for i in range(25)])
    found = score_shards(fitted, [names], tmp_path / "run", workers=0, shard_images=10)
    assert (found.n, found.errors, found.shards) == (25, 25, 3)
    assert pq.ParquetFile(tmp_path / "run" / "plan.parquet").num_row_groups == 3
    pq.write_table(pq.read_table(names).rename_columns(["file"]), names)
    with pytest.raises(InputError, match="no column 'path'"):
        score_shards(fitted, [names], tmp_path / "other", workers=0)


def test_a_worker_that_dies_is_replaced_and_its_unit_tried_again(tmp_path: Path) -> None:
    results = list(pooled([[n] for n in (1, 4, 5)], opened(tmp_path), 2, tries=2))
    assert sorted(result for result in results if isinstance(result, int)) == [10, 40]
    (died,) = (result for result in results if isinstance(result, Died))
    assert (died.unit, died.code) == (5, 3)
    assert str(died) == "its worker was ended with code 3"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1-0", "4-0", "4-1", "5-0", "5-1"]
