"""Class words at any depth of a folder; distinction of masks and images; messages where ambiguous."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anomem.data.sources import read_dataset
from anomem.errors import InputError
from tests.data.test_layouts import names, put

# --- class words at any depth ------------------------------------------------------------------


def picture(path: Path, value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((4, 4), value, np.uint8)).save(path)


@pytest.mark.parametrize(
    "places",
    [
        ("parts/good/1.png", "parts/bad/2.png"),
        ("a/b/c/OK/1.png", "a/b/c/NG/2.png"),
        ("cam1/ok/1.png", "cam1/ng/2.png"),
        ("Data/Images/Normal/1.JPG", "Data/Images/Anomaly/2.JPG"),
        ("NODefect_images/1.png", "Defect_images/2.png"),
        ("defect-free/1.png", "defective/2.png"),
        ("set/good/1.png", "set/crack/2.png"),
        ("train/parts/good/1.png", "train/parts/bad/2.png"),
        ("train/good/cam1/ok/1.png", "train/good/cam1/ng/2.png"),
        ("train_good/1.png", "test_bad/2.png"),
        ("good/train/1.png", "bad/test/2.png"),
        ("Gutteile/1.png", "Ausschuss/2.png"),
        ("bon/1.png", "défectueux/2.png"),
        ("conforme/1.png", unicodedata.normalize("NFD", "défaut/2.png")),
        ("bueno/1.png", "defectuoso/2.png"),
        ("buono/1.png", "difettoso/2.png"),
        ("dobry/1.png", "wadliwy/2.png"),
        ("良品/1.png", "不良品/2.png"),
        ("合格/1.png", "不合格/2.png"),
        ("양품/1.png", "불량/2.png"),
        ("норма/1.png", "брак/2.png"),
        ("good_cam1/1.png", "cam1_bad/2.png"),
        ("ok lot 3/1.png", "ng_batch-2/2.png"),
        ("sans rayures/1.png", "non conforme/2.png"),
        ("in Ordnung/1.png", "nicht in Ordnung/2.png"),
        ("good/1.png", "good/big_scratches/2.png"),
    ],
)
def test_class_words_at_any_depth(tmp_path: Path, places: tuple[str, str]) -> None:
    data = read_dataset(put(tmp_path, *places))
    assert [s.path for s in data.train] == [tmp_path / places[0]]
    assert all(s.label == 1 for s in data.test)
    assert data.test or any("not used" in note for note in data.notes)


@pytest.mark.parametrize(
    "name", ["bad_cam1", "defects_line2", "scratch_big", "bottle-broken", "NG品", "no_conforme", "not_good_side"]
)
def test_a_lone_folder_that_mentions_defects_is_never_normal(tmp_path: Path, name: str) -> None:
    for place in (f"set/{name}/1.png", f"split/train/{name}/1.png"):
        put(tmp_path, place)
    data = read_dataset(tmp_path / "set")
    assert (len(data.train), [s.label for s in data.test]) == (0, [1])
    assert f"--normal {name} " in data.describe()
    assert len(read_dataset(tmp_path / "set", normal=name).train) == 1
    with pytest.raises(InputError, match="no normal images"):
        read_dataset(tmp_path / "split")


@pytest.mark.parametrize(
    "name", ["badge", "no_damage_left", "scratch_free", "defect_detection", "bottle_ok", "cracker"]
)
def test_other_names_mention_no_defects(tmp_path: Path, name: str) -> None:
    assert len(read_dataset(put(tmp_path, f"{name}/1.png")).train) == 1


@pytest.mark.parametrize(
    "places",
    [
        ("good_0.png", "bad_0.png"),
        ("0_OK.png", "IMG_0_NG.png"),
        ("0.png", "scratch.png"),
        ("crack_1.png", "crack_2.png"),
        ("train/0.png", "train/defect-1.png"),
        ("train/screw/0.png", "train/screw/1_bad.png"),
        ("part1_left.png", "part2_scratch_left.png"),
    ],
)
def test_files_named_for_defects_are_not_learnt_as_normal(tmp_path: Path, places: tuple[str, str]) -> None:
    with pytest.raises(InputError, match=r"are anomalous by their name \(.*\); move them into bad/, or all"):
        read_dataset(put(tmp_path, *places))


def test_a_folder_or_a_mask_counts_more_than_a_file_name(tmp_path: Path) -> None:
    put(tmp_path, "train/good/bad_1.png", "train/good/scratchy 2.png")
    assert names(read_dataset(tmp_path).train, tmp_path) == ["train/good/bad_1.png", "train/good/scratchy 2.png"]
    picture(tmp_path / "masked" / "defect.png", 7)
    picture(tmp_path / "masked" / "1.png", 7)
    picture(tmp_path / "masked" / "defect_mask.png", 255)
    data = read_dataset(tmp_path / "masked")
    assert (names(data.train, tmp_path), names(data.test, tmp_path)) == (["masked/1.png"], ["masked/defect.png"])


def test_cameras_of_one_line_are_one_dataset(tmp_path: Path) -> None:
    data = read_dataset(put(tmp_path, "cam1/ok/1.png", "cam1/ng/2.png", "cam2/ok/3.png", "cam2/ng/4.png"))
    assert names(data.train, tmp_path) == ["cam1/ok/1.png", "cam2/ok/3.png"]
    assert names(data.test, tmp_path) == ["cam1/ng/2.png", "cam2/ng/4.png"]
    assert data.parts() == ("train: 2 normal in cam1/ok, cam2/ok", "test: 2 anomalous in cam1/ng, cam2/ng")


@pytest.mark.parametrize(
    ("places", "words"),
    [
        (("bad/good/1.png", "good/2.png"), "bad/good holds normal images by its name"),
        (("a/good/1.png", "a/bad/2.png", "b/3.png"), "several classes"),
        (("parts/crack/1.png", "parts/hole/2.png"), "several classes"),
        (("x/train/good/1.png", "y/2.png"), "x is a dataset and 1 images lie beside it"),
        (("train/crack/1.png",), "only crack/, no normal images"),
    ],
)
def test_ambiguous_folders_are_refused(tmp_path: Path, places: tuple[str, ...], words: str) -> None:
    with pytest.raises(InputError, match=words) as error:
        read_dataset(put(tmp_path, *places))
    assert "\n" not in str(error.value)


def test_the_normal_class_may_lie_in_a_folder_named_for_defects(tmp_path: Path) -> None:
    put(tmp_path, "defect_images/good/1.png", "defect_images/bad/2.png")
    with pytest.raises(InputError, match=r"name the class with --normal good \(normal='good'\)"):
        read_dataset(tmp_path)
    assert names(read_dataset(tmp_path, normal="good").train, tmp_path) == ["defect_images/good/1.png"]


def test_the_class_proposed_as_normal_mentions_no_defects(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="such as --normal round_side"):
        read_dataset(put(tmp_path, "bad_side/1.png", "round_side/2.png"))


def test_lots_are_no_classes(tmp_path: Path) -> None:
    data = read_dataset(put(tmp_path, "lot 1/a.png", "lot 2/b.png"))
    assert (data.layout, len(data.train)) == ("flat", 2)


def test_a_flat_folder_named_bad_is_noted(tmp_path: Path) -> None:
    (note,) = read_dataset(put(tmp_path / "bad", "a.png")).notes
    assert note == "the folder is named bad, and its images are read as normal"


def test_folders_beside_train_and_test_are_noted(tmp_path: Path) -> None:
    data = read_dataset(put(tmp_path, "train/good/1.png", "test/bad/2.png", "more/3.png"))
    assert data.notes == ("more/ not used (1 images)",)


# --- masks -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "mask",
    ["mask/crack", "masks", "MASK/crack", "groundtruth", "labels", "segmentation/crack"]
    + ["crack_masks", "gt-crack", "Masken", "masques/crack", "máscaras", "掩膜", "anno/crack"],
)
def test_folders_of_masks_are_no_class(tmp_path: Path, mask: str) -> None:
    data = read_dataset(put(tmp_path, "good/0.png", "crack/1.png", f"{mask}/1.png"))
    assert names(data.train, tmp_path) == ["good/0.png"]
    assert [(s.path.name, s.type, s.mask) for s in data.test] == [("1.png", "crack", tmp_path / mask / "1.png")]


def test_a_class_named_mask_is_one_on_request(tmp_path: Path) -> None:
    put(tmp_path, "train/mask/0.png", "test/mask/1.png", "test/none/2.png")
    data = read_dataset(tmp_path, normal="mask")
    assert [s.label for s in data.test] == [0, 1]


def test_masks_beside_images_label_them(tmp_path: Path) -> None:
    for i, defect in enumerate((0, 0, 255)):
        picture(tmp_path / f"train/{i}.png", 90)
        picture(tmp_path / f"train/{i}_GT.png", defect)
    data = read_dataset(tmp_path)
    assert names(data.train, tmp_path) == ["train/0.png", "train/1.png"]
    assert "1 images whose mask marks a defect are not learnt from" in data.notes


def test_twins_beside_photographs_are_masks(tmp_path: Path) -> None:
    for i, defect in enumerate((0, 255)):
        picture(tmp_path / f"Imgs/{i}.jpg", 90)
        picture(tmp_path / f"Imgs/{i}.png", defect)
    data = read_dataset(tmp_path)
    assert (names(data.train, tmp_path), names(data.test, tmp_path)) == (["Imgs/0.jpg"], ["Imgs/1.jpg"])
    assert data.test[0].mask == tmp_path / "Imgs/1.png"


@pytest.mark.parametrize("name", ["img1GT", "img1Mask", "img1_defect", "img1_ann"])
def test_masks_beside_their_images_by_name_and_content(tmp_path: Path, name: str) -> None:
    picture(tmp_path / "good/img0.png", 90)
    for place in ("bad/img1.png", f"bad/{name}.png"):
        picture(tmp_path / place, 255)
    data = read_dataset(tmp_path)
    assert [(s.path.name, s.mask) for s in data.test] == [("img1.png", tmp_path / f"bad/{name}.png")]


def test_a_folder_of_black_and_white_pictures_is_no_class(tmp_path: Path) -> None:
    picture(tmp_path / "good/0.png", 90)
    for place in ("hole/1.png", "regions/1.png"):
        (tmp_path / place).parent.mkdir()
        ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
        Image.fromarray(ramp if "hole" in place else (ramp > 200).astype(np.uint8)).save(tmp_path / place)
    data = read_dataset(tmp_path)
    assert names(data.test, tmp_path) == ["hole/1.png"]
    assert "1 mask matches no image and is not used: regions/1.png" in data.notes


def test_several_masks_of_an_image_are_refused(tmp_path: Path) -> None:
    put(tmp_path, "good/0.png", "bad/1.png", "bad/1_mask_1.png", "bad/1_mask_2.png")
    with pytest.raises(InputError, match=r"1\.png: has several masks, .*; keep one, or put all of them into a folder"):
        read_dataset(tmp_path)


def test_a_folder_of_masks_per_image(tmp_path: Path) -> None:
    put(tmp_path, "train/good/000.png", "test/good/000.png", "test/dent/000.png", "test/dent/001.png")
    put(tmp_path, "ground_truth/dent/000/000.png", "ground_truth/dent/001/000.png", "ground_truth/dent/001/001.png")
    data = read_dataset(tmp_path)
    assert [s.mask for s in data.test] == [tmp_path / f"ground_truth/dent/{i}" for i in ("000", "001")] + [None]


def test_masks_that_match_nothing_are_named(tmp_path: Path) -> None:
    put(tmp_path, "train/good/0.png", "test/dent/1.png", "ground_truth/dent/x.png", "ground_truth/dent/y.png")
    (note,) = read_dataset(tmp_path).notes
    assert note == "2 masks match no image and are not used: ground_truth/dent/x.png, ground_truth/dent/y.png"


def test_visa_as_it_is_delivered(tmp_path: Path) -> None:
    root = tmp_path / "candle/Data"
    for place in ("Images/Normal/0.JPG", "Images/Anomaly/1.JPG"):
        picture(root / place, 90)
    picture(root / "Masks/Anomaly/1.png", 255)
    data = read_dataset(tmp_path / "candle")
    assert [s.mask for s in data.test] == [root / "Masks/Anomaly/1.png"]
    assert data.report()["train_normal"] == 1
