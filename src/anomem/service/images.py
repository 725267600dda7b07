"""Images of a station: one file per content, checked before it is kept."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from anomem.errors import ImageError
from anomem.service.errors import MissingError, StoreAwayError, TooLargeError

__all__ = ["Images", "Stored", "media_type"]

_RECENT_S = 3600.0
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MEDIA = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"II*\0": "image/tiff",
    b"MM\0*": "image/tiff",
    b"BM": "image/bmp",
    b"GIF8": "image/gif",
    b"P1": "image/x-portable-anymap",
    b"P2": "image/x-portable-anymap",
    b"P3": "image/x-portable-anymap",
    b"P4": "image/x-portable-anymap",
    b"P5": "image/x-portable-anymap",
    b"P6": "image/x-portable-anymap",
}


@dataclass(frozen=True)
class Stored:
    """Image in the store.

    Parameters
    ----------
    sha256 : str
    size : int
        Bytes.
    media : str
        Media type, by content.
    """

    sha256: str
    size: int
    media: str


def media_type(content: bytes) -> str | None:
    """Return the media type of an image file's content; None for any other content.

    Examples
    --------
    >>> media_type(b"BM..."), media_type(b"<svg/>")
    ('image/bmp', None)
    """
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "image/webp"
    return next((media for start, media in _MEDIA.items() if content.startswith(start)), None)


class Images:
    """Store of image files.

    Parameters
    ----------
    root : Path
        Folder of the files.
    max_bytes : int
        Size limit of an image file.
    """

    def __init__(self, root: Path, max_bytes: int) -> None:
        self._root, self.max_bytes = root, max_bytes
        self._lock = threading.Lock()

    def put(self, content: bytes, name: str) -> Stored:
        """Keep an image file, flushed to disk, unless it is there already.

        Raises
        ------
        ImageError
            The content is empty or no image file.
        TooLargeError
            The file is larger than the limit.
        StoreAwayError
            The disk is full or cannot be written.
        """
        if len(content) > self.max_bytes:
            problem = f"{len(content):,} bytes are more than the limit of {self.max_bytes:,}"
            raise TooLargeError(f"{name}: {problem}; shrink it")
        media = media_type(content)
        if media is None:
            raise ImageError(name, "is not an image file; send PNG, JPEG, TIFF, BMP, WebP, GIF or PNM")
        sha256 = hashlib.sha256(content).hexdigest()
        place = self._place(sha256)
        if not self._touched(place):
            self._write(place, content)
        return Stored(sha256, len(content), media)

    def path(self, sha256: str) -> Path:
        """Return the path of a stored image.

        Raises
        ------
        MissingError
            There is none, or retention has removed it.
        """
        place = self.find(sha256)
        if place is None:
            raise MissingError(f"image {sha256[:16]}: is not stored any more; see the station's retention")
        return place

    def find(self, sha256: str) -> Path | None:
        """Return the path of a stored image; None if it is not there."""
        place = self._place(sha256) if _SHA256.fullmatch(sha256) else None
        return place if place is not None and place.is_file() else None

    def read(self, sha256: str) -> bytes:
        """Read a stored image; MissingError if it is not there."""
        return self.path(sha256).read_bytes()

    def remove(self, sha256: str) -> bool:
        """Delete a stored image, and return True, unless it has been received within the last hour."""
        place = self._place(sha256)
        with self._lock, suppress(FileNotFoundError):
            if place.stat().st_mtime > time.time() - _RECENT_S:
                return False
            place.unlink()
        return True

    def older_than(self, age_s: float) -> Iterator[list[str]]:
        """Yield the hashes of images kept longer ago, in lists of those that share their first two digits.

        Unfinished files of that age, which a kill has left, are deleted on the way.
        """
        limit = time.time() - age_s
        for folder in sorted(self._root.iterdir()):
            old = [file for file in folder.iterdir() if file.stat().st_mtime < limit]
            for file in old:
                if file.name.startswith("."):
                    file.unlink()
            yield [file.name for file in old if _SHA256.fullmatch(file.name)]

    def _touched(self, place: Path) -> bool:
        """Return True for an image that is stored; its time is that of now, so that no clean-up removes it."""
        with self._lock, suppress(OSError):
            os.utime(place)
            return True
        return False

    def _place(self, sha256: str) -> Path:
        return self._root / sha256[:2] / sha256

    def _write(self, place: Path, content: bytes) -> None:
        part = place.with_name(f".{place.name[:16]}-{secrets.token_hex(6)}")
        try:
            place.parent.mkdir(exist_ok=True)
            with part.open("wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            part.replace(place)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise StoreAwayError(f"disk: image cannot be kept ({error.strerror}); free space on the station") from error
