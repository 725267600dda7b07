"""A zip of images as a data set: read in place, equal to the folder that it was made of."""

from __future__ import annotations

import os
import shutil
import zipfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from anomem.data.corpus import read_corpus
from anomem.data.sources import list_images, open_source, read_dataset, read_labels
from anomem.detectors.baselines.knn import KNN
from anomem.errors import AnomemWarning, ImageError, InputError
from anomem.evaluation.evaluate import evaluate
from anomem.runtime.archive import open_zip
from anomem.runtime.files import is_folder
from anomem.runtime.groups import resolve_groups
from anomem.runtime.listing import list_folder
from anomem.runtime.progress import run_to_end

MVTEC = ("train/good/0.png", "train/good/1.png", "test/good/0.png", "test/hole/0.png", "ground_truth/hole/0_mask.png")
LAYOUTS = (
    MVTEC,
    tuple(f"bottle/{name}" for name in MVTEC),
    (*(f"a/{name}" for name in MVTEC), *(f"b/{name}" for name in MVTEC)),
    ("train/ok/0.png", "train/ng/1.png", "test/ok/2.png", "test/ng/3.png"),
    ("parts/good/0.png", "parts/good/1.png", "parts/scratch/2.png", "parts/scratch/2_mask.png"),
    ("0.png", "lot 1/1.png", "lot 2/2.jpg"),
    ("cat/0.png", "dog/1.png"),
    ("good/0.png", ".hidden/1.png", "__MACOSX/good/._0.png", "good/.DS_Store", "good/Thumbs.db", "notes.txt", "a.heic"),
    ("0.png", "0_GT.png", "1.jpg", "1.png", "labels.csv"),
    ("readme.txt", "masks/0.png"),
    ("train/", "test/good/0.png"),
)


def put(root: Path, *places: str) -> Path:
    for i, place in enumerate(places):
        path = root / place
        path.parent.mkdir(parents=True, exist_ok=True)
        mask = any(word in path.name for word in ("mask", "GT")) or place == "1.png"
        noise = np.random.default_rng(i).integers(0, 256, (12, 12))
        pixels = np.where(np.eye(12, dtype=bool), 255, 0) if mask else noise
        if place.endswith("/"):
            path.mkdir()
        elif path.suffix in {".png", ".jpg"}:
            Image.fromarray(pixels.astype(np.uint8)).save(path)
        else:
            path.write_text("words")
    return root


def packed(folder: Path) -> Path:
    return Path(shutil.make_archive(str(folder), "zip", folder))


def written(file: Path, *entries: str | zipfile.ZipInfo, content: bytes = b"words") -> Path:
    with zipfile.ZipFile(file, "w") as out:
        for entry in entries:
            out.writestr(entry, content)
    return file


def read(place: Path) -> Any:
    """Return a data set, its notes or its error, as if the folder and its zip had one name."""
    try:
        data = asdict(read_dataset(place))
    except InputError as error:
        return str(error).replace(str(place), "DATA")
    return repr(data).replace(str(place), "DATA")


@pytest.mark.parametrize("places", LAYOUTS)
def test_zip_is_read_like_its_folder(tmp_path: Path, places: tuple[str, ...]) -> None:
    folder = put(tmp_path / "data", *places)
    zipped = packed(folder)
    assert read(zipped) == read(folder)
    below = [[path.relative_to(root) for path in list_folder(root).images] for root in (folder, zipped)]
    assert below[0] == below[1]


def test_folder_inside_a_zip_is_a_data_set(tmp_path: Path) -> None:
    folder = put(tmp_path / "data", *LAYOUTS[2])
    zipped = packed(folder)
    with pytest.raises(InputError, match=rf"holds 2 datasets \(a, b\); name one of them, such as {zipped / 'a'}"):
        read_dataset(zipped)
    assert read(zipped / "a") == read(folder / "a")


def test_images_masks_and_hashes_are_those_of_the_folder(tmp_path: Path) -> None:
    folder = put(tmp_path / "data", *MVTEC)
    zipped = packed(folder)
    loose, inside = (open_source(read_dataset(root).test) for root in (folder, zipped))
    assert [loose.digest(i) for i in range(2)] == [inside.digest(i) for i in range(2)]
    assert all(np.array_equal(loose.load(i), inside.load(i)) for i in range(2))
    assert inside.height_width(1) == (12, 12)
    assert list_images(zipped / MVTEC[0], among=False) == (zipped / MVTEC[0],)


def test_groups_by_folder_and_by_path(tmp_path: Path) -> None:
    zipped = packed(put(tmp_path / "data", "lot 1/0.png", "lot 1/1.png", "lot 2/2.png"))
    source = open_source(zipped)
    for rule in ("folder", "lot ([0-9])"):
        one, other, third = run_to_end(resolve_groups(rule, source)) or ()
        assert one == other != third


def test_pages_in_a_zip_are_noted(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    frame = Image.fromarray(np.zeros((4, 4), np.uint8))
    frame.save(folder / "0.tif", save_all=True, append_images=[frame, frame])
    with pytest.warns(AnomemWarning, match=r"only the first page or frame is read of 0\.tif \(2 more\)"):
        open_source(packed(folder))


def test_fit_score_and_evaluate(tmp_path: Path) -> None:
    folder = put(tmp_path / "data", *(f"train/good/{i}.png" for i in range(30)), *MVTEC[2:])
    zipped = packed(folder)
    roots = (folder, zipped)
    models = [KNN(size=32, weights=None).fit(root, alpha=0.4, calibration="split") for root in roots]
    scores = [
        [result.score for result in model.score(root / "test")] for model, root in zip(models, roots, strict=True)
    ]
    assert len(scores[0]) == 2
    assert scores[0] == scores[1]
    assert models[0].digests_ == models[1].digests_
    for model in models:
        for root in roots:
            data = read_dataset(root)
            assert evaluate(model, (*data.train, *data.test)).n_left_out == 30


def test_calibration_by_a_zip(tmp_path: Path) -> None:
    folder = put(tmp_path / "data", *(f"{i}.png" for i in range(30)))
    fresh = put(tmp_path / "fresh", *(f"lot 1/{i}.jpg" for i in range(9)))
    model = KNN(size=32, weights=None).fit(folder, alpha=0.4, calibration="split")
    refused = pytest.raises(InputError, match=r"bad\.zip: 0 training images: .*test 1 anomalous")
    with pytest.warns(AnomemWarning, match="no folder of normal images; --normal ng"), refused:
        model.calibrate(packed(put(tmp_path / "bad", "ng/0.png")), alpha=0.4)
    by_folder = model.calibrate(fresh, alpha=0.4).calibration_.scores
    assert np.array_equal(by_folder, model.calibrate(packed(fresh), alpha=0.4).calibration_.scores)


def test_table_beside_a_zip_names_images_inside(tmp_path: Path) -> None:
    zipped = packed(put(tmp_path / "data", *MVTEC))
    table = tmp_path / "labels.csv"
    table.write_text("path,label,mask\ndata.zip/test/hole/0.png,1,data.zip/ground_truth/hole/0_mask.png\n")
    (sample,) = read_labels(table)
    assert (sample.path, sample.mask) == (zipped / MVTEC[3], zipped / MVTEC[4])
    table.write_text("path,label\ndata.zip/test/hole/9.png,1\n")
    with pytest.raises(InputError, match=r"labels\.csv:2: data\.zip/test/hole/9\.png: no such file"):
        read_labels(table)


@pytest.mark.parametrize("name", ["labels.csv", "labels.json"])
def test_table_inside_a_zip_is_refused(tmp_path: Path, name: str) -> None:
    zipped = written(tmp_path / "data.zip", name)
    with pytest.raises(InputError, match=rf"data\.zip/{name}: a table inside a zip; unpack the zip"):
        read_labels(zipped / name)


def test_video_inside_a_zip_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("av")
    zipped = written(tmp_path / "data.zip", "clip.mp4")
    with pytest.raises(ImageError, match=r"data\.zip/clip\.mp4: lies in a zip; unpack the zip"):
        read_dataset(zipped / "clip.mp4")


# --- hostile zips -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["../0.png", "/0.png", "a/../../0.png", "..\\0.png", "C:\\0.png", "c:/0.png", ".."])
def test_entry_that_leads_out_is_refused(tmp_path: Path, name: str) -> None:
    zipped = written(tmp_path / "data.zip", "good/1.png", name)
    with pytest.raises(InputError, match=r"data\.zip: '.*' leads out of the zip; pack the folder again") as error:
        read_dataset(zipped)
    assert "\n" not in str(error.value)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("other", ["good/0.png", "./good/0.png", "good//0.png", "good\\0.png"])
def test_entry_that_occurs_twice_is_refused(tmp_path: Path, other: str) -> None:
    zipped = written(tmp_path / "data.zip", "good/0.png", other)
    with pytest.raises(InputError, match=r"data\.zip: holds good/0\.png twice; pack the folder again"):
        read_dataset(zipped)


def test_names_as_other_tools_write_them(tmp_path: Path) -> None:
    zipped = written(tmp_path / "data.zip", "./", ".", "./good/0.png", "good\\1.png", "good//lot 1/2.png")
    images = list_folder(zipped).images
    assert [path.relative_to(zipped).as_posix() for path in images] == ["good/0.png", "good/1.png", "good/lot 1/2.png"]
    assert all(open_zip(zipped).read(path.relative_to(zipped).as_posix(), 99) == b"words" for path in images)


@pytest.mark.parametrize(
    ("offset", "value", "line"),
    [(8, 1, "is encrypted; unpack the zip with its password"), (10, 9, "is packed with method 9, which is not read")],
)
def test_entry_that_cannot_be_unpacked_is_refused(tmp_path: Path, offset: int, value: int, line: str) -> None:
    zipped = written(tmp_path / "data.zip", "good/0.png")
    content = bytearray(zipped.read_bytes())
    content[content.index(b"PK\x01\x02") + offset] = value  # of its entry in the directory at the end
    zipped.write_bytes(content)
    with pytest.raises(InputError, match=rf"data\.zip: good/0\.png {line}"):
        read_dataset(zipped)
    with pytest.raises(ImageError, match=line):
        open_source([zipped / "good/0.png"]).load(0)


@pytest.mark.parametrize("content", [b"", b"no zip", b"Rar!\x1a\x07\x00", b"PK\x03\x04" + bytes(40)])
def test_other_content_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "data.zip").write_bytes(content)
    for call in (read_dataset, open_source):
        with pytest.raises(InputError, match=r"data\.zip: not a readable zip \(.*\); copy it again"):
            call(tmp_path / "data.zip")


def test_damaged_image_is_skipped_on_request(tmp_path: Path) -> None:
    zipped = packed(put(tmp_path / "data", *(f"{i}.png" for i in range(3))))
    content = bytearray(zipped.read_bytes())
    content[content.index(b"0.png") + 60] ^= 255
    zipped.write_bytes(content)
    with pytest.raises(ImageError, match=r"data\.zip/0\.png: cannot be read \(.*\); copy the zip again"):
        run_to_end(read_corpus(zipped))
    with pytest.warns(AnomemWarning, match="left out 1 unreadable images"):
        corpus = run_to_end(read_corpus(zipped, skip_bad=True))
    assert [digest != 0 for digest in corpus.digests] == [False, True, True]


def test_missing_and_empty_zips(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.zip: no such file or folder"):
        read_dataset(tmp_path / "gone.zip")
    with pytest.raises(InputError, match=r"none\.zip: 0 images, found nothing"):
        read_dataset(written(tmp_path / "none.zip"))
    with pytest.raises(InputError, match=r"none\.zip/train: no such file or folder"):
        read_dataset(tmp_path / "none.zip/train")


def test_zip_inside_a_folder_is_named(tmp_path: Path) -> None:
    put(tmp_path, "good/0.png")
    written(tmp_path / "more.zip", "good/1.png")
    (note,) = list_folder(tmp_path).notes()
    assert note == "left out 1 file, not images by content: more.zip"
    assert not any(is_folder(entry) for entry in os.scandir(tmp_path) if entry.name == "more.zip")


def test_rewritten_zip_is_read_again(tmp_path: Path) -> None:
    zipped = written(tmp_path / "data.zip", "0.png")
    assert len(list_folder(zipped).images) == 1
    written(zipped, "0.png", "1.png")
    assert len(list_folder(zipped).images) == 2
