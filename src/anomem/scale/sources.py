"""Images of a shard: files, entries of zips and URLs by name, or the images of a tar file."""

from __future__ import annotations

import tarfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from anomem.data.sources import PathSource
from anomem.errors import ImageError, InputError, one_line
from anomem.runtime.atomic import scratch
from anomem.runtime.files import open_regular
from anomem.runtime.images import IMAGE_SUFFIXES
from anomem.runtime.limits import image_bytes
from anomem.runtime.pixels import Reading
from anomem.runtime.sources import FileSource
from anomem.scale.remote import fetch, is_url, read_url

__all__ = ["NameSource", "TarSource", "is_tar", "open_shard"]

_MAX_TAR_BYTES = 1 << 50
_BROKEN = (tarfile.TarError, OSError, EOFError, ValueError, OverflowError)


def is_tar(name: str) -> bool:
    """Return True for the name of an uncompressed tar file."""
    return name.lower().endswith(".tar")


class NameSource(PathSource):
    """Images by name: paths, paths into zips and videos, and URLs."""

    def content(self, i: int) -> bytes:
        """Read the bytes of image ``i``; ImageError if it cannot be read or is not an image."""
        name = self.name(i)
        return read_url(name, image_bytes(self.reading.max_pixels)) if is_url(name) else super().content(i)


class TarSource(FileSource):
    """Images of a tar file, in its order; hidden and other files are left out.

    A damaged tar gives the images before the damage, and one entry with its error.

    Parameters
    ----------
    tar : Path
        Uncompressed tar file on the disk.
    label : str
        Name of the tar in results.
    """

    def __init__(self, tar: Path, label: str, reading: Reading | None = None) -> None:
        self._tar, self._label, self._fault = tar, label, ""
        members = list(self._members())
        names = [f"{label}/{name}" for name, _, _ in members]
        self._ranges: list[tuple[int, int] | None] = [(start, size) for _, start, size in members]
        if self._fault:
            names, self._ranges = [*names, label], [*self._ranges, None]
        super().__init__(names, reading)

    def content(self, i: int) -> bytes:
        """Read the bytes of image ``i``."""
        place = self._ranges[i]
        if place is None:
            raise ImageError(self._label, self._fault)
        start, size = place
        limit = image_bytes(self.reading.max_pixels)
        if size > limit:
            raise ImageError(self.name(i), f"{size:,} bytes are more than the limit of {limit:,}; leave it out")
        with open_regular(self._tar, self._label, _MAX_TAR_BYTES) as stream:
            stream.seek(start)
            content = stream.read(size)
        if len(content) < size:
            raise ImageError(self.name(i), "is cut off; copy the tar again")
        return content

    def subset(self, indices: Iterable[int]) -> Self:
        """Select images of the tar."""
        chosen = list(indices)
        found = super().subset(chosen)
        found._ranges = [self._ranges[i] for i in chosen]
        return found

    def _members(self) -> Iterator[tuple[str, int, int]]:
        """Yield name, first byte and size of each image, up to the first damage."""
        try:
            with tarfile.open(self._tar, "r:") as file, self._tar.open("rb") as stream:
                for member in file:
                    name = Path(member.name)
                    if member.isreg() and name.suffix.lower() in IMAGE_SUFFIXES and not name.name.startswith("."):
                        yield member.name, member.offset_data, member.size
                # tarfile ends without an error at a damaged header.
                stream.seek(file.offset)
                if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                    self._fault = "damaged tar (no end mark where its last file ends); copy it again"
        except FileNotFoundError:
            self._fault = "no such file; check the path"
        except _BROKEN as error:
            self._fault = f"damaged tar ({one_line(error, 200)}); copy it again"


@contextmanager
def open_shard(names: list[str], reading: Reading) -> Iterator[FileSource]:
    """Open the images of a shard; a tar at a URL is copied to the temporary folder first."""
    if len(names) != 1 or not is_tar(names[0]):
        yield NameSource(names, reading)
        return
    (tar,) = names
    if not is_url(tar):
        yield TarSource(Path(tar), tar, reading)
        return
    with scratch("shard") as room:
        try:
            fetch(tar, room / "shard.tar")
        except InputError as error:
            yield _Missing(tar, error, reading)
            return
        yield TarSource(room / "shard.tar", tar, reading)


class _Missing(FileSource):
    """One entry with its error."""

    def __init__(self, name: str, error: InputError, reading: Reading) -> None:
        super().__init__([name], reading)
        self._error = error

    def content(self, i: int) -> bytes:
        """Raise the error."""
        raise ImageError(self.name(i), str(self._error).removeprefix(f"{self.name(i)}: "))
