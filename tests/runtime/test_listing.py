"""Folders are listed to the last file: images by content, masks apart, and everything left out by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from anomem.errors import InputError
from anomem.runtime.listing import find_images


def test_find_images(tmp_path: Path) -> None:
    wanted = ["a/1.PNG", "a/2.jpeg", "b.tif", "c/d/e.webp"]
    unwanted = ["a/.hidden.png", ".git/x.png", "ground_truth/m.png", "c/ground_truth/m.png"]
    for name in [*wanted, *unwanted, "a/readme.txt", "noext"]:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "folder.png").mkdir()
    assert find_images(tmp_path) == [tmp_path / name for name in wanted]
    assert find_images(str(tmp_path / "folder.png")) == []
    assert len(find_images(tmp_path / "ground_truth")) == 1


def test_find_images_follows_links_but_not_in_circles(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "1.png").touch()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "up").symlink_to(tmp_path)
    (tmp_path / "real" / "self").symlink_to(tmp_path / "real")
    assert find_images(tmp_path) == [tmp_path / "link/1.png", tmp_path / "real/1.png"]


def test_find_images_names_a_bad_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name in ("missing", "file"):
        with pytest.raises(InputError, match=f"{name}: .*folder"):
            find_images(tmp_path / name)
