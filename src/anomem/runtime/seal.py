"""Digest of a file stored inside the file, to detect changes.

The file contains a mark and 64 digits: the SHA-256 of the file with zeros in their place. It detects damage,
not malice: anyone can compute a new one.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import BinaryIO

from anomem.errors import ModelFileError

__all__ = ["BLANK", "SEAL", "check_seal", "seal"]

SEAL = "seal"
"""Key of the mark in a file's texts."""

_MARK = b"anomem-sha256:"
_DIGITS = 64
_PIECE = 1 << 22

BLANK = _MARK.decode() + "0" * _DIGITS
"""Placeholder text required by :func:`seal`."""


def seal(path: str | Path) -> None:
    """Write the digest of a file in place of `BLANK`."""
    with Path(path).open("r+b") as file:
        place = _place(file)
        if place is None:
            raise ValueError(f"{path} has no place for a digest")
        digest = _digest(file, place)
        file.seek(place)
        file.write(digest)


def check_seal(path: str | Path, *, expected: bool, content: bytes | None = None) -> None:
    """Check a file against its stored digest.

    Parameters
    ----------
    path : str or Path
    expected : bool
        True if the file's texts announce a digest; older files have none.
    content : bytes, optional
        Content of the file, if already read.

    Raises
    ------
    ModelFileError
        The file has changed since it was written.
    """
    with Path(path).open("rb") if content is None else io.BytesIO(content) as file:
        place = _place(file)
        if place is None and not expected:
            return
        if place is not None:
            wanted = _digest(file, place)
            file.seek(place)
            if file.read(_DIGITS) == wanted:
                return
    raise ModelFileError(f"{path}: damaged: its content does not match its digest; copy it again, or save it anew")


def _place(file: BinaryIO) -> int | None:
    """Return the position of the digits."""
    file.seek(0)
    start, overlap = 0, b""
    while piece := file.read(_PIECE):
        text = overlap + piece
        found = text.find(_MARK)
        if found >= 0:
            return start - len(overlap) + found + len(_MARK)
        start, overlap = start + len(piece), text[-len(_MARK) + 1 :]
    return None


def _digest(file: BinaryIO, place: int) -> bytes:
    digest = hashlib.sha256()
    file.seek(0)
    while (room := place - file.tell()) and (piece := file.read(min(_PIECE, room))):
        digest.update(piece)
    digest.update(b"0" * _DIGITS)
    file.seek(place + _DIGITS)
    while piece := file.read(_PIECE):
        digest.update(piece)
    return digest.hexdigest().encode()
