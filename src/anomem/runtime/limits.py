"""Limits on whatever is read, in one place: a file beyond one of them is refused in one line, before memory is taken.

`MAX_PIXELS` is a default: `max_pixels=` of every method that takes images and ``--max-pixels`` of every command raise
it, and the limits on an image file's bytes with it. The others are far beyond what a sound file holds.
"""

from __future__ import annotations

__all__ = [
    "MAX_ARCHITECTURE_ENTRIES",
    "MAX_ARRAY_BYTES",
    "MAX_PIXELS",
    "MAX_PLAIN_BYTES",
    "MAX_SIDE",
    "MAX_TABLE_BYTES",
    "MAX_TABLE_ROWS",
    "MAX_TEXT_BYTES",
    "MAX_TILES",
    "MAX_TILE_MAP_BYTES",
    "MAX_UNPACKED_BYTES",
    "TILES_AT_ONCE_BYTES",
    "image_bytes",
]

MAX_PIXELS = 120_000_000
"""Pixels of an image (width times height), read from its header."""

MAX_PLAIN_BYTES = 16 << 20
"""Bytes of a PNM file whose pixels are written as text, which take far longer to read than others."""

MAX_UNPACKED_BYTES = 2 << 30
"""Bytes that a file of records (``.gz``, ``.npy``, an entry of a zip that holds records) may unpack to."""

MAX_TABLE_ROWS = 2_000_000
"""Rows of a table."""

MAX_TABLE_BYTES = 256 << 20
"""Bytes of a CSV file, and of the texts that a Parquet file unpacks to."""

MAX_TEXT_BYTES = 128 << 20
"""Bytes of each text (manifest, arrays) in a model file, and of the .xml of an OpenVINO IR."""

MAX_ARRAY_BYTES = 256 << 20
"""Bytes that all arrays among the texts of an exported file may unpack to."""

MAX_ARCHITECTURE_ENTRIES = 4096
"""Keys and values in a manifest's ``architecture``; the largest that a fit writes has some hundred."""

MAX_SIDE = 4096
"""Pixels of a side of a network's input."""

MAX_TILES = 1 << 18
"""Tiles of one image."""

MAX_TILE_MAP_BYTES = 2 << 30
"""Bytes of the anomaly maps of all tiles of one image."""

TILES_AT_ONCE_BYTES = 64 << 20
"""Bytes up to which an image's tiles are cut at once; beyond, they are cut batch by batch."""


def image_bytes(max_pixels: int = MAX_PIXELS) -> int:
    """Return the most bytes of an image file: `max_pixels` uncompressed in 16-bit colours with alpha, and 64 MiB.

    Examples
    --------
    >>> image_bytes() >> 20
    979
    """
    return 8 * max_pixels + (64 << 20)
