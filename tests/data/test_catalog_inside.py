"""Paths into archives: meaning, hashes, errors of malformed ones."""

from __future__ import annotations

import hashlib
import io
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anomem.data.catalog import open_set
from anomem.data.corpus import read_corpus
from anomem.data.imageset import ImageSet
from anomem.data.official.inside import file_size, read_file, read_mask
from anomem.data.official.tree import open_tree
from anomem.data.sources import PathSource
from anomem.errors import ImageError, InputError
from anomem.runtime.archive import open_zip
from anomem.runtime.preprocess import Preprocessing
from anomem.runtime.progress import run_to_end

RNG = np.random.default_rng(5)
IMAGES = RNG.integers(0, 256, (40, 9, 7, 3), dtype=np.uint8)
EMPTY = 22  # bytes of a zip without entries


def png(image: np.ndarray, **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, **{"format": "PNG", **options})
    return stream.getvalue()


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    file = tmp_path / "set.zip"
    with zipfile.ZipFile(file, "w") as out:
        for i, image in enumerate(IMAGES):
            out.writestr(f"train/good/{i:02d}.png", png(image))
    return file


# --- reading ----------------------------------------------------------------------------------


def test_entries_of_a_zip(archive: Path) -> None:
    source = PathSource(archive / f"train/good/{i:02d}.png" for i in range(40))
    assert len(source) == 40
    assert source.name(3) == str(archive / "train/good/03.png")
    assert all(np.array_equal(source.load(i), IMAGES[i]) for i in range(40))
    expected = hashlib.sha256(png(IMAGES[3])).digest()[:8]
    image, digest = source.load_with_digest(3)
    assert digest == source.digest(3) == int.from_bytes(expected, "big")
    assert np.array_equal(image, IMAGES[3])
    assert np.array_equal(source.subset([5, 2]).load(1), IMAGES[2])


def test_hash_is_that_of_the_unpacked_file(archive: Path, tmp_path: Path) -> None:
    loose = tmp_path / "00.png"
    loose.write_bytes(png(IMAGES[0]))
    assert PathSource([archive / "train/good/00.png"]).digest(0) == PathSource([loose]).digest(0)
    assert PathSource([loose]).load_with_digest(0)[1] == PathSource([loose]).digest(0)


def test_file_sizes(archive: Path) -> None:
    assert file_size(archive) == archive.stat().st_size
    assert file_size(archive / "train/good/03.png") == len(png(IMAGES[3]))


def test_threads_share_a_zip(archive: Path) -> None:
    source = PathSource(archive / f"train/good/{i % 40:02d}.png" for i in range(400))
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(source.load, range(400)))
    assert all(np.array_equal(image, IMAGES[i % 40]) for i, image in enumerate(found))


def test_sources_feed_image_sets_and_corpora(archive: Path) -> None:
    source = PathSource(archive / f"train/good/{i:02d}.png" for i in range(10))
    corpus = run_to_end(read_corpus(source, [0] * 8 + [1] * 2))
    assert corpus.positions(1).tolist() == [8, 9]
    assert corpus.digests == tuple(source.digest(i) for i in range(10))
    batches = list(ImageSet(source, Preprocessing(size=8)).batches(4))
    assert [len(batch.images) for batch in batches] == [4, 4, 2]


@pytest.mark.parametrize(
    ("inner", "line"),
    [
        ("train/good/99.png", "there is no such file"),
        ("train/good/00.png/box-0-0-99.ppm", "a box is box-TOP-LEFT-BOTTOM-RIGHT"),
        ("train/good/00.png/box-20-0-30-5.ppm", "the box lies outside the image"),
        ("train/good/00.png/00001.pgm", "not an array file that is known"),
    ],
)
def test_paths_that_mean_nothing(archive: Path, inner: str, line: str) -> None:
    with pytest.raises(InputError, match=line) as error:
        read_file(archive / inner)
    assert str(archive) in str(error.value)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"gone\.png: there is no such file"):
        PathSource([tmp_path / "gone.png"]).load(0)
    with pytest.raises(ImageError, match="is a folder, not a file"):
        read_file(tmp_path)
    np.save(tmp_path / "two.npy", IMAGES[:2])
    assert read_file(tmp_path / "two.npy/00001.ppm").endswith(IMAGES[1].tobytes())
    with pytest.raises(ImageError, match="no record 00002 among 2"):
        read_file(tmp_path / "two.npy/00002.ppm")
    np.save(tmp_path / "labels.npy", np.arange(3))
    with pytest.raises(ImageError, match="is no image"):
        read_file(tmp_path / "labels.npy/00001.pgm")


def test_boxes(archive: Path) -> None:
    path = archive / "train/good/04.png/box-1-2-6-7.ppm"
    assert np.array_equal(PathSource([path]).load(0), IMAGES[4][1:6, 2:7])


def test_damaged_entry_is_an_image_error(archive: Path) -> None:
    content = bytearray(archive.read_bytes())
    at = content.index(png(IMAGES[0])[:40]) + 30
    content[at] ^= 255
    archive.write_bytes(bytes(content))
    with pytest.raises(ImageError, match=r"00\.png: cannot be read \(Bad CRC"):
        read_file(archive / "train/good/00.png")


# --- masks ------------------------------------------------------------------------------------


def test_masks_inside_a_zip(tmp_path: Path) -> None:
    grey = np.zeros((16, 16), np.uint8)
    grey[4:12, 4:12] = 255
    with zipfile.ZipFile(tmp_path / "m.zip", "w") as out:
        out.writestr("mask.png", png(grey // 255))
        out.writestr("mask.jpg", png(grey, format="JPEG", quality=60))
    assert np.array_equal(read_mask(tmp_path / "m.zip/mask.png"), grey > 0)
    assert np.array_equal(read_mask(tmp_path / "m.zip/mask.jpg"), grey > 0)
    assert read_mask(tmp_path / "m.zip/mask.png", (32, 32)).shape == (32, 32)


def test_folder_of_no_masks(tmp_path: Path) -> None:
    (tmp_path / "000").mkdir()
    with pytest.raises(ImageError, match="000"):
        read_mask(tmp_path / "000")


# --- zips as trees ----------------------------------------------------------------------------


def test_names_that_lead_out_of_a_zip_are_not_seen(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as out:
        for name in ("../up/0.png", "/top/1.png", "a/../../2.png", "__MACOSX/._0.png", ".hidden/3.png"):
            out.writestr(name, png(IMAGES[0]))
        out.writestr("train/good/0.png", png(IMAGES[0]))
    assert open_zip(tmp_path / "bad.zip").names == {"__MACOSX/._0.png", ".hidden/3.png", "train/good/0.png"}
    tree = open_tree(tmp_path / "bad.zip", "")
    assert tree.listing() == (["train"], [])
    assert tree.images(deep=True) == ["train/good/0.png"]


def test_folder_and_zip_list_alike(archive: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(tmp_path / "loose")
    (tmp_path / "loose/.hidden").mkdir()
    folder, packed_tree = open_tree(tmp_path / "loose", ""), open_tree(archive, "")
    for tree in (folder, packed_tree):
        assert tree.listing() == (["train"], [])
        assert tree.has("train/good/00.png")
        assert not tree.has("train/good/00.png/x")
        assert not tree.has("test")
        assert tree.at("train").folders() == ["good"]
        assert tree.images("train") == []
        assert tree.images("nowhere") == []
    assert folder.images(deep=True) == packed_tree.images(deep=True)


@pytest.mark.parametrize("content", [b"no zip", b"", b"PK\x05\x06" + b"\xff" * (EMPTY - 4)])
def test_damaged_zip(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.zip").write_bytes(content)
    with pytest.raises(InputError, match=r"bad\.zip: not a readable zip"):
        open_set("cifar10", tmp_path / "bad.zip")


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "mvtec.tar.xz").write_bytes(b"x")
    with pytest.raises(InputError, match=r"a \.xz file; unpack it, or give a folder or a zip; MVTec AD can be asked"):
        open_set("mvtec_ad", tmp_path / "mvtec.tar.xz")


# --- unpacking --------------------------------------------------------------------------------


def test_unpacked_set_is_the_same(tmp_path: Path) -> None:
    grey = np.zeros((9, 7), np.uint8)
    grey[:3] = 255
    with zipfile.ZipFile(tmp_path / "loco.zip", "w") as out:
        for i, place in enumerate(("train/good/0", "validation/good/0", "test/good/0", "test/logical_anomalies/0")):
            out.writestr(f"pushpins/{place}.png", png(IMAGES[i]))
        out.writestr("pushpins/ground_truth/logical_anomalies/0/000.png", png(grey))
        out.writestr("pushpins/ground_truth/logical_anomalies/0/001.png", png(grey[::-1]))
    packed = open_set("mvtec_loco", tmp_path / "loco.zip")
    loose = packed.unpack(tmp_path / "loose")
    assert (packed.on_disk, loose.on_disk) == (False, True)
    assert loose.counts() == packed.counts()
    for part in ("train", "validation", "test"):
        one, other = packed.source(getattr(packed, part)), PathSource(s.path for s in getattr(loose, part))
        assert [one.digest(i) for i in range(len(one))] == [other.digest(i) for i in range(len(other))]
    (old,), (new,) = ([s.mask for s in data.test if s.mask] for data in (packed, loose))
    assert np.array_equal(read_mask(old), read_mask(new))
    assert loose.class_of(loose.test[1]) == "logical_anomalies"
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "loose").rglob("*.png")}
    assert packed.unpack(tmp_path / "loose") == loose
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "loose").rglob("*.png")} == written


def test_unpacking_into_the_set_itself_is_refused(tmp_path: Path, archive: Path) -> None:
    with pytest.raises(InputError, match="name another folder"):
        open_set("mvtec_ad", _with_test(archive)).unpack(archive / "x")


def _with_test(archive: Path) -> Path:
    with zipfile.ZipFile(archive, "a") as out:
        out.writestr("test/good/0.png", png(IMAGES[0]))
    return archive
