"""Results never overwrite inputs of a command."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from anomem.cli.session import Session
from anomem.errors import InputError
from anomem.runtime.images import decode, write_png
from tests.cli.process import KNN, Run, Shop

REFUSED = "is read by this command; name another file"


@pytest.mark.parametrize("how", ["the file", "another spelling", "a link", "a second name"])
def test_an_input_is_known_by_every_name(tmp_path: Path, how: str) -> None:
    table = tmp_path / "parts.csv"
    table.write_text("path\n")
    (tmp_path / "sub").mkdir()
    target = {"the file": table, "another spelling": tmp_path / "sub" / ".." / "parts.csv"}.get(how, tmp_path / "new")
    if how == "a link":
        target.symlink_to(table)
    if how == "a second name":
        os.link(table, target)
    session = Session()
    session.reads(table, None, tmp_path / "absent")
    with pytest.raises(InputError, match=REFUSED):
        session.plan(target)
    session.plan(tmp_path / "another")


def test_images_of_an_input_folder_stay(tmp_path: Path) -> None:
    for name in ("a.png", "model"):
        (tmp_path / name).touch()
    session = Session()
    session.reads(tmp_path)
    session.plan(tmp_path / "model", tmp_path / "b.png")
    with pytest.raises(InputError, match=REFUSED):
        session.plan(tmp_path / "a.png")


def test_inputs_that_are_known_later(tmp_path: Path) -> None:
    (tmp_path / "mask").touch()
    session = Session()
    session.plan(tmp_path / "mask")
    with pytest.raises(InputError, match=REFUSED):
        session.check_inputs(tmp_path / "mask")


def test_two_results_in_one_file(tmp_path: Path) -> None:
    session = Session()
    session.plan(tmp_path / "r")
    with pytest.raises(InputError, match="two results"):
        session.plan(tmp_path / "." / "r")


def test_commands_refuse_their_inputs(shop: Shop, here: Run, tmp_path: Path) -> None:
    shutil.copy(shop.knn, tmp_path / "m.csv")
    shutil.copy(shop.knn, tmp_path / "m.bin")
    rows = [f"{path},{int(path.parent.name != 'good')}" for path in shop.images]
    (tmp_path / "parts.csv").write_text("\n".join(["path,label", *rows]) + "\n")
    write_png(tmp_path / "roi.png", np.full((8, 8), 255, np.uint8))
    good = shop.data / "train" / "good"
    cases: list[list[object]] = [
        ["score", "m.csv", shop.images[0], "--out", "m.csv"],
        ["evaluate", "m.csv", "parts.csv", "--out", "m.csv"],
        ["evaluate", "m.csv", "parts.csv", "--out", "parts.csv"],
        ["evaluate", "m.csv", "parts.csv", "--out", shop.images[3]],
        ["fit", "parts.csv", *KNN, "--out", "parts.csv"],
        ["fit", good, *KNN, "--labels", "parts.csv", "--out", "parts.csv"],
        ["fit", good, *KNN, "--labels", "parts.csv", "--out", shop.images[0]],
        ["fit", good, *KNN, "--set", "roi=roi.png", "--out", "roi.png"],
        ["label", "m.csv", "--labels", "parts.csv", "--out", "parts.csv"],
        ["calibrate", "m.csv", "parts.csv", "--alpha", "0.5", "--out", "parts.csv"],
        ["export", "m.bin", "--out", "m.xml"],
    ]
    before = {path: path.read_bytes() for path in [*tmp_path.iterdir(), *shop.images]}
    for arguments in cases:
        code, out, err = here(*arguments)
        assert code == 2, (arguments, out)
        assert REFUSED in err, (arguments, err)
    assert {path: path.read_bytes() for path in before} == before


def test_a_heatmap_replaces_heatmaps_only(shop: Shop, here: Run, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    shutil.copy(shop.images[0], tmp_path / "in" / "a.png")
    (tmp_path / "maps").mkdir()
    for _ in range(2):
        assert here("score", shop.anomem, "in", "--heatmaps", "maps")[0] == 0
    assert decode(tmp_path / "maps" / "a.png").shape == decode(shop.images[0]).shape
    shutil.copy(shop.images[1], tmp_path / "maps" / "a.png")
    code, _, err = here("score", shop.anomem, "in", "--heatmaps", "maps")
    assert code == 2
    assert "maps/a.png: exists and is not a heatmap" in err
    assert (tmp_path / "maps" / "a.png").read_bytes() == shop.images[1].read_bytes()


def test_long_names_get_heatmaps(shop: Shop, here: Run, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    names = ["検" * 83 + ".png", "検" * 83 + ".tif"]
    for name in names:
        shutil.copy(shop.images[0], tmp_path / "in" / name)
    shutil.copy(shop.images[0], tmp_path / "in" / ("x" * 251 + ".png"))
    assert here("score", shop.anomem, "in", "--heatmaps", "maps", "--out", "検" * 83 + ".csv")[0] == 0
    assert sorted(path.name for path in (tmp_path / "maps").iterdir()) == [
        "x" * 251 + ".png",
        "検" * 83 + "-2.png" if len(os.fsencode("検" * 83 + "-2.png")) <= 255 else "検" * 82 + "-2.png",
        "検" * 83 + ".png",
    ]


def test_a_region_that_cannot_be_read_is_no_image_to_skip(shop: Shop, here: Run) -> None:
    code, _, err = here("fit", shop.data / "train" / "good", *KNN, "--set", "roi=none.png", "--out", "m")
    assert code == 2
    assert "error: roi: none.png: there is no such file" in err
    assert "--skip-bad" not in err
