"""Image sources: uniform, lazy, hashed by content."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from anomem.data.sources import ArraySource, ImageSource, PathSource, Sample, open_source, read_dataset
from anomem.errors import ImageError, InputError

RNG = np.random.default_rng(0)
BATCH = RNG.integers(0, 256, (5, 6, 7, 3), dtype=np.uint8)


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    found = [tmp_path / f"{i}.png" for i in range(3)]
    for path, image in zip(found, BATCH, strict=False):
        Image.fromarray(image).save(path)
    return found


def loaded(source: ImageSource) -> npt.NDArray[np.uint8]:
    return np.stack([source.load(i) for i in range(len(source))])


def test_paths(paths: list[Path]) -> None:
    source = PathSource(paths)
    assert len(source) == 3
    assert np.array_equal(loaded(source), BATCH[:3])
    assert source.name(1) == str(paths[1])
    expected = hashlib.sha256(paths[1].read_bytes()).digest()[:8]
    assert source.digest(1) == int.from_bytes(expected, "big")
    image, digest = source.load_with_digest(1)
    assert digest == source.digest(1)
    assert np.array_equal(image, BATCH[1])


def test_digest_is_by_content(paths: list[Path], tmp_path: Path) -> None:
    copy = tmp_path / "copy of.png"
    copy.write_bytes(paths[0].read_bytes())
    source = PathSource([*paths, copy])
    digests = [source.digest(i) for i in range(4)]
    assert digests[3] == digests[0]
    assert len(set(digests)) == 3
    assert all(0 <= digest < 2**64 for digest in digests)


def test_file_is_read_once_for_both(paths: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.read_bytes

    def last_reading(self: Path) -> bytes:
        content = real(self)
        self.unlink()  # whoever comes again finds nothing
        return content

    monkeypatch.setattr(Path, "read_bytes", last_reading)
    image, digest = PathSource(paths).load_with_digest(2)
    assert np.array_equal(image, BATCH[2])
    assert digest > 0


def test_many_paths_are_not_touched() -> None:
    start = time.perf_counter()
    source = open_source([f"/nowhere/{i}.png" for i in range(100_000)])
    part = source.subset(range(0, 100_000, 2))
    assert (len(source), len(part)) == (100_000, 50_000)
    assert part.name(1) == "/nowhere/2.png"
    assert time.perf_counter() - start < 10  # opening each would take far longer
    with pytest.raises(ImageError, match=r"/nowhere/0\.png"):
        part.load(0)
    for read in (part.digest, part.load_with_digest):
        with pytest.raises(ImageError, match=r"/nowhere/0\.png: .*check the path"):
            read(0)


def test_bad_file_is_named_when_loaded(tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no image")
    source = open_source(tmp_path)
    assert source.digest(0) > 0
    for read in (source.load, source.load_with_digest):
        with pytest.raises(ImageError, match=r"bad\.png"):
            read(0)


GREY = BATCH[..., 0]


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        (BATCH, BATCH),
        (list(BATCH), BATCH),
        (GREY, GREY[..., None].repeat(3, -1)),
        (GREY[..., None], GREY[..., None].repeat(3, -1)),
        (BATCH.transpose(0, 3, 1, 2), BATCH),
        (torch.from_numpy(BATCH), BATCH),
        (torch.from_numpy(BATCH).permute(0, 3, 1, 2), BATCH),
        (list(torch.from_numpy(BATCH).permute(0, 3, 1, 2)), BATCH),
        (torch.from_numpy(BATCH).permute(0, 3, 1, 2) / 255, BATCH),
        (torch.from_numpy(GREY[:, None].copy()), GREY[..., None].repeat(3, -1)),
        (BATCH[0], BATCH[:1]),
        (GREY[0], GREY[:1, ..., None].repeat(3, -1)),
        (np.concatenate([BATCH, BATCH[..., :1]], -1), BATCH),
        (BATCH.astype(np.uint16) * 257, BATCH),
    ],
)
def test_arrays(images: Any, expected: npt.NDArray[np.uint8]) -> None:
    source = open_source(images)
    assert isinstance(source, ArraySource)
    assert np.array_equal(loaded(source), expected)


def test_ambiguous_axes_follow_the_library() -> None:
    array = RNG.integers(0, 256, (2, 3, 5, 3), dtype=np.uint8)
    assert open_source(array).load(0).shape == (3, 5, 3)
    assert open_source(torch.from_numpy(array)).load(0).shape == (5, 3, 3)
    with pytest.raises(InputError, match="one image or 3 grey ones"):
        open_source(torch.zeros(3, 32, 32))


def test_bfloat16_and_gradients() -> None:
    source = open_source(torch.ones(1, 3, 4, 4, dtype=torch.bfloat16, requires_grad=True))
    assert source.load(0).min() == 255


def test_images_of_several_sizes() -> None:
    source = open_source([np.zeros((4, 5), np.uint8), np.zeros((6, 7, 3), np.uint8)])
    assert [source.load(i).shape for i in range(2)] == [(4, 5, 3), (6, 7, 3)]


def test_array_digests() -> None:
    source = ArraySource(BATCH)
    digests = [source.digest(i) for i in range(5)]
    assert len(set(digests)) == 5
    assert [source.load_with_digest(i)[1] for i in range(5)] == digests
    assert ArraySource(list(BATCH)).digest(2) == digests[2]
    part = source.subset([4, 1])
    assert [part.digest(i) for i in range(2)] == [digests[4], digests[1]]
    zeros = np.zeros((1, 4, 9), np.uint8)
    others = [zeros, zeros.reshape(1, 9, 4), zeros.astype(bool), zeros.reshape(1, 6, 6)]
    assert len({ArraySource(other).digest(0) for other in others}) == 4


def test_subset_of_subset_keeps_order_and_names() -> None:
    part = ArraySource(BATCH).subset([4, 2, 0]).subset([2, 0])
    assert [part.name(i) for i in range(2)] == ["image 0", "image 4"]
    assert np.array_equal(loaded(part), BATCH[[0, 4]])
    assert len(part.subset([])) == 0


def test_arrays_are_converted_when_asked() -> None:
    source = open_source(np.full((2, 4, 4), 7.0))  # float outside [0, 1]
    with pytest.raises(ImageError, match="image 1"):
        source.load(1)


def test_open_what_holds_files(paths: list[Path], tmp_path: Path) -> None:
    everything = [str(path) for path in paths]
    table = tmp_path / "t.csv"
    table.write_text("path,split\n0.png,train\n1.png,test\n2.png,test\n")
    samples = read_dataset(table)
    for images in (
        tmp_path,
        str(tmp_path),
        paths,
        everything,
        (path for path in paths),
        [tmp_path],
        table,
        (*samples.train, *samples.test),
        [paths[0], str(paths[1]), paths[2]],
    ):
        source = open_source(images)
        assert [source.name(i) for i in range(len(source))] == everything
        assert open_source(source) is source
    assert open_source(paths[1]).name(0) == str(paths[1])
    assert len(open_source([Sample(paths[0])])) == 1


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([], "0 images: the list is empty"),
        (np.zeros((0, 4, 4)), "0 images"),
        (np.zeros((2, 5, 6, 7)), r"shape \(2, 5, 6, 7\) holds no images"),
        (np.zeros(3), "holds no images"),
        (3, "int holds no images"),
        (b"png", "bytes holds no images"),
        (["a.png", np.zeros((4, 4))], "ndarray, str holds no images"),
        ("/nowhere/at all", "no such file or folder"),
    ],
)
def test_what_holds_no_images(images: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_source(images)


def test_folder_without_images(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(InputError, match=r"0 images, found 1 file \(1 .txt\)"):
        open_source(tmp_path)


def test_dataset_has_two_parts(paths: list[Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"dataset\.train"):
        open_source(read_dataset(tmp_path))
