"""Sets of defects in their providers' layouts: MVTec AD and its relatives, BTAD, VisA, KolektorSDD2, magnetic tiles."""

from __future__ import annotations

import json
import zipfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anomem.data.catalog import CATALOG, OfficialSet, open_set
from anomem.data.official.inside import read_mask
from anomem.data.samples import Sample
from anomem.errors import InputError

VISA_CSV = """object,split,label,image,mask
candle,train,normal,candle/Data/Images/Normal/0.JPG,
candle,test,normal,candle/Data/Images/Normal/1.JPG,
candle,test,anomaly,candle/Data/Images/Anomaly/0.JPG,candle/Data/Masks/Anomaly/0.png
pcb1,train,normal,pcb1/Data/Images/Normal/0.JPG,
"""
VISA_FEWSHOT = """object,split,label,image,mask
candle,train,normal,candle/Data/Images/Normal/0.JPG,
candle,train,anomaly,candle/Data/Images/Anomaly/0.JPG,candle/Data/Masks/Anomaly/0.png
candle,test,normal,candle/Data/Images/Normal/1.JPG,
candle,test,anomaly,candle/Data/Images/Anomaly/1.JPG,candle/Data/Masks/Anomaly/1.png
"""
LOCO_CONFIG = json.dumps(
    [
        {"defect_name": "a", "pixel_value": 255, "saturation_threshold": 40, "relative_saturation": False},
        {"defect_name": "b", "pixel_value": 254, "saturation_threshold": 1.0, "relative_saturation": True},
    ]
)


@dataclass(frozen=True)
class Case:
    """A replica of one official tree and what must come out of it.

    Images are noise, masks (names with ``mask``, ``GT``, ``gt``, ``ground_truth`` or ``Masks``) have a white square,
    those ending in ``empty`` are black; other files hold the given text.
    """

    name: str
    files: tuple[str, ...]
    train: int
    test: dict[str, int]
    missing: str
    category: str | None = None
    variant: str | None = None
    masks: int = 0
    validation: int = 0
    spare: int = 0
    texts: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        return f"{self.name}-{self.variant or len(self.files)}"


AD = ("bottle/train/good/000.png", "bottle/train/good/001.png", "bottle/test/good/000.png")
AD += ("bottle/test/broken/000.png", "bottle/ground_truth/broken/000_mask.png", "bottle/license.txt")
AD2 = ("can/train/good/000_regular.png", "can/validation/good/000_regular.png", "can/test_public/good/000_regular.png")
AD2 += ("can/test_public/bad/000_shift_1.png", "can/test_public/ground_truth/bad/000_shift_1_mask.png")
AD2 += ("can/test_private/000_regular.png", "can/test_private/001_regular.png", "can/test_private_mixed/000_mixed.png")
LOCO = ("pushpins/train/good/000.png", "pushpins/validation/good/000.png", "pushpins/test/good/000.png")
LOCO += ("pushpins/test/logical_anomalies/000.png", "pushpins/test/structural_anomalies/000.png")
LOCO += ("pushpins/ground_truth/logical_anomalies/000/000.png", "pushpins/ground_truth/logical_anomalies/000/001.png")
LOCO += ("pushpins/ground_truth/structural_anomalies/000/000.png",)
THREE_D = ("bagel/train/good/rgb/000.png", "bagel/validation/good/rgb/000.png", "bagel/test/good/rgb/000.png")
THREE_D += ("bagel/test/good/gt/000_empty.png", "bagel/test/hole/rgb/000.png", "bagel/test/hole/gt/000.png")
THREE_D += ("bagel/test/hole/xyz/000.tiff", "bagel/calibration/camera_parameters.json")
BTAD = ("01/train/ok/0000.bmp", "01/test/ok/0000.bmp", "01/test/ko/0001.bmp", "01/ground_truth/ko/0001.png")
VISA = ("Data/Images/Normal/0.JPG", "Data/Images/Normal/1.JPG", "Data/Images/Anomaly/0.JPG", "Data/Masks/Anomaly/0.png")
VISA_MVTEC = ("candle/train/good/0.JPG", "candle/test/good/1.JPG", "candle/test/bad/000.JPG")
VISA_MVTEC += ("candle/ground_truth/bad/000.png",)
KSDD2 = ("train/10000.png", "train/10000_GT_empty.png", "train/10001.png", "train/10001_GT.png")
KSDD2 += ("train/10001 (copy).png", "test/20000.png", "test/20000_GT_empty.png", "test/20001.png", "test/20001_GT.png")
TILES = tuple(f"MT_{kind}/Imgs/exp1_0.jpg" for kind in ("Free", "Blowhole", "Break", "Crack", "Fray", "Uneven"))
TILES += tuple(f"{name.removesuffix('.jpg')}.png" for name in TILES)
VISA_TEXT = ("split_csv/1cls.csv", VISA_CSV)
FEW_TEXT = ("split_csv/2cls_fewshot.csv", VISA_FEWSHOT)

CASES = (
    Case("mvtec_ad", AD, 2, {"good": 1, "broken": 1}, "bottle/train/good", "bottle", masks=1),
    Case("mvtec_ad_2", AD2, 1, {"good": 1, "bad": 1}, "can/validation/good", "can", "public", masks=1, validation=1),
    Case("mvtec_ad_2", AD2, 1, {"": 2}, "can/test_private", "can", "private", validation=1),
    Case("mvtec_ad_2", AD2, 1, {"": 1}, "can/test_private_mixed", "can", "private_mixed", validation=1),
    Case(
        "mvtec_loco",
        LOCO,
        1,
        {"good": 1, "logical_anomalies": 1, "structural_anomalies": 1},
        "pushpins/ground_truth/structural_anomalies/000",
        "pushpins",
        masks=2,
        validation=1,
        texts=(("pushpins/defects_config.json", LOCO_CONFIG),),
    ),
    Case("mvtec_3d", THREE_D, 1, {"good": 1, "hole": 1}, "bagel/test/hole/gt/000.png", "bagel", masks=1, validation=1),
    Case("btad", BTAD, 1, {"ok": 1, "ko": 1}, "01/ground_truth/ko/0001.png", "01", masks=1),
    Case(
        "visa",
        tuple(f"candle/{file}" for file in VISA),
        1,
        {"good": 1, "bad": 1},
        "candle/Data/Masks/Anomaly/0.png",
        "candle",
        "1cls",
        masks=1,
        texts=(VISA_TEXT,),
    ),
    Case(
        "visa",
        tuple(f"candle/{file}" for file in (*VISA, "Data/Images/Anomaly/1.JPG", "Data/Masks/Anomaly/1.png")),
        1,
        {"good": 1, "bad": 1},
        "split_csv/2cls_fewshot.csv",
        "candle",
        "2cls_fewshot",
        masks=1,
        spare=1,
        texts=(VISA_TEXT, FEW_TEXT),
    ),
    Case("visa", VISA_MVTEC, 1, {"good": 1, "bad": 1}, "candle/train", "candle", masks=1),
    Case("ksdd2", KSDD2, 1, {"good": 1, "bad": 1}, "test/20001_GT.png", masks=1, spare=1),
    Case(
        "magnetic_tile",
        TILES,
        1,
        dict.fromkeys(("blowhole", "break", "crack", "fray", "uneven"), 1),
        "MT_Crack/Imgs/exp1_0.png",
        masks=5,
    ),
)


def is_mask(place: str) -> bool:
    beside_tile = place.startswith("MT_") and place.endswith(".png")
    return beside_tile or any(sign in place for sign in ("ground_truth", "_GT", "/gt/", "Masks"))


def build(root: Path, case: Case) -> Path:
    rng = np.random.default_rng(0)
    for place in case.files:
        path = root / place.replace("_empty", "")
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix in {".txt", ".json"}:
            path.write_text("{}")
            continue
        pixels = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        if is_mask(place):
            pixels = np.zeros((6, 8), np.uint8)
            # Parts of one defect lie apart, and tell their kind by their grey.
            corner = 3 if place.endswith("/001.png") else 0
            pixels[corner : corner + 2, :2] = 0 if "_empty" in place else 254
        Image.fromarray(pixels).save(path)
    for place, text in case.texts:
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        (root / place).write_text(text)
    return root


def opened(root: Path, case: Case) -> OfficialSet:
    return open_set(case.name, root, category=case.category, variant=case.variant)


def zipped(folder: Path, target: Path) -> Path:
    with zipfile.ZipFile(target, "w") as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.write(path, path.relative_to(folder))
    return target


def kinds(data: OfficialSet, samples: tuple[Sample, ...]) -> dict[str, int]:
    return dict(Counter(data.class_of(sample) for sample in samples))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_official_tree(tmp_path: Path, case: Case) -> None:
    data = opened(build(tmp_path, case), case)
    normal = CATALOG[case.name].normal[0]
    assert (len(data.train), len(data.validation), len(data.spare)) == (case.train, case.validation, case.spare)
    assert kinds(data, data.test) == case.test
    assert {sample.label for sample in (*data.train, *data.validation)} == {0}
    assert {sample.label for sample in data.spare} <= {1}
    for sample in data.test:
        kind = data.class_of(sample)
        assert sample.label == (-1 if kind == "" else kind != normal)
        assert sample.type == (kind if sample.label == 1 else None)
    assert sum(sample.mask is not None for sample in data.test) == case.masks
    assert data.classes[0] == normal
    for sample in (*data.test, *data.spare):
        if sample.label == 1 and sample.mask is not None:
            assert read_mask(sample.mask)[:2, :2].all()
            assert not read_mask(sample.mask).all()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_zip_reads_as_its_folder(tmp_path: Path, case: Case) -> None:
    folder = opened(build(tmp_path / "copy", case), case)
    archive = opened(zipped(tmp_path / "copy", tmp_path / "set.zip"), case)
    assert archive.counts() == folder.counts()
    assert archive.notes == folder.notes
    for part in ("train", "validation", "spare", "test"):
        ours, theirs = getattr(archive, part), getattr(folder, part)
        packed, loose = archive.source(ours), folder.source(theirs)
        assert [packed.digest(i) for i in range(len(packed))] == [loose.digest(i) for i in range(len(loose))]
        for one, other in zip(ours, theirs, strict=True):
            assert (one.label, one.type) == (other.label, other.type)
            if one.mask and other.mask:
                assert np.array_equal(read_mask(one.mask), read_mask(other.mask))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_what_is_missing_is_named(tmp_path: Path, case: Case) -> None:
    root = build(tmp_path, case)
    target = root / case.missing
    for path in sorted([*target.rglob("*"), target], reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    with pytest.raises(InputError) as error:
        opened(root, case)
    line = str(error.value)
    assert str(target.with_suffix("")).removesuffix("_mask") in line
    assert "absent" in line or "0 images" in line
    assert CATALOG[case.name].source in line
    assert "\n" not in line


def test_loco_masks_are_unions(tmp_path: Path) -> None:
    case = next(case for case in CASES if case.name == "mvtec_loco")
    data = opened(build(tmp_path, case), case)
    logical = next(sample for sample in data.test if sample.type == "logical_anomalies")
    expected = np.zeros((6, 8), bool)
    expected[:2, :2] = expected[3:5, :2] = True
    assert np.array_equal(read_mask(logical.mask), expected)
    assert read_mask(logical.mask, (12, 16)).sum() == 4 * expected.sum()
    assert "saturation thresholds of 2 kinds of defects, 1 in pixels" in data.describe()


def test_masks_of_one_defect_must_agree_in_size(tmp_path: Path) -> None:
    case = next(case for case in CASES if case.name == "mvtec_loco")
    root = build(tmp_path, case)
    Image.fromarray(np.zeros((3, 3), np.uint8)).save(root / "pushpins/ground_truth/logical_anomalies/000/001.png")
    (logical,) = (sample for sample in opened(root, case).test if sample.type == "logical_anomalies")
    with pytest.raises(InputError, match="differ in size"):
        read_mask(logical.mask)


def test_damaged_loco_config(tmp_path: Path) -> None:
    case = next(case for case in CASES if case.name == "mvtec_loco")
    root = build(tmp_path, case)
    (root / "pushpins/defects_config.json").write_text("[{}]")
    with pytest.raises(InputError, match="defects_config.json: damaged"):
        opened(root, case)


def test_a_copy_without_any_masks_is_read_and_says_so(tmp_path: Path) -> None:
    case = CASES[0]
    build(tmp_path, Case(**{**vars(case), "files": tuple(file for file in AD if "ground_truth" not in file)}))
    data = opened(tmp_path, case)
    assert all(sample.mask is None for sample in data.test)
    assert "no masks in this copy: ground_truth/ is absent" in data.describe()


def test_a_mask_without_its_image_is_a_partial_copy(tmp_path: Path) -> None:
    case = CASES[0]
    root = build(tmp_path, Case(**{**vars(case), "files": (*AD, "bottle/ground_truth/broken/007_mask.png")}))
    with pytest.raises(InputError, match=r"007_mask\.png: a mask whose image is absent"):
        opened(root, case)


def test_the_category_folder_itself_is_a_copy(tmp_path: Path) -> None:
    root = build(tmp_path, CASES[0])
    by_folder, by_set = open_set("mvtec_ad", root / "bottle"), open_set("mvtec_ad", root, category="bottle")
    assert by_folder.test == by_set.test
    assert open_set("mvtec_ad", root).test == by_set.test  # it is the only one there
    with pytest.raises(InputError, match=r"screw: absent; found ground_truth/, test/, train/"):
        open_set("mvtec_ad", root / "bottle", category="screw")


def test_other_sets_beside_it_are_no_categories(tmp_path: Path) -> None:
    root = build(tmp_path, CASES[0])
    (root / "mnist/train/3").mkdir(parents=True)
    assert len(open_set("mvtec_ad", root).train) == 2


def test_several_categories_need_a_name(tmp_path: Path) -> None:
    root = build(tmp_path, CASES[0])
    (root / "bottle").rename(root / "zipper")
    build(root, CASES[0])
    with pytest.raises(InputError, match=r"holds 2 categories \(bottle, zipper\); name one"):
        open_set("mvtec_ad", root)
    with pytest.raises(InputError, match=r"screw: absent; found bottle/, zipper/.*mvtec\.com"):
        open_set("mvtec_ad", root, category="screw")


def test_visa_as_published_needs_its_split_and_a_category(tmp_path: Path) -> None:
    case = next(case for case in CASES if case.variant == "1cls")
    root = build(tmp_path, case)
    with pytest.raises(InputError, match=r"holds 2 categories \(candle, pcb1\)"):
        open_set("visa", root)
    with pytest.raises(InputError, match=r"1cls\.csv: lists no fryum"):
        open_set("visa", root, category="fryum")
    with pytest.raises(InputError, match=r"pcb1: absent"):
        open_set("visa", root, category="pcb1")
    (root / "split_csv/1cls.csv").unlink()
    (root / "split_csv").rmdir()
    with pytest.raises(InputError, match=r"split_csv/1cls\.csv: absent"):
        open_set("visa", root, category="candle")


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("train,normal", "dev,normal", r"1cls\.csv:2: split 'dev'"),
        ("test,anomaly", "test,odd", r"1cls\.csv:4: label 'odd'"),
        ("object,split", "thing,split", r"1cls\.csv: no column 'object' \(found: thing, split"),
        ("candle,train,normal,candle/Data/Images/Normal/0.JPG,", "candle,train", r"1cls\.csv:2: 2 cells under 5"),
    ],
)
def test_visa_table_is_checked(tmp_path: Path, old: str, new: str, line: str) -> None:
    case = next(case for case in CASES if case.variant == "1cls")
    root = build(tmp_path, case)
    (root / "split_csv/1cls.csv").write_text(VISA_CSV.replace(old, new, 1))
    with pytest.raises(InputError, match=line):
        open_set("visa", root, category="candle")


def test_ksdd2_says_what_it_left_out(tmp_path: Path) -> None:
    case = next(case for case in CASES if case.name == "ksdd2")
    data = opened(build(tmp_path, case), case)
    assert "1 stray copies left out" in data.describe()
    assert {sample.type for sample in data.spare} == {"bad"}
    assert len(data.with_spare().train) == 2
