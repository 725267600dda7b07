"""Administration on the machine itself: users and passwords."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from anomem.service.access.users import add_user, reset_password
from anomem.service.folder import StationFolder
from anomem.service.settings import Settings
from anomem.service.store.database import Database, database_url
from anomem.service.store.migrating import upgrade

__all__ = ["new_password", "new_user"]

_AUTHOR = "command line"


def new_user(root: Path, settings: Settings, name: str, role: str, password: str) -> None:
    """Add a user; also while the station is served."""
    with _opened(root, settings) as database, database.writing() as session:
        add_user(session, name, role, password, _AUTHOR)


def new_password(root: Path, settings: Settings, name: str, password: str) -> None:
    """Set a user's password, and end the user's sessions; also while the station is served."""
    with _opened(root, settings) as database, database.writing() as session:
        reset_password(session, name, password, _AUTHOR)


@contextmanager
def _opened(root: Path, settings: Settings) -> Iterator[Database]:
    folder = StationFolder.open(root)
    database = Database(database_url(folder.root, settings.db))
    try:
        upgrade(database, folder.backups)
        yield database
    finally:
        database.close()
