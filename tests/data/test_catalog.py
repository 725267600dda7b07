"""Catalogue: names, places of copies, errors, and fits to its sets."""

from __future__ import annotations

import re
import zipfile
from dataclasses import fields
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anomem.data.catalog import CATALOG, Catalogued, known, open_set
from anomem.data.official.mvtec import LAYOUTS
from anomem.data.sources import PathSource, read_dataset
from anomem.detectors.baselines.knn import KNN
from anomem.errors import InputError
from anomem.evaluation.evaluate import evaluate
from anomem.runtime.images import write_png

PAGE = Path(__file__).parents[2] / "docs" / "data.md"
CIFAR_FOLDERS = ("train/cat/0.png", "train/dog/0.png", "test/cat/0.png", "test/dog/0.png")


def put(root: Path, *places: str) -> Path:
    rng = np.random.default_rng(2)
    for place in places:
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(root / place)
    return root


def zipped(folder: Path, target: Path) -> Path:
    with zipfile.ZipFile(target, "w") as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.write(path, path.relative_to(folder))
    return target


# --- the table --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CATALOG)
def test_entry_is_complete(name: str) -> None:
    info = CATALOG[name]
    module, _, function = info.reader.partition(":")
    assert callable(getattr(import_module(f"anomem.data.official.{module}"), function))
    assert info.source.startswith("http")
    assert re.fullmatch(r"[a-z0-9_]+", name)
    assert info.folders[0] == name
    assert set(info.roles) <= set(info.categories)
    assert not (info.normal and info.anomalous)
    for text in (info.title, info.licence, *info.tasks):
        assert text.strip() == text != ""


def test_layouts_cover_what_the_table_promises() -> None:
    wanted = {(n, v) for n, info in CATALOG.items() if info.reader == "mvtec:read" for v in info.variants}
    assert wanted == set(LAYOUTS)


def test_roles() -> None:
    assert CATALOG["mvtec_ad"].role_of("toothbrush") == "development"
    assert CATALOG["mvtec_ad"].role_of("screw") == "report"
    assert CATALOG["mvtec_ad"].role_of("zipper") == CATALOG["mvtec_ad"].role_of(None) == "none"
    assert CATALOG["cifar100"].role_of(None) == "development"


def test_page_lists_every_set_and_its_source() -> None:
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.count(" | ") >= 5 and "`" in line]
    assert [re.match(r"\| `(\w+)`", row)[1] for row in rows] == list(CATALOG)  # type: ignore[index]
    for row, info in zip(rows, CATALOG.values(), strict=True):
        assert info.source in row
        assert info.licence in row


def test_entries_cannot_be_changed() -> None:
    assert {field.name for field in fields(Catalogued)} >= {"title", "tasks", "source", "licence", "role"}
    with pytest.raises(AttributeError):
        CATALOG["cifar10"].role = "none"  # type: ignore[misc]


# --- what is refused --------------------------------------------------------------------------


def test_unknown_names() -> None:
    with pytest.raises(InputError, match="no image set 'mvtec'; did you mean mvtec_ad"):
        known("mvtec")
    with pytest.raises(InputError, match="known: cifar10, cifar100, mnist"):
        open_set("zzzzzz")


@pytest.mark.parametrize(
    ("name", "options", "line"),
    [
        ("mvtec_ad", {"category": "bottles"}, "category='bottles'; choose one of bottle, cable"),
        ("cifar10", {"category": "cat"}, "category='cat': the set has none"),
        ("cifar100", {"variant": "gross"}, "variant='gross'; choose one of fine, coarse"),
        ("mnist", {"variant": "fine"}, "variant='fine': the set has none"),
        ("btad", {"download": True}, "cannot be downloaded by anomem; BTAD"),
    ],
)
def test_wrong_options(tmp_path: Path, name: str, options: dict[str, object], line: str) -> None:
    with pytest.raises(InputError, match=line):
        open_set(name, tmp_path, **options)  # type: ignore[arg-type]


def test_normal_is_for_sets_of_classes(tmp_path: Path) -> None:
    put(tmp_path, "train/good/0.png", "test/good/0.png")
    with pytest.raises(InputError, match="MVTec AD: normal='bad': its normal images are good; leave it out"):
        open_set("mvtec_ad", tmp_path, normal="bad")


# --- where copies are looked for --------------------------------------------------------------


def test_copies_are_found_by_their_usual_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANOMEM_DATA", str(tmp_path))
    put(tmp_path / "cifar-10", *CIFAR_FOLDERS)
    assert open_set("cifar10").root == tmp_path / "cifar-10"
    zipped(tmp_path / "cifar-10", tmp_path / "cifar10.zip")
    assert open_set("cifar10").root == tmp_path / "cifar10.zip"  # the first of the names
    put(tmp_path / "cifar10", *CIFAR_FOLDERS)
    assert open_set("cifar10").root == tmp_path / "cifar10"  # a folder before a zip
    assert open_set("cifar10", tmp_path).root == tmp_path / "cifar10"
    assert open_set("cifar10", tmp_path / "cifar-10").root == tmp_path / "cifar-10"


def test_copies_of_one_category(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANOMEM_DATA", str(tmp_path))
    put(tmp_path / "mvtec_ad_screw/screw", "train/good/0.png", "test/good/0.png")
    data = open_set("mvtec_ad", category="screw")
    assert data.train[0].path == tmp_path / "mvtec_ad_screw/screw/train/good/0.png"
    with pytest.raises(InputError, match=r"mvtec_ad: absent, as a folder and as a zip; MVTec AD can be asked for at"):
        open_set("mvtec_ad", category="tile")


def test_a_zip_may_hold_the_folder_it_was_made_of(tmp_path: Path) -> None:
    put(tmp_path / "copy/MNIST", "train/1/0.png", "test/1/0.png")
    data = open_set("mnist", zipped(tmp_path / "copy", tmp_path / "digits.zip"))
    assert data.root == tmp_path / "digits.zip/MNIST"


def test_no_folder_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANOMEM_DATA", raising=False)
    with pytest.raises(InputError, match="WMCA: no folder; give root=, or set ANOMEM_DATA.*idiap"):
        open_set("wmca")
    with pytest.raises(InputError, match=r"gone: absent; WMCA can be asked for at https://www\.idiap\.ch"):
        open_set("wmca", tmp_path / "gone")


def test_download_asks_torchvision_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.datasets import MNIST

    monkeypatch.setattr(MNIST, "mirrors", ["http://127.0.0.1:9/"])  # nobody answers there
    with pytest.raises(InputError, match=r"the download failed .*MNIST can be asked for at"):
        open_set("mnist", tmp_path / "mnist", download=True)


# --- what it is for ---------------------------------------------------------------------------


def build_spots(root: Path) -> Path:
    """Thirty plain training images, four plain and four spotted test images."""
    rng = np.random.default_rng(4)
    for kind, part, count in (("good", "train", 30), ("good", "test", 4), ("spot", "test", 4)):
        (root / part / kind).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            pixels = rng.normal(120, 5, (32, 32, 3))
            if kind == "spot":
                pixels[8:24, 8:24] = 250
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / part / kind / f"{i}.png")
    return root


def test_fit_and_score_from_a_zip_and_evaluate_what_it_unpacks_to(tmp_path: Path) -> None:
    data = open_set("mvtec_ad", zipped(build_spots(tmp_path / "tile"), tmp_path / "tile.zip"))
    detector = KNN(size=32, k=1).fit(data.source(data.train), alpha=0.25, calibration="split")
    scores = detector.anomaly_score(data.source(data.test))
    labels = np.array([sample.label for sample in data.test])
    assert scores[labels == 1].min() > scores[labels == 0].max()
    loose = data.unpack(tmp_path / "loose")
    found = evaluate(detector, loose.for_evaluation())
    assert (found.n_normal, found.n_anomalous, found.n_left_out, found.image.auroc) == (4, 4, 0, 1.0)
    assert evaluate(detector, (*loose.train, *loose.test)).n_left_out == 30


def test_a_folder_is_a_dataset_like_any_other(tmp_path: Path) -> None:
    data = open_set("mvtec_ad", build_spots(tmp_path / "tile"))
    detector = KNN(size=32, k=1).fit(data, alpha=0.25, calibration="split")
    assert evaluate(detector, data.for_evaluation()).image.auroc == 1.0


# --- real images ------------------------------------------------------------------------------


@pytest.mark.realdata
@pytest.mark.ci_sample
@pytest.mark.parametrize(
    ("name", "options", "train", "spare", "good", "bad", "masks"),
    [
        ("cifar10", {"normal": "cat"}, 5000, 45000, 1000, 9000, 0),
        ("cifar100", {"normal": "apple"}, 40, 3960, 15, 1485, 0),
        ("cifar100", {"normal": "people", "variant": "coarse"}, 200, 3800, 75, 1425, 0),
        ("mnist", {"normal": "3"}, 1000, 9000, 500, 4500, 0),
        ("pneumonia_mnist", {}, 1214, 3494, 234, 390, 0),
        ("magnetic_tile", {}, 762, 0, 190, 392, 392),
        ("mvtec_ad", {"category": "bottle"}, 209, 0, 20, 63, 0),
        ("mvtec_ad", {"category": "screw"}, 320, 0, 41, 119, 119),
        ("mvtec_ad", {"category": "toothbrush"}, 48, 0, 12, 30, 30),
        ("mvtec_ad", {"category": "pill"}, 267, 0, 26, 141, 141),
        ("mvtec_ad", {"category": "pill", "variant": "native"}, 100, 0, 26, 60, 60),
        ("visa", {"category": "capsules"}, 542, 0, 60, 100, 100),
        ("visa", {"category": "capsules", "variant": "native"}, 80, 0, 24, 30, 30),
        ("aitex_tiles", {}, 292, 0, 99, 146, 146),
        ("fabric_stain", {}, 268, 0, 20, 150, 0),
    ],
)
def test_real_sets(
    anomem_data: Path, name: str, options: dict[str, str], train: int, spare: int, good: int, bad: int, masks: int
) -> None:
    data = open_set(name, anomem_data, **options)  # type: ignore[arg-type]
    assert (len(data.train), len(data.spare)) == (train, spare)
    labels = [sample.label for sample in data.test]
    assert (labels.count(0), labels.count(1)) == (good, bad)
    assert sum(sample.mask is not None for sample in data.test) == masks


@pytest.mark.parametrize(
    ("name", "names", "groups"),
    [
        ("aitex_tiles", ("0001_000_03_t09", "0001_000_03_t10", "0002_000_03_t09"), 2),
        ("fabric_stain", ("7", "7_0", "7_4", "71", "71_2", "7_5"), 3),
    ],
)
def test_versions_of_one_photograph_are_a_group(tmp_path: Path, name: str, names: tuple[str, ...], groups: int) -> None:
    folder = tmp_path / name / name
    for i, place in enumerate([*(f"train/good/{n}" for n in names), "test/good/900", "test/defect/901"]):
        path = folder / f"{place}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_png(path, np.full((8, 8, 3), i, np.uint8))
    train = open_set(name, tmp_path).train
    assert len(train) == len(names)
    assert len({sample.group for sample in train}) == groups


@pytest.mark.realdata
@pytest.mark.ci_sample
@pytest.mark.parametrize(("set_name", "category"), [("mvtec_ad", "screw"), ("visa", "capsules")])
def test_real_sets_agree_with_the_recognised_layout(anomem_data: Path, set_name: str, category: str) -> None:
    data = open_set(set_name, anomem_data, category=category)
    seen = read_dataset(anomem_data / f"{set_name}_{category}" / category)
    assert (data.train, set(data.test)) == (seen.train, set(seen.test))


@pytest.mark.realdata
@pytest.mark.ci_sample
def test_real_zip_hashes_as_its_folder(anomem_data: Path, tmp_path: Path) -> None:
    folder = anomem_data / "mvtec_ad_toothbrush"
    loose = open_set("mvtec_ad", folder)
    packed = open_set("mvtec_ad", zipped(folder, tmp_path / "mvtec_ad_toothbrush.zip"))
    one, other = packed.source(packed.test), PathSource(sample.path for sample in loose.test)
    assert [one.digest(i) for i in range(len(one))] == [other.digest(i) for i in range(len(other))]
    assert np.array_equal(one.load(0), other.load(0))
