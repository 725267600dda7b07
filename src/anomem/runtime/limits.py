"""Limits on input files; a larger file is refused before memory is allocated.

`MAX_PIXELS` is a default: `max_pixels=` of methods and ``--max-pixels`` of commands raise it, and with it the limits on
an image file's bytes. The other limits are far above the contents of valid files.
"""

from __future__ import annotations

from anomem.errors import ImageError

__all__ = [
    "MAX_ARCHITECTURE_ENTRIES",
    "MAX_ARRAY_BYTES",
    "MAX_FOLDER_DEPTH",
    "MAX_PIXELS",
    "MAX_PLAIN_BYTES",
    "MAX_SIDE",
    "MAX_TABLE_BYTES",
    "MAX_TABLE_ROWS",
    "MAX_TEXT_BYTES",
    "MAX_TILES",
    "MAX_UNPACKED_BYTES",
    "TILES_AT_ONCE_BYTES",
    "check_pixels",
    "image_bytes",
]

MAX_PIXELS = 120_000_000
"""Pixels per image (width times height), read from its header."""

MAX_PLAIN_BYTES = 16 << 20
"""Bytes of a PNM file with pixels as text, which is slow to read."""

MAX_UNPACKED_BYTES = 2 << 30
"""Unpacked bytes of a file of records (``.gz``, ``.npy``, or such an entry of a zip)."""

MAX_FOLDER_DEPTH = 200
"""Folders inside one another, on the disk or in a zip."""

MAX_TABLE_ROWS = 2_000_000
"""Rows per table."""

MAX_TABLE_BYTES = 256 << 20
"""Bytes of a CSV file, or of the unpacked texts of a Parquet file."""

MAX_TEXT_BYTES = 128 << 20
"""Bytes of each text (manifest, arrays) in a model file, and of the .xml of an OpenVINO IR."""

MAX_ARRAY_BYTES = 256 << 20
"""Unpacked bytes of all arrays in an exported file."""

MAX_ARCHITECTURE_ENTRIES = 4096
"""Keys and values in a manifest's ``architecture``; the largest one written has some hundred."""

MAX_SIDE = 4096
"""Pixels per side of a network's input."""

MAX_TILES = 1 << 18
"""Tiles per image."""

TILES_AT_ONCE_BYTES = 64 << 20
"""Bytes up to which all tiles of an image are cut at once; larger ones are cut per batch."""


def image_bytes(max_pixels: int = MAX_PIXELS) -> int:
    """Return the maximum size of an image file: `max_pixels` uncompressed with 16-bit RGBA, plus 64 MiB.

    Examples
    --------
    >>> image_bytes() >> 20
    979
    """
    return 8 * max_pixels + (64 << 20)


def check_pixels(width: int, height: int, name: str, max_pixels: int) -> None:
    """Refuse an image of more pixels with an ImageError."""
    if width * height > max_pixels:
        size = f"{width} x {height} pixels are more than the limit of {max_pixels}"
        raise ImageError(name, f"{size}; shrink or cut it, or raise max_pixels (--max-pixels)")
