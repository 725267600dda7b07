"""Folder layouts found in practice are recognised; ambiguous ones raise an error."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anomem.data.sources import Dataset, Sample, read_dataset, training_samples
from anomem.errors import InputError


def put(root: Path, *places: str) -> Path:
    for place in places:
        path = root / place
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix.lower() in {".txt", ".json"}:
            path.write_text("words")
        else:
            Image.fromarray(np.zeros((2, 2), np.uint8)).save(path)
    return root


def names(samples: tuple[Sample, ...], root: Path) -> list[str]:
    return [sample.path.relative_to(root).as_posix() for sample in samples]


MVTEC = (
    "train/good/0.png",
    "train/good/1.png",
    "test/good/0.png",
    "test/scratch/0.png",
    "test/scratch/1.png",
    "test/hole/0.png",
    "ground_truth/scratch/0_mask.png",
    "ground_truth/scratch/1_mask.png",
    "ground_truth/hole/0.png",
)


def test_mvtec(tmp_path: Path) -> None:
    data = read_dataset(put(tmp_path, *MVTEC))
    truth = tmp_path / "ground_truth"
    assert data == Dataset(
        "mvtec",
        tmp_path,
        tuple(Sample(tmp_path / f"train/good/{i}.png", 0) for i in range(2)),
        (
            Sample(tmp_path / "test/good/0.png", 0),
            Sample(tmp_path / "test/hole/0.png", 1, truth / "hole/0.png", "hole"),
            Sample(tmp_path / "test/scratch/0.png", 1, truth / "scratch/0_mask.png", "scratch"),
            Sample(tmp_path / "test/scratch/1.png", 1, truth / "scratch/1_mask.png", "scratch"),
        ),
    )
    assert data.for_evaluation() == data.test
    assert data.counts() == {
        "train_normal": 2,
        "train_anomalous": 0,
        "train_unknown": 0,
        "test_normal": 1,
        "test_anomalous": 3,
        "test_unknown": 0,
        "masks": 3,
        "types": 2,
    }
    assert data.describe() == (
        f"{tmp_path} (mvtec layout): train 2 normal; test 1 normal + 3 anomalous of 2 types; 3 masks"
    )


def test_mvtec_with_normal_named_is_the_same(tmp_path: Path) -> None:
    put(tmp_path, *MVTEC)
    assert read_dataset(tmp_path, normal="good") == read_dataset(str(tmp_path))


def test_only_train_good(tmp_path: Path) -> None:
    data = read_dataset(put(tmp_path, "train/good/0.png"))
    assert (data.layout, len(data.train), data.test) == ("mvtec", 1, ())


def test_without_ground_truth(tmp_path: Path) -> None:
    data = read_dataset(put(tmp_path, "train/good/0.png", "test/good/0.png", "test/bent/0.png"))
    assert data.layout == "mvtec"
    assert [sample.mask for sample in data.test] == [None, None]
    assert data.notes == ()  # nobody expects masks where there are none at all


def test_one_defect_folder_only(tmp_path: Path) -> None:
    data = read_dataset(put(tmp_path, "train/good/0.png", "test/bent/0.png"))
    assert [(sample.label, sample.type) for sample in data.test] == [(1, "bent")]


def test_some_masks_missing(tmp_path: Path) -> None:
    data = read_dataset(put(tmp_path, *[p for p in MVTEC if p != "ground_truth/hole/0.png"]))
    assert [sample.mask is None for sample in data.test] == [True, True, False, False]
    assert data.notes == ("1 of 3 anomalous images have no mask",)
    assert data.notes[0] in data.describe()


def test_masks_of_another_suffix_case_and_depth(tmp_path: Path) -> None:
    put(tmp_path, "train/good/a.png", "test/bent/LOT 1/Ä b.JPG", "test/bent/LOT 2/Ä b.JPG")
    put(tmp_path, "ground_truth/bent/LOT 2/Ä b_MASK.PNG")
    (one, two) = read_dataset(tmp_path).test
    assert one.mask is None
    assert two.mask == tmp_path / "ground_truth/bent/LOT 2/Ä b_MASK.PNG"


def test_upper_case_nested_and_hidden(tmp_path: Path) -> None:
    put(tmp_path, "Train/Good/lot1/a.PNG", "Train/Good/lot2/b.Jpg", "Test/GOOD/c.png")
    put(tmp_path, "Train/.hidden/x.png", "Train/Good/.x.png", ".git/y.png", "Train/Good/notes.txt")
    data = read_dataset(tmp_path)
    assert data.layout == "mvtec"
    assert names(data.train, tmp_path) == ["Train/Good/lot1/a.PNG", "Train/Good/lot2/b.Jpg"]
    assert [sample.label for sample in data.test] == [0]


def test_loose_images_in_train(tmp_path: Path) -> None:
    data = read_dataset(put(tmp_path, "train/0.png", "test/good/1.png", "test/bad/2.png"))
    assert [sample.label for sample in data.train] == [0]
    assert [sample.label for sample in data.test] == [1, 0]
    assert read_dataset(tmp_path, normal="good") == data


def test_loose_images_beside_classes_are_refused(tmp_path: Path) -> None:
    put(tmp_path, "train/0.png", "train/good/1.png")
    with pytest.raises(InputError, match=r"1 loose images beside the folders good \(1\); move"):
        read_dataset(tmp_path)


def test_loose_test_images_have_no_label(tmp_path: Path) -> None:
    data = read_dataset(put(tmp_path, "train/good/0.png", "test/1.png"))
    assert [sample.label for sample in data.test] == [-1]
    assert "1 unknown" in data.describe()


def test_test_part_alone(tmp_path: Path) -> None:
    data = read_dataset(put(tmp_path, "test/good/0.png", "test/bent/1.png", "test/dent/1.png"))
    assert data.train == ()
    assert [sample.type for sample in data.test] == ["bent", "dent", None]
    assert "train 0 images" in data.describe()
    with pytest.raises(InputError, match="0 training images"):
        training_samples(tmp_path)


def test_lone_defects_in_test(tmp_path: Path) -> None:
    assert [s.label for s in read_dataset(put(tmp_path, "test/bent/0.png")).test] == [1]


def test_unnamed_test_classes_are_refused(tmp_path: Path) -> None:
    put(tmp_path, "test/cat/0.png", "test/dog/0.png")
    with pytest.raises(InputError, match="several classes"):
        read_dataset(tmp_path)


def test_empty_train_is_never_silent(tmp_path: Path) -> None:
    put(tmp_path, "train/good/readme.txt", "test/good/0.png")
    with pytest.raises(InputError, match=r"train: 0 images, found 1 folder \(good\); expected"):
        read_dataset(tmp_path)


def test_empty_test_is_noted(tmp_path: Path) -> None:
    put(tmp_path, "train/good/0.png", "test/good/readme.txt")
    assert read_dataset(tmp_path).notes == ("test/ holds 0 images",)


def test_only_defects_in_train(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="only bad/, no normal images"):
        read_dataset(put(tmp_path, "train/bad/0.png"))


CLASSES = ("train/cat/0.png", "train/dog/0.png", "train/dog/1.png", "test/cat/0.png", "test/dog/0.png")


def test_imagefolder(tmp_path: Path) -> None:
    data = read_dataset(put(tmp_path, *CLASSES), normal="dog")
    assert data.layout == "imagefolder"
    assert names(data.train, tmp_path) == ["train/dog/0.png", "train/dog/1.png"]
    assert [(sample.label, sample.type) for sample in data.test] == [(1, "cat"), (0, None)]
    assert data.notes == ("train/cat not used (1 images)",)


def test_imagefolder_in_another_case(tmp_path: Path) -> None:
    put(tmp_path, *CLASSES)
    assert read_dataset(tmp_path, normal="DOG") == read_dataset(tmp_path, normal="dog")


def test_several_classes_are_listed(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cat \(1\), dog \(2\); say which one is normal.*--normal cat"):
        read_dataset(put(tmp_path, *CLASSES))


def test_good_beside_another_class_must_be_named(tmp_path: Path) -> None:
    put(tmp_path, "train/bent/0.png", "train/good/0.png")
    with pytest.raises(InputError, match="--normal good"):
        read_dataset(tmp_path)
    assert names(read_dataset(tmp_path, normal="good").train, tmp_path) == ["train/good/0.png"]


def test_unknown_class(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no class 'cow'; found: cat, dog"):
        read_dataset(put(tmp_path, *CLASSES), normal="cow")


def test_one_class_is_the_normal_one(tmp_path: Path) -> None:
    data = read_dataset(put(tmp_path, "train/cat/0.png", "test/cat/0.png", "test/dog/0.png"))
    assert (data.layout, [s.label for s in data.test]) == ("imagefolder", [0, 1])


def test_normal_by_another_good_word_in_test(tmp_path: Path) -> None:
    data = read_dataset(put(tmp_path, "train/normal/0.png", "test/ok/0.png", "test/ng/0.png"))
    assert [sample.label for sample in data.test] == [1, 0]


def test_validation_beside_test_is_left_out(tmp_path: Path) -> None:
    put(tmp_path, "train/ok/0.png", "test/ok/1.png", "val/ok/2.png", "val/bad/3.png")
    data = read_dataset(tmp_path)
    assert names(data.test, tmp_path) == ["test/ok/1.png"]
    assert data.notes == ("val/ not used (2 images)",)


def test_validation_serves_as_test(tmp_path: Path) -> None:
    data = read_dataset(put(tmp_path, "train/ok/0.png", "valid/ok/2.png", "valid/bad/3.png"))
    assert [sample.label for sample in data.test] == [1, 0]
    assert data.notes == ("no test/, valid/ used for it",)


def test_class_folders_without_train(tmp_path: Path) -> None:
    put(tmp_path, "good/0.png", "bent/0.png", "ground_truth/bent/0_mask.png")
    data = read_dataset(tmp_path)
    assert (data.layout, data.split) == ("imagefolder", False)
    assert names(data.train, tmp_path) == ["good/0.png"]
    assert [sample.mask is not None for sample in data.test] == [True]
    assert [sample.label for sample in data.for_evaluation()] == [0, 1]


def test_class_folders_without_train_by_name(tmp_path: Path) -> None:
    put(tmp_path, "cat/0.png", "dog/0.png", "loose.png")
    data = read_dataset(tmp_path, normal="dog")
    assert [sample.type for sample in data.test] == ["cat"]
    assert data.notes == ("1 loose images not used",)
    (tmp_path / "loose.png").unlink()
    with pytest.raises(InputError, match="several classes"):
        read_dataset(tmp_path)


def test_train_and_test_never_overlap(tmp_path: Path) -> None:
    put(tmp_path, "good/0.png", "bent/0.png")
    data = read_dataset(tmp_path)
    assert not {s.path for s in data.train} & {s.path for s in data.test}


@pytest.mark.parametrize("folder", ["", "good/", "parts/", "2024/june/"])
def test_flat(tmp_path: Path, folder: str) -> None:
    put(tmp_path, f"{folder}a b.png", f"{folder}ü.JPG", "notes.txt")
    data = read_dataset(tmp_path)
    assert (data.layout, data.split, len(data.train), data.test) == ("flat", False, 2, ())
    assert {sample.label for sample in data.train} == {0}


def test_flat_with_folders_inside(tmp_path: Path) -> None:
    data = read_dataset(put(tmp_path, "a.png", "lot2/b.png", "ground_truth/c.png", ".trash/d.png"))
    assert names(data.train, tmp_path) == ["a.png", "lot2/b.png"]


def test_flat_beside_defects_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="loose images beside defect/"):
        read_dataset(put(tmp_path, "a.png", "defect/b.png"))


def test_loose_images_beside_good_and_defects_never_train(tmp_path: Path) -> None:
    data = read_dataset(put(tmp_path, "a.png", "good/b.png", "scratch/c.png"))
    assert names(data.train, tmp_path) == ["good/b.png"]


def test_lone_defect_folder_never_trains(tmp_path: Path) -> None:
    data = read_dataset(put(tmp_path, "defects/b.png"))
    assert (data.train, [sample.label for sample in data.test]) == ((), [1])


def test_flat_has_no_class(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no class folder 'good'"):
        read_dataset(put(tmp_path, "a.png"), normal="good")


def test_category_parent_is_listed(tmp_path: Path) -> None:
    put(tmp_path, "bottle/train/good/0.png", "screw/train/good/0.png", "readme.txt")
    with pytest.raises(InputError, match=r"holds 2 datasets \(bottle, screw\); name one.*bottle"):
        read_dataset(tmp_path)


def test_lone_category_is_entered(tmp_path: Path) -> None:
    put(tmp_path, "bottle/train/good/0.png", "readme.txt")
    assert read_dataset(tmp_path).root == tmp_path / "bottle"


@pytest.mark.parametrize(
    ("places", "found"),
    [
        ((), "found nothing"),
        (("a.txt", "b.txt", "c.json"), r"found 3 files \(2 .txt, 1 .json\)"),
        (("sub/a.txt",), r"found 1 folder \(sub\)"),
    ],
)
def test_nothing_to_use_says_what_is_there(tmp_path: Path, places: tuple[str, ...], found: str) -> None:
    with pytest.raises(InputError, match=f"0 images, {found}; expected train/good") as error:
        read_dataset(put(tmp_path, *places))
    assert "\n" not in str(error.value)
    assert str(tmp_path) in str(error.value)


def test_missing_and_wrong_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file or folder"):
        read_dataset(tmp_path / "nowhere")
    with pytest.raises(InputError, match="found one .png file"):
        read_dataset(put(tmp_path, "a.png") / "a.png")


def test_training_samples(tmp_path: Path) -> None:
    put(tmp_path, *MVTEC)
    data = read_dataset(tmp_path)
    assert training_samples(tmp_path) == training_samples(data) == list(data.train)
    assert training_samples(data.test) == list(data.test)
    for unknown in (tmp_path / "train/good/0.png", [tmp_path], np.zeros((1, 4, 4)), []):
        assert training_samples(unknown) is None
