"""Image sources: uniform, lazy, hashed by content."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from anomem.data.official.inside import read_array
from anomem.data.sources import ArraySource, ImageSource, PathSource, Sample, open_source, read_dataset
from anomem.errors import ImageError, InputError
from anomem.runtime.pixels import Reading

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


def test_many_paths_are_not_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    touched: list[object] = []
    with monkeypatch.context() as watch:
        for module, name in ((os, "stat"), (os, "lstat"), (os, "open"), (os, "scandir"), (os, "listdir"), (io, "open")):
            asked = getattr(module, name)
            watch.setattr(module, name, lambda *a, asked=asked, **k: touched.append(a[0]) or asked(*a, **k))
        source = open_source([f"/nowhere/{i}.png" for i in range(1000)])
        part = source.subset(range(0, 1000, 2))
        assert (len(source), len(part)) == (1000, 500)
        assert part.name(1) == "/nowhere/2.png"
        assert touched == []
        with pytest.raises(InputError, match=r"no such file"):
            open_source("/nowhere/0.png")
        assert touched, "looks at the disk are noticed"
    with pytest.raises(ImageError, match=r"/nowhere/0\.png"):
        part.load(0)
    for read in (part.digest, part.load_with_digest):
        with pytest.raises(ImageError, match=r"/nowhere/0\.png: .*check the path"):
            read(0)


def test_bad_file_is_named_when_loaded(tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no image")
    source = open_source(tmp_path)
    for read in (source.digest, source.load, source.load_with_digest):
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
        (np.concatenate([BATCH, np.full_like(BATCH[..., :1], 255)], -1), BATCH),
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
        (
            np.zeros((3, 24, 24), np.uint8),
            r"array of shape \(3, 24, 24\) may be one image or 3 grey ones; give \(1, 3,",
        ),
        (np.zeros((4, 24, 24), np.uint8), r"may be one image or 4 grey ones"),
        ([b"png", "a.png"], "bytes, str holds no images"),
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


def test_images_in_memory_of_every_kind(tmp_path: Path) -> None:
    image = Image.fromarray(BATCH[0])
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "a.png", exif=exif)
    content = (tmp_path / "a.png").read_bytes()
    turned = np.rot90(BATCH[0], -1)
    with Image.open(tmp_path / "a.png") as opened:
        mixed = open_source([content, bytearray(content), memoryview(content), opened, turned])
        for i in range(5):
            assert np.array_equal(mixed.load(i), turned)
            assert np.array_equal(mixed.load_with_digest(i)[0], turned)
    file = open_source(tmp_path / "a.png")
    assert mixed.digest(0) == mixed.digest(1) == file.digest(0)
    assert open_source(content).digest(0) == file.digest(0)
    assert np.array_equal(open_source(image).load(0), BATCH[0])
    assert [mixed.subset([4, 0]).name(i) for i in range(2)] == ["image 4", "image 0"]


def test_pillow_images_of_every_mode() -> None:
    grey = BATCH[0, :, :, 0]
    for image in (Image.fromarray(grey), Image.fromarray(grey.astype(np.uint16) * 257), Image.fromarray(grey / 255)):
        assert np.array_equal(open_source(image).load(0), grey[..., None].repeat(3, -1))
    assert open_source(Image.fromarray(grey.astype(np.uint16) * 4)).peak(0) == int(grey.max()) * 4
    assert open_source(Image.fromarray(grey)).peak(0) is None
    damaged = Image.open(io.BytesIO(_png(BATCH[0])[:-60]))
    with pytest.raises(ImageError, match="^image 0: a Pillow image that cannot be decoded"):
        open_source([damaged]).load(0)
    with pytest.raises(ImageError, match="^image 0: damaged or incomplete PNG"):
        open_source([_png(BATCH[0])[:-60]]).load(0)


def test_paths_in_arrays_and_columns(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(_png(BATCH[0]))
    for paths in (np.array([str(tmp_path / "a.png")]), np.array([tmp_path / "a.png"], dtype=object)):
        assert np.array_equal(open_source(paths).load(0), BATCH[0])


def _png(image: npt.NDArray[np.uint8]) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return stream.getvalue()


def test_a_zip_that_unpacks_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(tmp_path / "set.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("x.png", bytes(3 << 20))
    source = PathSource([tmp_path / "set.zip" / "x.png"], Reading(max_pixels=1))
    monkeypatch.setattr("anomem.runtime.sources.image_bytes", lambda pixels: 1 << 20)
    with pytest.raises(ImageError, match=r"x\.png: unpacks to 3,145,728 bytes, more than the limit of 1,048,576"):
        source.load(0)


def npy(shape: str) -> bytes:
    head = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head + bytes(48)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a-idx3-ubyte", b"\0\0\x08"),
        ("b-idx3-ubyte", b"\0\0\x08\x03" + b"\x7f\xff\xff\xff" * 3),
        ("c-idx3-ubyte", b"\0\0\x08\x00"),
        ("d-idx3-ubyte.gz", gzip.compress(bytes(1 << 22), mtime=0)),
        ("e-idx3-ubyte.gz", gzip.compress(b"\0\0\x08\x03" + b"\0\0\x10\0" * 3 + bytes(99), mtime=0)),
        ("f-idx3-ubyte.gz", gzip.compress(bytes(99), mtime=0)[:12] + b"\xff" * 9),
        ("g.npy", npy("((((((((((((")),
        ("h.npy", npy("()")),
    ],
)
def test_hostile_records_are_input_errors(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=name):
        read_array(tmp_path / name)
    with pytest.raises(ImageError, match=name):
        PathSource([tmp_path / name / "00000.pgm"]).load(0)
