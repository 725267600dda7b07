"""Digest of a whole file inside that file, so that a changed one is noticed.

The file holds a mark and 64 digits; the digits are the SHA-256 of the file with zeros in their place. It notices
damage, not malice: whoever changes a file on purpose can seal it again.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import BinaryIO

from anomem.errors import ModelFileError

__all__ = ["BLANK", "SEAL", "check_seal", "seal"]

SEAL = "seal"
"""Key under which a file's texts hold the mark."""

_MARK = b"anomem-sha256:"
_DIGITS = 64
_PIECE = 1 << 22

BLANK = _MARK.decode() + "0" * _DIGITS
"""Text that a file must hold for :func:`seal`."""


def seal(path: str | Path) -> None:
    """Write the digest of a file into the place that `BLANK` holds free in it."""
    with Path(path).open("r+b") as file:
        place = _place(file)
        if place is None:
            raise ValueError(f"{path} has no place for a digest")
        digest = _digest(file, place)
        file.seek(place)
        file.write(digest)


def check_seal(path: str | Path, *, expected: bool, content: bytes | None = None) -> None:
    """Compare a file with the digest in it.

    Parameters
    ----------
    path : str or Path
    expected : bool
        Whether its texts say that there is one; older files have none.
    content : bytes, optional
        Content of the file, where it has been read already.

    Raises
    ------
    ModelFileError
        The file is not as it was written.
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
    raise ModelFileError(f"{path}: damaged: its content is not what its digest says; copy it again, or save it anew")


def _place(file: BinaryIO) -> int | None:
    """Find where the digits begin."""
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
