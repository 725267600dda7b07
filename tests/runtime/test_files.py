"""Files that must not be opened blindly, and limits on what is read from any."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anomem.errors import ImageError, InputError
from anomem.runtime import _pillow, files, limits
from anomem.runtime.images import decode, read_mask
from anomem.runtime.preprocess import Preprocessing
from anomem.runtime.scoring import PreparedImages
from anomem.runtime.sources import FileSource, open_images
from tests.runtime.pictures import picture


def saved(path: Path, image: np.ndarray | None = None) -> Path:
    Image.fromarray(picture() if image is None else image).save(path)
    return path


@pytest.mark.parametrize("read", ["load", "digest", "load_with_digest", "peak"])
def test_pipes_and_devices_are_never_opened(read: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "endless.png").symlink_to("/dev/zero")
    for name in ("pipe.png", "endless.png"):
        with pytest.raises(ImageError, match=rf"{name}: is a pipe, device or socket, not a file"):
            getattr(FileSource([tmp_path / name]), read)(0)
        with pytest.raises(ImageError, match=name):
            read_mask(tmp_path / name)


def test_a_pipe_that_takes_a_files_place_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = saved(tmp_path / "a.png").stat()
    (tmp_path / "a.png").unlink()
    os.mkfifo(tmp_path / "a.png")
    monkeypatch.setattr(Path, "stat", lambda self, **_: facts)
    with pytest.raises(ImageError, match="is a pipe"):
        files.read_regular(tmp_path / "a.png", "a.png", 1 << 20)


@pytest.mark.parametrize("size", [100 << 30, 900 << 20])
def test_a_sparse_file_is_not_read(size: int, tmp_path: Path) -> None:
    path = tmp_path / "sparse.png"
    path.write_bytes(b"hello")
    os.truncate(path, size)
    for read in (FileSource([path]).load, FileSource([path]).digest):
        with pytest.raises(ImageError, match="more than the limit of|not an image by its content"):
            read(0)


def test_a_file_that_grows_while_it_is_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(bytes(100))
    with pytest.raises(ImageError, match=r"^a: 100 bytes are more than the limit of 99; .*raise max_pixels"):
        files.read_regular(path, "a", 99)
    if Path("/proc/self/status").exists():  # a regular file of no size, which has content all the same
        with pytest.raises(ImageError, match="more than the limit of 10"):
            files.read_regular("/proc/self/status", "s", 10)


def test_the_limit_on_pixels_is_settable_and_named(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png")
    line = r"36 x 24 pixels are more than the limit of 863; shrink or cut it, or raise max_pixels \(--max-pixels\)$"
    for images in (path, [path], picture()[None], [Image.fromarray(picture())], path.read_bytes()):
        source = open_images(images, max_pixels=863)
        with pytest.raises(ImageError, match=line):
            source.load(0)
        np.testing.assert_array_equal(open_images(images, max_pixels=864).load(0), picture())
    with pytest.raises(ImageError, match=line):
        read_mask(path, max_pixels=863)
    np.testing.assert_array_equal(open_images(open_images(path), max_pixels=864).load(0), picture())


def test_an_image_that_memory_does_not_hold_is_an_image_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(_pillow, "_decoded", exhausted)
    with pytest.raises(ImageError, match=r"^a\.png: needs more memory than there is"):
        decode(b"\x89PNG\r\n\x1a\n", name="a.png")


def test_pixels_as_endless_text_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, binary = b"P2 2 2 255\n" + b"1 2 3 4 " * 9, io.BytesIO()
    Image.fromarray(picture()).save(binary, "PPM")
    monkeypatch.setattr(_pillow, "MAX_PLAIN_BYTES", 60)
    with pytest.raises(ImageError, match=r"^t\.pgm: more than 0 MiB of pixels as text; save it as PNG"):
        decode(plain, name="t.pgm")
    np.testing.assert_array_equal(decode(binary.getvalue()), picture())


def test_an_image_without_a_pixel_of_the_region_is_named_and_skipped(tmp_path: Path) -> None:
    roi = np.zeros((64, 64), bool)
    roi[:4, :4] = True
    paths = [saved(tmp_path / "a.png"), saved(tmp_path / "thumb.png", picture(5, 5)), saved(tmp_path / "z.png")]
    preparing = Preprocessing(8, roi=roi)
    images = [i for batch in PreparedImages(open_images(paths), preparing, skip_bad=True).prepared(2) for i in batch]
    assert [image.error is None for image in images] == [True, False, True]
    with pytest.raises(ImageError, match=r"thumb\.png: the region of interest is empty at 5 x 5 pixels"):
        list(PreparedImages(open_images(paths), preparing, workers=0).prepared(2))


def test_a_region_that_lies_the_other_way_round_is_refused() -> None:
    with pytest.raises(InputError, match="the region of interest, 220 x 100 pixels, lies the other way round"):
        Preprocessing(8, roi=np.ones((100, 220), bool)).boxes((220, 100))


def test_paths_that_no_file_can_have() -> None:
    for path in ("x" * 5000, "a\0b", "/" + "y" * 300):
        assert not files.is_file(path)
        assert not files.is_folder(path)
        assert not files.exists(path)
        with pytest.raises(InputError, match="no such file or folder"):
            open_images(path)


def test_limits_follow_the_pixels() -> None:
    assert limits.image_bytes(10**9) > 8 * 10**9
