"""Bit depth, inverted scales and the kinds of TIFF that are read or named."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anomem.errors import AnomemWarning, ImageError, ParameterError
from anomem.runtime.images import as_rgb, decode, peak_level
from anomem.runtime.sources import open_images
from tests.runtime.pictures import picture
from tests.runtime.tiffs import tiff

RAMP = np.tile(np.arange(256, dtype=np.uint16), (4, 1))


def png(values: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, "PNG")
    return stream.getvalue()


def wide_png(values: np.ndarray) -> bytes:
    """Write (H, W, 2, 3 or 4) uint16 as a PNG, which Pillow does not."""
    height, width, channels = values.shape
    kind = {2: 4, 3: 2, 4: 6}[channels]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("bits", [8, 10, 12, 14])
def test_a_camera_of_fewer_bits_keeps_all_its_levels(bits: int) -> None:
    full = (RAMP.astype(np.uint32) * ((1 << bits) - 1) // 255).astype(np.uint16)
    for found in (decode(png(full), bits=bits), as_rgb(full, bits=bits), decode(tiff(full), bits=bits)):
        np.testing.assert_allclose(found[:, :, 0].astype(int), RAMP, atol=1)
        assert found.max() == 255


@pytest.mark.parametrize("channels", [2, 3, 4])
@pytest.mark.parametrize("bits", [10, 12])
def test_colours_of_fewer_bits_keep_all_their_levels(bits: int, channels: int) -> None:
    white = (1 << bits) - 1
    grey = (RAMP.astype(np.uint32) * white // 255).astype(np.uint16)
    opaque = np.full_like(grey, 65535)
    values = np.dstack([grey] * (1 if channels == 2 else 3) + [opaque] * (channels % 2 == 0))
    found = decode(wide_png(values), bits=bits)
    np.testing.assert_allclose(found[:, :, 1].astype(int), RAMP, atol=1)
    assert peak_level(wide_png(values), "x.png") == white
    if channels == 3:
        np.testing.assert_array_equal(decode(tiff(values, photometric=2), bits=bits), found)


def test_sixteen_bits_are_read_as_ever() -> None:
    levels = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    expected = np.rint(levels / 257).astype(np.uint8)
    np.testing.assert_array_equal(decode(png(levels))[:, :, 0], expected)
    np.testing.assert_array_equal(decode(wide_png(np.dstack([levels] * 3)))[:, :, 2], levels >> 8)
    np.testing.assert_array_equal(decode(png(picture()), bits=10), picture())


def test_a_note_where_a_fraction_of_the_range_is_used() -> None:
    with pytest.warns(AnomemWarning, match=r"^cam\.png: 16-bit values end at 1020, .* bits=10, or bits='auto'$"):
        decode(png(RAMP << 2), name="cam.png")
    with pytest.warns(AnomemWarning, match=r"^image 0: 16-bit values end at 1020"):
        open_images((RAMP << 2)[None]).load(0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        decode(png(RAMP << 8))
        decode(png(RAMP << 2), bits=10)


def test_one_note_for_a_whole_folder_of_dark_images() -> None:
    source = open_images([(RAMP << 2) for _ in range(5)])
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for i in range(5):
            source.load(i)
    assert len(said) == 1


def test_values_beyond_the_bits_are_white_and_noted() -> None:
    with pytest.warns(AnomemWarning, match=r"values up to 4080 are beyond 10 bits and become white"):
        found = decode(png(RAMP << 4), bits=10)
    assert (found[:, 64:] == 255).all()


@pytest.mark.parametrize("bits", [0, 9, 11, 17, True, 10.5, "10"])
def test_other_depths_are_refused(bits: object) -> None:
    with pytest.raises(ParameterError, match="expected one of 8, 10, 12, 14, 16"):
        decode(png(RAMP), bits=bits)  # type: ignore[arg-type]


def test_a_tiff_of_12_bit_samples_says_so_itself() -> None:
    values = (np.arange(64, dtype=np.uint16) * 65).reshape(8, 8)  # 0 to 4095
    pairs = values.reshape(-1, 2)
    packed = np.stack([pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255], 1)
    data = tiff(values, bits=12, content=packed.astype(np.uint8).tobytes())
    np.testing.assert_allclose(decode(data)[:, :, 0], np.rint(values / 4095 * 255), atol=1)
    assert peak_level(data, "x.tif") is None


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_where_zero_is_white(dtype: type) -> None:
    grey = np.tile(np.arange(0, 256, 15, dtype=np.uint8), (4, 1))
    scale = {np.uint8: 1, np.uint16: 257, np.float32: 1 / 255}[dtype]
    values = ((255.0 - grey) * scale).astype(dtype)
    data = tiff(values, photometric=0, sample_format=3 if dtype is np.float32 else 1)
    np.testing.assert_array_equal(decode(data)[:, :, 0], grey)


@pytest.mark.parametrize("samples", [1, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_samples_in_planes_are_read_right_or_named(samples: int, dtype: type) -> None:
    image = np.dstack([picture(), np.full(picture().shape[:2], 255, np.uint8)])[:, :, :samples]
    values = image.astype(dtype) * dtype(1 if dtype is np.uint8 else 257)
    data = tiff(values, photometric=1 if samples == 1 else 2, planar=True)
    if dtype is np.uint16:
        with pytest.raises(ImageError, match=r"^p\.tif: a TIFF of 16-bit unsigned .* in separate planes"):
            decode(data, name="p.tif")
        return
    np.testing.assert_array_equal(decode(data), np.repeat(image, 3, 2) if samples == 1 else image[:, :, :3])


@pytest.mark.parametrize(
    ("values", "options", "words"),
    [
        (np.zeros((4, 4), np.float64), {"sample_format": 3}, "64-bit float grey"),
        (np.zeros((4, 4, 3), np.float32), {"sample_format": 3, "photometric": 2}, "32-bit float RGB"),
        (np.zeros((4, 4, 2), np.uint16), {}, "16-bit unsigned grey and alpha"),
    ],
)
def test_kinds_that_are_not_read_are_named(values: np.ndarray, options: dict, words: str) -> None:
    with pytest.raises(ImageError, match=rf"^f\.tif: a TIFF of {words} is not read; save it with 8 or 16"):
        decode(tiff(values, **options), name="f.tif")


def test_a_palette_that_is_missing_is_damage() -> None:
    stream = io.BytesIO()
    Image.fromarray(RAMP).convert("P").save(stream, "PNG")
    content = stream.getvalue()
    start, end = content.index(b"PLTE") - 4, content.index(b"IDAT") - 4
    with pytest.raises(ImageError, match=r"damaged or incomplete PNG file \(without a palette\)"):
        decode(content[:start] + content[end:])


def test_damaged_tiffs_are_still_called_damaged() -> None:
    with pytest.raises(ImageError, match="damaged or incomplete TIFF file"):
        decode(tiff(RAMP)[:300])


def test_a_png_with_a_megabyte_of_text_is_read() -> None:
    from PIL import PngImagePlugin

    info = PngImagePlugin.PngInfo()
    info.add_text("workflow", "one step; " * 200_000, zip=True)
    info.add_itxt("again", "one step; " * 200_000, zip=True)
    info.add_text("short", "kept")
    stream = io.BytesIO()
    Image.fromarray(picture()).save(stream, "PNG", pnginfo=info)
    np.testing.assert_array_equal(decode(stream.getvalue()), picture())
    with pytest.raises(ImageError, match="damaged or incomplete PNG"):
        decode(stream.getvalue()[:-500])


def test_signed_bytes_are_refused() -> None:
    values = np.arange(-8, 8, dtype=np.int8).reshape(4, 4)
    with pytest.raises(ImageError, match="a TIFF of 8-bit signed grey is not read; save it as unsigned"):
        decode(tiff(values, sample_format=2))


def test_the_transparent_level_of_16_bits_is_composed(tmp_path: Path) -> None:
    values = np.asarray([[0, 771], [65535, 1799]], np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png", transparency=771)
    assert decode(tmp_path / "a.png")[:, :, 0].tolist() == [[0, 127], [255, 7]]
