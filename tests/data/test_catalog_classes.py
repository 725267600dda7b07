"""Sets of classes as folders and lists: digits and photographs, birds, spacecraft, retinas, faces, frames."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anomem.data.catalog import CATALOG, OfficialSet, open_set
from anomem.data.official.inside import read_mask
from anomem.data.samples import Sample
from anomem.errors import InputError


def put(root: Path, *places: str) -> Path:
    rng = np.random.default_rng(1)
    for place in places:
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).save(root / place)
    return root


def kinds(data: OfficialSet, samples: tuple[Sample, ...]) -> dict[str, int]:
    return dict(Counter(data.class_of(sample) for sample in samples))


def missing(name: str, root: Path, what: str, **options: str) -> None:
    """Opening must fail in one line that names what is absent and where to ask."""
    with pytest.raises(InputError) as error:
        open_set(name, root, **options)  # type: ignore[arg-type]
    line = str(error.value)
    assert what in line
    assert CATALOG[name].source in line
    assert "\n" not in line


# --- class folders ----------------------------------------------------------------------------

CIFAR_FOLDERS = ("train/cat/0.png", "train/cat/1.png", "train/dog/0.png", "test/cat/0.png", "test/dog/0.png")


def test_cifar10_as_class_folders(tmp_path: Path) -> None:
    data = open_set("cifar10", put(tmp_path, *CIFAR_FOLDERS))
    assert data.classes == ("cat", "dog")
    assert {sample.label for sample in (*data.train, *data.test)} == {-1}
    assert kinds(data, data.train) == {"cat": 2, "dog": 1}
    cats = open_set("cifar10", tmp_path, normal="cat")
    assert cats.train == tuple(Sample(tmp_path / f"train/cat/{i}.png", 0) for i in range(2))
    assert cats.spare == (Sample(tmp_path / "train/dog/0.png", 1, None, "dog"),)
    assert [(sample.label, sample.type) for sample in cats.test] == [(0, None), (1, "dog")]
    assert data.one_vs_rest("cat") == cats
    assert cats.one_vs_rest("dog").one_vs_rest("cat") == cats


def test_several_classes_may_be_normal(tmp_path: Path) -> None:
    data = open_set(
        "cifar10", put(tmp_path, *CIFAR_FOLDERS, "train/car/0.png", "test/car/0.png"), normal=["cat", "dog"]
    )
    assert len(data.train) == 3
    assert kinds(data, data.spare) == {"car": 1}


def test_class_that_is_not_there(tmp_path: Path) -> None:
    put(tmp_path, *CIFAR_FOLDERS)
    with pytest.raises(InputError, match="no class 'cow'; the classes are cat, dog"):
        open_set("cifar10", tmp_path, normal="cow")


def test_cifar100_in_coarse_classes(tmp_path: Path) -> None:
    places = ("train/bee/0.png", "train/beetle/0.png", "train/lion/0.png", "test/bee/0.png", "test/beetle/0.png")
    put(tmp_path, *places, "test/lion/0.png")
    assert open_set("cifar100", tmp_path).classes == ("bee", "beetle", "lion")
    coarse = open_set("cifar100", tmp_path, variant="coarse", normal="insects")
    assert coarse.classes == ("insects", "large_carnivores")
    assert (len(coarse.train), len(coarse.spare), len(coarse.test)) == (2, 1, 3)


@pytest.mark.parametrize("name", ["cifar10", "mnist"])
def test_missing_test_folder(tmp_path: Path, name: str) -> None:
    missing(name, put(tmp_path, "train/3/0.png"), f"{tmp_path / 'test'}: absent")


def test_missing_class_in_test(tmp_path: Path) -> None:
    missing("mnist", put(tmp_path, "train/3/0.png", "train/4/0.png", "test/3/0.png"), f"{tmp_path / 'test/4'}: absent")


def test_pneumonia_as_class_folders(tmp_path: Path) -> None:
    places = [f"{part}/{kind}/0.png" for part in ("train", "val", "test") for kind in ("normal", "pneumonia")]
    data = open_set("pneumonia_mnist", put(tmp_path, *places))
    assert [len(part) for part in (data.train, data.spare, data.validation, data.test)] == [1, 1, 2, 2]
    assert [sample.label for sample in data.validation] == [0, 1]


KERMANY = tuple(
    f"OCT2017/{part}/{kind}/{kind}-{patient}-1.jpeg"
    for part, patient in (("train", 77), ("val", 78), ("test", 79))
    for kind in ("CNV", "DME", "DRUSEN", "NORMAL")
)


def test_kermany(tmp_path: Path) -> None:
    data = open_set("kermany", put(tmp_path, *KERMANY))
    assert data.root == tmp_path / "OCT2017"
    assert [len(part) for part in (data.train, data.spare, data.validation, data.test)] == [1, 3, 4, 4]
    assert kinds(data, data.test) == dict.fromkeys(("CNV", "DME", "DRUSEN", "NORMAL"), 1)
    assert {sample.group for sample in data.test} == {"79"}


def test_kermany_missing_class(tmp_path: Path) -> None:
    put(tmp_path, *(place for place in KERMANY if "test/DRUSEN" not in place))
    missing("kermany", tmp_path, str(tmp_path / "OCT2017/test/DRUSEN"))


@pytest.mark.parametrize("names", [("NORMAL", "AMRD", "CSR", "DR", "MH"), ("ANormal", "ARMD", "CSR", "DR", "MH")])
def test_octid(tmp_path: Path, names: tuple[str, ...]) -> None:
    data = open_set("octid", put(tmp_path, *(f"{name}/{i}.jpeg" for name in names for i in range(2))))
    assert data.split is False
    assert (len(data.train), len(data.test), data.spare) == (2, 8, ())
    assert kinds(data, data.test) == dict.fromkeys(("AMRD", "CSR", "DR", "MH"), 2)
    assert len(data.for_evaluation()) == 10


def test_octid_missing_class(tmp_path: Path) -> None:
    put(tmp_path, *(f"{name}/0.jpeg" for name in ("NORMAL", "AMRD", "CSR", "MH")))
    missing("octid", tmp_path, f"{tmp_path / 'DR'}: absent (nor Diabetic_retinopathy)")


def test_lsun_exported(tmp_path: Path) -> None:
    data = open_set(
        "lsun",
        put(tmp_path, "tower_train/0/a/0.webp", "tower_val/1.jpg", "bedroom_val/b/2.webp"),
    )
    assert data.classes == ("bedroom", "tower")
    assert kinds(data, data.test) == {"bedroom": 1, "tower": 1}
    assert kinds(data, data.train) == {"tower": 1}
    assert "absent: bedroom_train" in data.describe()


def test_lsun_databases_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "bedroom_val_lmdb").mkdir()
    (tmp_path / "bedroom_val_lmdb/data.mdb").write_bytes(b"")
    missing("lsun", tmp_path, "needs the package lmdb): data.py export bedroom_val_lmdb --out_dir bedroom_val")


def test_lsun_missing(tmp_path: Path) -> None:
    missing("lsun", tmp_path, f"{tmp_path / 'bedroom_train'}: absent (nor bedroom_val); the folder is empty")


# --- lists ------------------------------------------------------------------------------------


def build_cub(root: Path) -> Path:
    names = [f"001.Albatross/A_{i}.jpg" for i in range(3)] + ["002.Auk/B_0.jpg"]
    put(root, *(f"images/{name}" for name in names))
    (root / "classes.txt").write_text("1 001.Albatross\n2 002.Auk\n")
    (root / "images.txt").write_text("".join(f"{i} {name}\n" for i, name in enumerate(names, start=1)))
    (root / "image_class_labels.txt").write_text("1 1\n2 1\n3 1\n4 2\n")
    (root / "train_test_split.txt").write_text("1 1\n2 1\n3 0\n4 0\n")
    return root


def test_cub(tmp_path: Path) -> None:
    build_cub(tmp_path / "CUB_200_2011")
    data = open_set("cub200", tmp_path, normal="001.Albatross")
    assert data.classes == ("001.Albatross", "002.Auk")
    assert [sample.path.name for sample in data.train] == ["A_0.jpg", "A_1.jpg"]
    assert [(sample.path.name, sample.label) for sample in data.test] == [("A_2.jpg", 0), ("B_0.jpg", 1)]
    with pytest.raises(InputError, match="0 training images of 002.Auk"):
        data.one_vs_rest("002.Auk")


@pytest.mark.parametrize("file", ["images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt"])
def test_cub_missing_list(tmp_path: Path, file: str) -> None:
    (build_cub(tmp_path) / file).unlink()
    missing("cub200", tmp_path, f"{tmp_path / file}: absent")


def test_cub_missing_image_and_short_list(tmp_path: Path) -> None:
    (build_cub(tmp_path) / "images/002.Auk/B_0.jpg").unlink()
    missing("cub200", tmp_path, "B_0.jpg: absent")
    build_cub(tmp_path)
    (tmp_path / "train_test_split.txt").write_text("1 1\n")
    with pytest.raises(InputError, match="image 2 is not in all four lists"):
        open_set("cub200", tmp_path)


SPARK_2021 = {
    "train_labels.csv": 'filename,class,bbox\na.png,Aura,"[1, 2, 5, 7]"\nb.png,Debris,"[0, 0, 2, 2]"\n',
    "validate_labels.csv": 'filename,class,bbox\nc.png,Aura,"[0, 0, 6, 8]"\nd.png,Debris,"[3, 3, 6, 5]"\n',
}
SPARK_IMAGES = (
    "train_rgb/Aura/a.png",
    "train_rgb/Debris/b.png",
    "validate_rgb/Aura/c.png",
    "validate_rgb/Debris/d.png",
)


def build_spark(root: Path) -> Path:
    put(root, *SPARK_IMAGES)
    for name, text in SPARK_2021.items():
        (root / name).write_text(text)
    return root


def test_spark(tmp_path: Path) -> None:
    data = open_set("spark", build_spark(tmp_path))
    assert [sample.path.name for sample in data.train] == ["a.png"]
    assert [(sample.label, sample.type) for sample in data.test] == [(0, None), (1, "Debris")]
    assert kinds(data, data.spare) == {"Debris": 1}


def test_spark_cropped_to_its_boxes(tmp_path: Path) -> None:
    whole, cropped = (open_set("spark", build_spark(tmp_path), variant=variant) for variant in ("full", "cropped"))
    image = whole.source(whole.train).load(0)
    assert np.array_equal(cropped.source(cropped.train).load(0), image[1:5, 2:7])
    assert kinds(cropped, cropped.test) == kinds(whole, whole.test)


def test_spark_of_2022_lies_flat(tmp_path: Path) -> None:
    put(tmp_path, "train/a.jpg", "val/b.jpg")
    for part, image in (("train", "a.jpg"), ("val", "b.jpg")):
        (tmp_path / f"{part}.csv").write_text(f'Image name,Class,Bounding box\n{image},proba_2,"[0, 0, 3, 3]"\n')
    assert open_set("spark", tmp_path).classes == ("proba_2",)


def test_spark_missing(tmp_path: Path) -> None:
    (build_spark(tmp_path) / "validate_rgb/Debris/d.png").unlink()
    missing(
        "spark", tmp_path, f"{tmp_path / 'validate_rgb/Debris/d.png'}: absent ({tmp_path / 'validate_labels.csv'}:3)"
    )
    (tmp_path / "validate_labels.csv").unlink()
    missing("spark", tmp_path, "validate_labels.csv: absent")


def test_spark_box_is_checked(tmp_path: Path) -> None:
    (build_spark(tmp_path) / "train_labels.csv").write_text("filename,class,bbox\na.png,Aura,[1 2]\n")
    with pytest.raises(InputError, match=r"train_labels\.csv:2: box '\[1 2\]'"):
        open_set("spark", tmp_path, variant="cropped")


RECORDINGS = {
    "bonafide": ("100_01_000_0_00", "101_01_000_0_00", "102_01_000_0_00"),
    "prints": ("100_02_000_2_01", "102_02_000_2_01"),
    "flexiblemask": ("101_03_015_2_10",),
}
GRANDTEST = """face-station/12.02.18/100_01_000_0_00,0,100,train
face-station/12.02.18/100_02_000_2_01,2,100,train
face-station/12.02.18/101_01_000_0_00,0,101,dev
face-station/12.02.18/101_03_015_2_10,2,101,dev
face-station/13.02.18/102_01_000_0_00,0,102,eval
face-station/13.02.18/102_02_000_2_01,2,102,eval
"""
LOO_PRINTS = """path,label,client,group
face-station/12.02.18/100_01_000_0_00,0,100,train
face-station/12.02.18/101_03_015_2_10,2,101,train
face-station/13.02.18/102_01_000_0_00,0,102,eval
face-station/13.02.18/102_02_000_2_01,2,102,eval
"""


def build_wmca(root: Path) -> Path:
    for kind, recordings in RECORDINGS.items():
        put(root, *(f"frames/{kind}/{recording}/{i:04d}.png" for recording in recordings for i in range(2)))
    (root / "wmca-protocols-csv").mkdir(exist_ok=True)
    (root / "wmca-protocols-csv/PROTOCOL-grandtest.csv").write_text(GRANDTEST)
    (root / "wmca-protocols-csv/PROTOCOL-LOO_prints.csv").write_text(LOO_PRINTS)
    return root


def test_wmca(tmp_path: Path) -> None:
    data = open_set("wmca", build_wmca(tmp_path))
    assert kinds(data, data.train) == {"bonafide": 2}
    assert kinds(data, data.spare) == {"prints": 2}
    assert kinds(data, data.validation) == {"bonafide": 2, "flexiblemask": 2}
    assert kinds(data, data.test) == {"bonafide": 2, "prints": 2}
    assert {sample.group for sample in data.test} == {"102"}


def test_wmca_unseen_attack(tmp_path: Path) -> None:
    data = open_set("wmca", build_wmca(tmp_path), variant="LOO_prints")
    assert kinds(data, data.with_spare().train) == {"bonafide": 2, "flexiblemask": 2}
    assert kinds(data, data.test) == {"bonafide": 2, "prints": 2}


def test_wmca_missing(tmp_path: Path) -> None:
    build_wmca(tmp_path)
    missing("wmca", tmp_path, "PROTOCOL-LOO_replay.csv: absent", variant="LOO_replay")
    for path in (tmp_path / "frames/prints/102_02_000_2_01").iterdir():
        path.unlink()
    missing("wmca", tmp_path, f"{tmp_path / 'frames/prints/102_02_000_2_01'}: 0 images")
    (tmp_path / "frames/prints/102_02_000_2_01").rmdir()
    missing("wmca", tmp_path, f"frames/<type>/102_02_000_2_01: absent ({tmp_path}")
    (tmp_path / "frames").rename(tmp_path / "face-station")
    missing("wmca", tmp_path, "does not read the HDF5 recordings; export their colour frames to frames/<type>")


def test_wmca_protocol_is_checked(tmp_path: Path) -> None:
    file = build_wmca(tmp_path) / "wmca-protocols-csv/PROTOCOL-grandtest.csv"
    file.write_text(GRANDTEST.replace("101,dev", "101,devel", 1))
    with pytest.raises(InputError, match=r"grandtest\.csv:3: ends with 'devel'"):
        open_set("wmca", tmp_path)
    file.write_text("path,label,client,group\n")
    missing("wmca", tmp_path, "lists no recording")


# --- frames -----------------------------------------------------------------------------------


def build_shanghaitech(root: Path) -> Path:
    put(root, *(f"training/frames/01_001/{i:03d}.jpg" for i in range(7)), "training/frames/02_001/000.jpg")
    put(root, *(f"testing/frames/01_0014/{i:03d}.jpg" for i in range(6)), "testing/frames/02_0128/000.jpg")
    for folder in ("test_frame_mask", "test_pixel_mask"):
        (root / "testing" / folder).mkdir()
    flags, pixels = np.array([0, 0, 0, 0, 1, 1], np.int8), np.zeros((6, 6, 8), np.uint8)
    pixels[4:, 1:3, 2:4] = 1
    np.save(root / "testing/test_frame_mask/01_0014.npy", flags)
    np.save(root / "testing/test_pixel_mask/01_0014.npy", pixels)
    np.save(root / "testing/test_frame_mask/02_0128.npy", np.zeros(1, np.int8))
    return root


def test_shanghaitech(tmp_path: Path) -> None:
    data = open_set("shanghaitech", build_shanghaitech(tmp_path))
    assert (len(data.train), kinds(data, data.test)) == (8, {"normal": 5, "anomalous": 2})
    assert {sample.group for sample in data.train} == {"01_001", "02_001"}
    masks = [sample.mask for sample in data.test if sample.label == 1]
    expected = np.zeros((6, 8), bool)
    expected[1:3, 2:4] = True
    for mask in masks:
        assert np.array_equal(read_mask(mask), expected)


def test_shanghaitech_scene_and_every_fifth_frame(tmp_path: Path) -> None:
    data = open_set("shanghaitech", build_shanghaitech(tmp_path), category="01", variant="every_fifth")
    assert [sample.path.name for sample in data.train] == ["000.jpg", "005.jpg"]
    assert [(sample.path.name, sample.label) for sample in data.test] == [("000.jpg", 0), ("005.jpg", 1)]
    assert data.test[1].mask == tmp_path / "testing/test_pixel_mask/01_0014.npy/00005.pgm"


def test_frames_count_beyond_999(tmp_path: Path) -> None:
    root = build_shanghaitech(tmp_path)
    put(root, "training/frames/02_001/1000.jpg", "training/frames/02_001/999.jpg")
    data = open_set("shanghaitech", root, category="02")
    assert [sample.path.name for sample in data.train] == ["000.jpg", "999.jpg", "1000.jpg"]


@pytest.mark.parametrize(
    "place", ["testing/test_frame_mask/02_0128.npy", "testing/test_pixel_mask/01_0014.npy", "training/frames"]
)
def test_shanghaitech_missing(tmp_path: Path, place: str) -> None:
    target = build_shanghaitech(tmp_path) / place
    target.rename(tmp_path / "elsewhere")
    missing("shanghaitech", tmp_path, f"{target}: absent")


def test_shanghaitech_videos_must_be_extracted(tmp_path: Path) -> None:
    (build_shanghaitech(tmp_path) / "training/frames").rename(tmp_path / "training/videos")
    missing("shanghaitech", tmp_path, "does not read videos; extract each of training/videos")


def test_shanghaitech_partial_video(tmp_path: Path) -> None:
    (build_shanghaitech(tmp_path) / "testing/frames/01_0014/003.jpg").unlink()
    with pytest.raises(InputError, match=r"01_0014\.npy: 6 entries for 5 frames"):
        open_set("shanghaitech", tmp_path)


def test_shanghaitech_masks_are_never_unpickled(tmp_path: Path) -> None:
    objects = np.empty(1, object)
    np.save(build_shanghaitech(tmp_path) / "testing/test_frame_mask/02_0128.npy", objects, allow_pickle=True)
    with pytest.raises(InputError, match=r"02_0128\.npy: damaged"):
        open_set("shanghaitech", tmp_path)
