"""Decoding and folders, on generated files."""

from __future__ import annotations

import io
import os
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from anomem.errors import ImageError, InputError
from anomem.runtime.images import as_rgb, decode, write_png
from tests.runtime.pictures import picture


def encoded(image: Image.Image, file_format: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, file_format, **options)
    return stream.getvalue()


@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "BMP", "PPM", "WEBP"])
def test_lossless_formats_come_back_bit_for_bit(file_format: str) -> None:
    options = {"lossless": True} if file_format == "WEBP" else {}
    data = encoded(Image.fromarray(picture()), file_format, **options)
    image = decode(data)
    assert image.dtype == np.uint8
    assert image.flags.writeable
    assert image.flags.c_contiguous
    np.testing.assert_array_equal(image, picture())


@pytest.mark.parametrize("as_text", [True, False])
def test_a_path_and_its_bytes_agree(tmp_path: Path, as_text: bool) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encoded(Image.fromarray(picture()), "PNG"))
    np.testing.assert_array_equal(decode(str(path) if as_text else path), picture())


def test_jpeg_is_close() -> None:
    smooth = np.broadcast_to(np.arange(64, dtype=np.uint8)[None, :, None] * 2, (64, 64, 3))
    image = decode(encoded(Image.fromarray(np.ascontiguousarray(smooth)), "JPEG", quality=95))
    assert np.abs(image.astype(int) - smooth).max() <= 3


def test_the_content_decides_not_the_suffix(tmp_path: Path) -> None:
    path = tmp_path / "really-png.jpg"
    path.write_bytes(encoded(Image.fromarray(picture()), "PNG"))
    np.testing.assert_array_equal(decode(path), picture())


def test_one_bit() -> None:
    bits = np.array([[True, False, True]])
    image = decode(encoded(Image.fromarray(bits), "PNG"))
    np.testing.assert_array_equal(image[:, :, 0], [[255, 0, 255]])


@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_are_divided_by_257_and_rounded(file_format: str) -> None:
    values = np.array([[0, 128, 129, 257, 385, 386, 32768, 65406, 65407, 65535]], np.uint16)
    image = decode(encoded(Image.fromarray(values), file_format))
    np.testing.assert_array_equal(image[:, :, 0], np.rint(values / 257))
    assert (image[:, :, 0] == image[:, :, 2]).all()


def test_sixteen_bit_big_endian_tiff() -> None:
    image = Image.frombytes("I;16B", (2, 1), bytes([1, 1, 255, 255]))
    np.testing.assert_array_equal(decode(encoded(image, "TIFF"))[0, :, 0], [1, 255])


def test_32_bit_integers_count_as_sixteen_bits_or_fail() -> None:
    values = np.array([[0, 257, 65535]], np.int32)
    image = decode(encoded(Image.fromarray(values), "TIFF"))
    np.testing.assert_array_equal(image[0, :, 0], [0, 1, 255])
    for outside in (-1, 65536):
        data = encoded(Image.fromarray(np.array([[outside]], np.int32)), "TIFF")
        with pytest.raises(ImageError, match="^x.tif: 32-bit values outside.*save it"):
            decode(data, name="x.tif")


def test_float_images_live_from_0_to_1() -> None:
    values = np.array([[0, 0.5, 1]], np.float32)
    image = decode(encoded(Image.fromarray(values), "TIFF"))
    np.testing.assert_array_equal(image[0, :, 1], [0, 128, 255])
    for bad in (255.0, -0.1, np.nan, np.inf):
        data = encoded(Image.fromarray(np.array([[0, bad]], np.float32)), "TIFF")
        with pytest.raises(ImageError, match=r"f.tif: float values.*\[0, 1\]"):
            decode(data, name="f.tif")


@pytest.mark.parametrize("transparency", [None, bytes([255, 255, 255])])
def test_opaque_palette_colours_stay(transparency: bytes | None) -> None:
    decoded = decode(palette_image(transparency))
    np.testing.assert_array_equal(decoded[0], [[10, 20, 30], [40, 50, 60], [70, 80, 90]])


@pytest.mark.parametrize(("transparency", "middle"), [(1, 127), (bytes([255, 0, 255]), 127)])
def test_transparent_palette_colours_become_grey(transparency: int | bytes, middle: int) -> None:
    decoded = decode(palette_image(transparency))
    np.testing.assert_array_equal(decoded[0], [[10, 20, 30], [middle] * 3, [70, 80, 90]])


def palette_image(transparency: int | bytes | None) -> bytes:
    image = Image.frombytes("P", (3, 1), bytes([0, 1, 2]))
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    return encoded(image, "PNG", **({} if transparency is None else {"transparency": transparency}))


def test_transparent_pixels_are_composed_on_grey() -> None:
    alpha = np.tile(np.uint8([0, 255]), (24, 18))
    rgba = np.dstack([picture(), alpha])
    shown = np.where(alpha[:, :, None] > 0, picture(), np.uint8(127))
    np.testing.assert_array_equal(decode(encoded(Image.fromarray(rgba), "PNG")), shown)
    np.testing.assert_array_equal(as_rgb(rgba), shown)
    opaque = np.dstack([picture(), np.full((24, 36), 255, np.uint8)])
    np.testing.assert_array_equal(decode(encoded(Image.fromarray(opaque), "PNG")), picture())
    half = np.array([[[0, 128], [200, 255]]], np.uint8)
    image = decode(encoded(Image.fromarray(half, "LA"), "PNG"))
    np.testing.assert_array_equal(image[0], [[63, 63, 63], [200, 200, 200]])


def test_colours_under_transparent_pixels_do_not_matter() -> None:
    alpha = np.tile(np.uint8([0, 255]), (24, 18))
    images = [np.dstack([np.where(alpha[:, :, None] > 0, picture(), np.uint8(c)), alpha]) for c in (0, 255)]
    one, other = (decode(encoded(Image.fromarray(image), "PNG")) for image in images)
    np.testing.assert_array_equal(one, other)


def test_an_image_without_a_visible_pixel_is_refused() -> None:
    with pytest.raises(ImageError, match=r"^x\.png: every pixel is transparent; save it without its alpha channel$"):
        decode(encoded(Image.new("RGBA", (4, 4), (1, 2, 3, 0)), "PNG"), name="x.png")


@pytest.mark.parametrize("file_format", ["JPEG", "TIFF"])
def test_cmyk_becomes_rgb_the_right_way_round(file_format: str) -> None:
    # Pillow writes CMYK JPEGs inverted, with the Adobe marker, as Photoshop does.
    flat = np.full((16, 16, 3), (200, 30, 60), np.uint8)
    image = decode(encoded(Image.fromarray(flat).convert("CMYK"), file_format))
    assert np.abs(image.astype(int) - flat).max() <= 4


def test_lab_is_converted_or_named() -> None:
    # Newer Pillows convert it; older ones cannot.
    data = encoded(Image.new("LAB", (4, 4), (128, 128, 128)), "TIFF")
    try:
        Image.new("LAB", (1, 1)).convert("RGB")
    except ValueError:
        with pytest.raises(ImageError, match=r"^lab\.tif: colour mode LAB; save it as RGB$"):
            decode(data, name="lab.tif")
    else:
        image = decode(data, name="lab.tif")
        assert np.ptp(image) <= 3
        assert 100 < image.mean() < 140


@pytest.mark.parametrize("file_format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_first_frame_of_several(file_format: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("#ff0000", "#00ff00", "#0000ff")]
    options = {"lossless": True} if file_format == "WEBP" else {}
    data = encoded(frames[0], file_format, save_all=True, append_images=frames[1:], **options)
    np.testing.assert_array_equal(decode(data)[3, 3], [255, 0, 0])


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation(file_format: str, orientation: int) -> None:
    upright = np.zeros((16, 32, 3), np.uint8)
    upright[:8, :16], upright[:8, 16:], upright[8:, :16] = 250, 160, 80
    # The pixels as a camera stores them: the inverse of what a viewer has to do.
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = decode(encoded(Image.fromarray(np.ascontiguousarray(stored)), file_format, exif=exif))
    assert image.shape == upright.shape
    assert np.abs(image.astype(int) - upright).max() <= 6


def test_broken_metadata_does_not_break_the_image() -> None:
    data = encoded(Image.fromarray(picture()), "PNG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff" * 3)
    np.testing.assert_array_equal(decode(data), picture())


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP", "PPM"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.7])
def test_truncated_files_are_errors(tmp_path: Path, file_format: str, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    data = encoded(Image.fromarray(noise), file_format)
    path = tmp_path / "cut.img"
    path.write_bytes(data[: max(3, int(len(data) * share))])
    with pytest.raises(ImageError, match="cut.img: .*(leave it out)$") as caught:
        decode(path)
    assert "\n" not in str(caught.value)


@settings(max_examples=60, deadline=None)
@given(
    file_format=st.sampled_from(["PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP", "PPM"]),
    place=st.floats(0, 1),
    change=st.binary(min_size=1, max_size=12),
)
def test_damaged_files_decode_or_raise_image_errors(file_format: str, place: float, change: bytes) -> None:
    data = bytearray(encoded(Image.fromarray(picture()), file_format))
    start = int(place * (len(data) - 1))
    data[start : start + len(change)] = change
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = decode(bytes(data))
        except ImageError:
            return
    assert image.ndim == 3
    assert image.shape[2] == 3


@pytest.mark.skipif(sys.platform == "win32", reason="libtiff is not a library of its own there")
def test_libtiff_is_silent(capfd: pytest.CaptureFixture[str]) -> None:
    content = bytearray(encoded(Image.fromarray(picture(24, 32)), "TIFF", compression="tiff_lzw"))
    content[20:60] = b"\xff" * 40
    with pytest.raises(ImageError, match="damaged or incomplete TIFF file"):
        decode(bytes(content))
    assert capfd.readouterr().err == ""


def test_files_that_are_no_images(tmp_path: Path) -> None:
    text, empty = tmp_path / "notes.png", tmp_path / "empty.jpg"
    text.write_text("not an image at all")
    empty.touch()
    os.mkfifo(tmp_path / "pipe.png")
    cases = {
        text: "not an image by its content; convert",
        empty: "the file is empty",
        tmp_path: "is a folder",
        tmp_path / "pipe.png": "is a pipe, device or socket",
        tmp_path / "missing.png": "there is no such file",
        tmp_path / ("x" * 400): "name too long; check the path",
        tmp_path / "null\0byte.png": "null|no such file",
    }
    for path, message in cases.items():
        with pytest.raises(ImageError, match=message) as caught:
            decode(path)
        assert caught.value.name == str(path)
    with pytest.raises(ImageError, match="^image bytes: the file is empty"):
        decode(b"")


def test_bombs_are_refused_by_their_header() -> None:
    # A header that promises 50,000 x 50,000 pixels and holds none of them.
    data = bytearray(encoded(Image.new("1", (1, 1)), "BMP"))
    data[18:26] = (50_000).to_bytes(4, "little") * 2
    with pytest.raises(ImageError, match="50000 x 50000 pixels are more than the limit of 120000000"):
        decode(bytes(data))


def test_the_limit_is_per_call_and_exact() -> None:
    data = encoded(Image.fromarray(picture(10, 20)), "PNG")
    assert decode(data, max_pixels=200).shape == (10, 20, 3)
    with pytest.raises(ImageError, match="20 x 10 pixels.*limit of 199; .*max_pixels"):
        decode(data, max_pixels=199)


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "TIFF", "BMP", "GIF", "PPM"])
def test_the_limit_of_the_process_is_neither_used_nor_changed(
    file_format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3)
    data = encoded(Image.fromarray(picture()), file_format)
    assert decode(data).shape == (24, 36, 3)
    assert Image.MAX_IMAGE_PIXELS == 3


def test_threads_decode_alike() -> None:
    data = [encoded(Image.fromarray(picture(seed=seed)), "PNG") for seed in range(16)]
    with ThreadPoolExecutor(8) as pool:
        images = list(pool.map(decode, data * 4))
    for index, image in enumerate(images):
        np.testing.assert_array_equal(image, picture(seed=index % 16))


def test_as_rgb_takes_the_usual_arrays() -> None:
    grey = np.array([[0, 100, 255]], np.uint8)
    three = np.repeat(grey[:, :, None], 3, axis=2)
    for same in (grey, grey[:, :, None], three, np.dstack([three, np.full_like(grey, 255)])):
        np.testing.assert_array_equal(as_rgb(same), three)
    np.testing.assert_array_equal(as_rgb(grey.astype(np.uint16) * 257), three)
    np.testing.assert_array_equal(as_rgb(grey.astype(">u2") * 257), three)
    for dtype in (np.float32, np.float64):
        np.testing.assert_array_equal(as_rgb((grey / 255).astype(dtype)), three)
    np.testing.assert_array_equal(as_rgb(grey > 50)[0, :, 0], [0, 255, 255])
    assert as_rgb(np.full((1, 1), 1 + 1e-7)).max() == 255


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((2, 2, 2), np.uint8),
        np.zeros((2, 2, 5), np.uint8),
        np.zeros((3,), np.uint8),
        np.zeros((1, 2, 2, 3), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((2, 2), np.int64),
        np.zeros((2, 2), np.complex128),
        np.full((2, 2), 1.01),
        np.full((2, 2), -0.01),
        np.full((2, 2), np.nan),
        np.array([["a"]]),
    ],
)
def test_as_rgb_refuses_the_rest_by_name(array: np.ndarray) -> None:
    with pytest.raises(ImageError, match="^item 3: "):
        as_rgb(array, name="item 3")


def test_write_png(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", picture())
    np.testing.assert_array_equal(decode(tmp_path / "a.png"), picture())
    write_png(tmp_path / "a.png", picture()[::-1, :, 0])
    np.testing.assert_array_equal(decode(tmp_path / "a.png")[:, :, 2], picture()[::-1, :, 0])
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    with pytest.raises(InputError, match="uint8"):
        write_png(tmp_path / "b.png", picture().astype(np.float32))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="missing"):
        write_png(tmp_path / "missing" / "b.png", picture())
