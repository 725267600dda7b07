"""PNG files with more embedded text than Pillow accepts."""

from __future__ import annotations

import io
import zlib
from typing import IO

__all__ = ["without_large_texts"]

_MOST_OF_ONE = 1 << 20
"""Pillow's limit on one text, bytes; its limit on all texts is 64 times as large."""

_MOST = 32 << 20
_SIGNATURE = 8
_TEXTS = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")


def without_large_texts(stream: IO[bytes]) -> IO[bytes]:
    """Copy a PNG without oversized texts and colour profiles; damaged parts are copied as they are."""
    out = io.BytesIO()
    out.write(stream.read(_SIGNATURE))
    total = 0
    while len(start := stream.read(8)) == 8:
        length, name = int.from_bytes(start[:4], "big"), start[4:]
        content = stream.read(length + 4)
        if name in _TEXTS:
            size = _unpacked_size(name, content[:-4])
            total += size
            if size >= _MOST_OF_ONE or total > _MOST:
                continue
        out.write(start + content)
    out.seek(0)
    return out


def _unpacked_size(name: bytes, content: bytes) -> int:
    """Return the unpacked size of a text in bytes, counted up to the limit."""
    after = content.partition(b"\0")[2]
    if name == b"iTXt":
        compressed, after = after[:1] == b"\1", after[2:].partition(b"\0")[2].partition(b"\0")[2]
    else:
        compressed, after = name != b"tEXt", after[1:]
    if not compressed:
        return len(content)
    try:
        return len(zlib.decompressobj().decompress(after, _MOST_OF_ONE))
    except zlib.error:
        return _MOST_OF_ONE
