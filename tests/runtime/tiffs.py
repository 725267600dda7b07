"""TIFF files of kinds that Pillow does not write."""

from __future__ import annotations

import struct

import numpy as np


def tiff(
    samples: np.ndarray,
    *,
    bits: int | None = None,
    photometric: int = 1,
    sample_format: int = 1,
    planar: bool = False,
    orientation: int = 1,
    content: bytes | None = None,
) -> bytes:
    """Write (H, W) or (H, W, C) little-endian and uncompressed, in one strip, or one for each plane."""
    values = samples[:, :, None] if samples.ndim == 2 else samples
    height, width, count = values.shape
    bits = values.dtype.itemsize * 8 if bits is None else bits
    ordered = np.moveaxis(values, -1, 0) if planar else values
    body = ordered.astype(values.dtype.newbyteorder("<")).tobytes() if content is None else content
    strips = count if planar else 1
    size = len(body) // strips
    tags = [(256, 4, [width]), (257, 4, [height]), (258, 3, [bits] * count), (259, 3, [1]), (262, 3, [photometric])]
    tags += [(273, 4, [8 + i * size for i in range(strips)]), (274, 3, [orientation]), (277, 3, [count])]
    tags += [(278, 4, [height]), (279, 4, [size] * strips), (284, 3, [2 if planar else 1])]
    extra_samples = count - (3 if photometric == 2 else 1)
    tags += [(338, 3, [2] * extra_samples)] if extra_samples > 0 else []
    tags += [(339, 3, [sample_format] * count)]
    start = 8 + len(body)
    behind, entries, extra = start + 2 + 12 * len(tags) + 4, b"", b""
    for code, kind, numbers in tags:
        data = struct.pack("<" + {3: "H", 4: "I"}[kind] * len(numbers), *numbers)
        if len(data) > 4:
            data, extra = struct.pack("<I", behind + len(extra)), extra + data
        entries += struct.pack("<HHI", code, kind, len(numbers)) + data.ljust(4, b"\0")
    head = b"II*\0" + struct.pack("<I", start)
    return head + body + struct.pack("<H", len(tags)) + entries + b"\0" * 4 + extra
