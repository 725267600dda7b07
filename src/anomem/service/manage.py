"""Administration on the machine itself: users, passwords, backup."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from anomem.errors import InputError, one_line
from anomem.runtime.atomic import atomic_path, check_target, scratch, stage
from anomem.service.access.users import add_user, reset_password
from anomem.service.folder import DATABASE, MARK, SECRET, StationFolder
from anomem.service.settings import Settings
from anomem.service.store.copying import copy_rows
from anomem.service.store.database import Database, database_url
from anomem.service.store.migrating import backed_up, upgrade

__all__ = ["back_up", "new_password", "new_user", "restore"]

_AUTHOR = "command line"


def new_user(root: Path, settings: Settings, name: str, role: str, password: str) -> None:
    """Add a user; also while the station is served."""
    with _opened(root, settings) as database, database.writing() as session:
        add_user(session, name, role, password, _AUTHOR)


def new_password(root: Path, settings: Settings, name: str, password: str) -> None:
    """Set a user's password, and end the user's sessions; also while the station is served."""
    with _opened(root, settings) as database, database.writing() as session:
        reset_password(session, name, password, _AUTHOR)


def back_up(root: Path, settings: Settings, target: Path) -> None:
    """Write a station into one file, also while it is served: database, images, versions, key.

    Raises
    ------
    InputError
        There is no station.

    Notes
    -----
    The rows of a PostgreSQL database are written as a SQLite file, so that a backup is restored into either.
    """
    folder = StationFolder.open(root, create=False)
    check_target(target)
    with scratch("backup") as room, atomic_path(target) as part, tarfile.open(part, "w") as archive:
        # The database first: all images that it names are there already.
        archive.add(_database_file(folder, settings, room), DATABASE)
        for name in (MARK, SECRET, folder.images.name, folder.versions.name):
            if (folder.root / name).exists():
                archive.add(folder.root / name, name)


def _database_file(folder: StationFolder, settings: Settings, room: Path) -> Path:
    """Write the database, as it is now, to a SQLite file in `room`."""
    with closing(Database(database_url(folder.root, settings.db))) as database:
        if database.file is not None:
            return backed_up(database.file, room / DATABASE)
        with closing(Database(database_url(room, None))) as copy:
            upgrade(copy, room)
            copy_rows(database, copy)
    return room / DATABASE


def restore(root: Path, settings: Settings, source: Path) -> None:
    """Make a station from a backup; with `settings.db` its rows go to that database, which must be empty.

    Raises
    ------
    InputError
        The folder exists, the database holds a station, or the file is not a backup.
    """
    if root.exists():
        raise InputError(f"{root}: exists; name a new folder")
    if not root.parent.is_dir():
        raise InputError(f"{root}: the folder {root.parent} does not exist; create it first")
    with stage(root.parent.resolve(), root.name) as room:
        try:
            with tarfile.open(source) as archive:
                archive.extractall(room, filter="data")
        except (tarfile.TarError, FileNotFoundError) as error:
            raise InputError(
                f"{source}: is not a backup of a station ({one_line(error)}); name another file"
            ) from error
        if not (room / DATABASE).is_file() or not (room / MARK).is_file():
            raise InputError(f"{source}: is not a backup of a station; name another file")
        if settings.db is not None:
            _moved(room, settings)
        room.rename(root)


def _moved(room: Path, settings: Settings) -> None:
    """Move the rows of an unpacked backup to the database of the settings."""
    with (
        closing(Database(database_url(room, None))) as source,
        closing(Database(database_url(room, settings.db))) as target,
    ):
        for database in (source, target):
            upgrade(database, room / "backups")
        copy_rows(source, target)
    (room / DATABASE).unlink()


@contextmanager
def _opened(root: Path, settings: Settings) -> Iterator[Database]:
    folder = StationFolder.open(root)
    database = Database(database_url(folder.root, settings.db))
    try:
        upgrade(database, folder.backups)
        yield database
    finally:
        database.close()
