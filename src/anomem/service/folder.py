"""Folder of a station: database, images by content, versions, jobs, backups, secret."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from anomem.errors import InputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["DATABASE", "MARK", "SECRET", "StationFolder"]

DATABASE, MARK, SECRET = "station.sqlite", "anomem-station", "secret.key"
"""Names of files in the folder."""

_SECRET_BYTES = 32


@dataclass(frozen=True)
class StationFolder:
    """Paths of a station.

    Parameters
    ----------
    root : Path
        Folder given to `anomem serve`.
    """

    root: Path

    @classmethod
    def open(cls, root: Path, *, create: bool = True) -> StationFolder:
        """Create the folder, or open one that a station has made.

        Raises
        ------
        InputError
            A file, a folder with other content, or without `create` no station.
        """
        if not create and not (root / MARK).is_file():
            raise InputError(f"{root}: is not a station; check the path")
        if root.exists() and not root.is_dir():
            raise InputError(f"{root}: is a file; name a folder for the station")
        if root.is_dir() and any(root.iterdir()) and not (root / MARK).is_file():
            raise InputError(f"{root}: is not empty and not a station; name a new folder")
        if not root.exists() and not root.parent.is_dir():
            raise InputError(f"{root}: the folder {root.parent} does not exist; create it first")
        folder = cls(root.resolve())
        folder.root.mkdir(0o700, exist_ok=True)  # images, password hashes
        (folder.root / MARK).touch()
        for part in (folder.images, folder.versions, folder.jobs, folder.backups):
            part.mkdir(exist_ok=True)
        return folder

    @property
    def images(self) -> Path:
        """Image files, by content."""
        return self.root / "images"

    @property
    def versions(self) -> Path:
        """Model files, one folder per version."""
        return self.root / "versions"

    @property
    def jobs(self) -> Path:
        """Working folders of jobs."""
        return self.root / "jobs"

    @property
    def backups(self) -> Path:
        """Copies of the database made before upgrades."""
        return self.root / "backups"

    def secret(self) -> bytes:
        """Return the key that signs sessions; drawn on first use, readable by its owner only."""
        place = self.root / SECRET
        try:
            descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            found = place.read_bytes()
            if len(found) != _SECRET_BYTES:
                raise InputError(f"{place}: damaged; delete it, which ends all sessions") from None
            return found
        with os.fdopen(descriptor, "wb") as stream:
            drawn = secrets.token_bytes(_SECRET_BYTES)
            stream.write(drawn)
        return drawn

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from serving this station until the end of the block or of the process.

        Raises
        ------
        InputError
            Another process serves it.
        """
        if fcntl is None:
            yield
            return
        with (self.root / MARK).open("r+b") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise InputError(f"{self.root}: is served by another process; end it first") from error
            yield
