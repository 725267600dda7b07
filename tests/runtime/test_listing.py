"""Listing of folders: images by content, masks separately, a note per ignored file."""

from __future__ import annotations

import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anomem.errors import AnomemWarning, InputError
from anomem.runtime.images import HEATMAP, write_png
from anomem.runtime.listing import find_images, image_files, list_folder, warn_of_pages
from anomem.runtime.masks import is_mask_folder, mask_bases
from anomem.runtime.words import check_no_defects


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
    (tmp_path / "round").symlink_to("round")  # named by no suffix, and led to by nothing
    assert find_images(tmp_path) == [tmp_path / "link/1.png", tmp_path / "real/1.png"]


def test_find_images_names_a_bad_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name in ("missing", "file"):
        with pytest.raises(InputError, match=f"{name}: .*folder"):
            find_images(tmp_path / name)


def put(place: Path, value: int = 90, **options: object) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8), value, np.uint8)).save(place, **options)


def quiet(folder: Path) -> list[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AnomemWarning)
        return sorted(Path(path).relative_to(folder).as_posix() for path in image_files(folder, among=False))


def test_images_by_content_whatever_their_suffix(tmp_path: Path) -> None:
    put(tmp_path / "a.png")
    put(tmp_path / "b.jfif", format="JPEG")
    put(tmp_path / "c", format="PNG")
    put(tmp_path / "d.bak", format="TIFF")
    put(tmp_path / "E.PnG")
    (tmp_path / "BM.txt").write_text("BMW and Mercedes")
    (tmp_path / "P1.txt").write_text("P1 is a line")
    assert quiet(tmp_path) == ["E.PnG", "a.png", "b.jfif", "c", "d.bak"]


def test_what_is_left_out_is_named(tmp_path: Path) -> None:
    put(tmp_path / "a.png")
    put(tmp_path / "@eaDir/a.png")
    put(tmp_path / "$RECYCLE.BIN/x.png")
    put(tmp_path / "masks/a.png")
    (tmp_path / "d.heic").write_bytes(b"\0\0\0\x18ftypheic")
    (tmp_path / "e").write_bytes(b"\0\0\0\x18ftypavif")
    (tmp_path / "f.bin").write_bytes(b"1234")
    (tmp_path / "notes.txt").write_text("words")
    frames = [Image.new("L", (8, 8), level) for level in (0, 100, 200)]
    frames[0].save(tmp_path / "scan.tif", save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / "moving.png", save_all=True, append_images=frames[1:])
    assert quiet(tmp_path) == ["a.png", "moving.png", "scan.tif"]
    assert list_folder(tmp_path).notes() == (
        "1 mask not read as images (masks: 1)",
        "left out 2 files: d.heic (HEIC), e (AVIF); convert to PNG, TIFF or JPEG",
        "left out 1 file, not images by content: f.bin",
        "left out 2 hidden or system entries: $RECYCLE.BIN, @eaDir",
        "only the first page or frame is read of moving.png (2 more), scan.tif (2 more); save each as one file",
    )
    with pytest.warns(AnomemWarning, match=r"d\.heic \(HEIC\)"):
        image_files(tmp_path, among=False)


def test_a_folder_that_leaves_nothing_says_why(tmp_path: Path) -> None:
    (tmp_path / "d.heic").write_bytes(b"\0\0\0\x18ftypheic")
    with pytest.raises(InputError, match=r"0 images, found left out 1 file: d\.heic"):
        image_files(tmp_path, among=False)


@pytest.mark.parametrize("name", ["1_GT", "1_mask", "1-mask", "1.mask", "1_ground_truth", "mask_1", "1_defect_mask"])
def test_masks_by_name_beside_their_image(tmp_path: Path, name: str) -> None:
    put(tmp_path / "1.png")
    put(tmp_path / f"{name}.png", 0)
    assert quiet(tmp_path) == ["1.png"]


def test_a_weak_name_is_a_mask_by_its_content_alone(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    put(tmp_path / "1.png")
    put(tmp_path / "1_label.png", 0)
    put(tmp_path / "bottle.png")
    Image.fromarray(rng.integers(0, 255, (32, 32), np.uint8)).save(tmp_path / "bottle_label.png")
    assert quiet(tmp_path) == ["1.png", "bottle.png", "bottle_label.png"]


def test_a_twin_is_a_mask_and_a_second_photograph_is_not(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    photograph = Image.fromarray(rng.integers(0, 255, (32, 32, 3), np.uint8))
    for name in ("a.jpg", "b.jpg", "b.png"):
        photograph.save(tmp_path / name)
    put(tmp_path / "a.png", 0)
    assert quiet(tmp_path) == ["a.jpg", "b.jpg", "b.png"]


def test_names_of_mask_folders() -> None:
    masks = [
        "ground_truth",
        "GroundTruth",
        "GT",
        "masks",
        "Mask_images",
        "labels",
        "annotations",
        "segmentation",
        "gt_png",
        "SegmentationClass",
    ]
    others = ["good", "with_mask", "without_mask", "missing_label", "good_label", "images"]
    assert [name for name in masks + others if is_mask_folder(name)] == masks


def test_mask_names_name_their_image() -> None:
    assert mask_bases("person_mask") == ["person"]
    assert mask_bases("mask") == []


@pytest.mark.parametrize(("kind", "name"), [("TIFF", "scan"), ("GIF", "a.jpg"), ("WEBP", "b.dat"), ("MPO", "c.mpo")])
def test_pages_are_counted_whatever_the_suffix(kind: str, name: str, tmp_path: Path) -> None:
    first, second = (Image.fromarray(np.full((8, 8, 3), value, np.uint8)) for value in (1, 200))
    first.save(tmp_path / name, format=kind, save_all=True, append_images=[second])
    assert list_folder(tmp_path).pages == ((tmp_path / name, 2),)


def test_pages_of_an_animated_png_behind_a_long_profile(tmp_path: Path) -> None:
    first, second = (Image.fromarray(np.full((8, 8, 3), value, np.uint8)) for value in (1, 200))
    profile = np.random.default_rng(0).bytes(5000)
    first.save(tmp_path / "a.png", save_all=True, append_images=[second], icc_profile=profile)
    with pytest.warns(AnomemWarning, match=r"only the first page or frame is read of .*a\.png \(1 more\)"):
        warn_of_pages([tmp_path / "a.png"])


def test_heatmaps_are_no_images(tmp_path: Path) -> None:
    put(tmp_path / "a.png")
    (tmp_path / "heatmaps").mkdir()
    write_png(tmp_path / "heatmaps" / "a.png", np.zeros((8, 8, 3), np.uint8), title=HEATMAP)
    listing = list_folder(tmp_path)
    assert listing.images == (tmp_path / "a.png",)
    assert "left out 1 heatmap (heatmaps: 1)" in listing.notes()


@pytest.mark.parametrize(
    ("places", "words"),
    [
        (("good/1.png", "hole/2.png"), "hole beside a folder named for normal images"),
        (("good/1.png", "2.png"), "images beside a folder named for normal images"),
        (("cam1/1.png", "big_dents/2.png"), "big_dents holds anomalous images by its name"),
    ],
)
def test_normal_images_are_not_mixed_with_others(places: tuple[str, ...], words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words):
        check_no_defects([tmp_path / place for place in places], tmp_path)
    check_no_defects([tmp_path / "cam1/good/1.png", tmp_path / "cam2/good/2.png"], tmp_path)


def test_folders_without_end_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "deep.zip", "w") as packed:
        packed.writestr("d/" * 2000 + "a.png", b"")
    (tmp_path / "tree" / ("d/" * 300)).mkdir(parents=True)
    for place in ("deep.zip", "tree"):
        with pytest.raises(InputError, match=rf"{place}: more than 200 folders inside one another"):
            list_folder(tmp_path / place)
