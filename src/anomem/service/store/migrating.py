"""Upgrade of the database to this version's tables, after a backup copy."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from anomem.errors import InputError
from anomem.service.errors import StoreAwayError
from anomem.service.store.database import Database, is_away

__all__ = ["backed_up", "current_revision", "revisions", "upgrade"]

_MIGRATIONS = Path(__file__).parent / "migrations"
_LOCK = 0x616E6F6D656D
"""Advisory lock of PostgreSQL, held during an upgrade."""


def revisions() -> list[str]:
    """Return all revisions, oldest first."""
    script = ScriptDirectory.from_config(_config())
    return [found.revision for found in script.walk_revisions()][::-1]


def current_revision(database: Database) -> str | None:
    """Return the revision of the database; None for an empty one."""
    try:
        with database.engine.connect() as connection:
            return MigrationContext.configure(connection).get_current_revision()
    except DBAPIError as error:
        if is_away(error):
            raise StoreAwayError(
                f"{database.url!r}: cannot be opened; check the address, or that the server runs"
            ) from error
        raise


def upgrade(database: Database, backups: Path, target: str = "head") -> Path | None:
    """Upgrade the database in one transaction, and return the backup copy made before.

    Parameters
    ----------
    database : Database
    backups : Path
        Folder for the copy of a SQLite file; of PostgreSQL none is made.
    target : str
        Revision.

    Raises
    ------
    InputError
        The database was written by a later version of anomem.
    """
    before, known = current_revision(database), revisions()
    wanted = known[-1] if target == "head" else target
    if before == wanted:
        return None
    if before is not None and before not in known:
        raise InputError(f"{database.url!r}: was written by a later version of anomem; update anomem")
    copy = None
    if before is not None and database.file is not None:
        copy = backed_up(database.file, backups / f"before-{wanted}.sqlite")
    config = _config()
    with database.engine.begin() as connection:
        _lock(connection)
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, wanted)
        except CommandError as error:
            raise InputError(f"{database.url!r}: cannot be upgraded ({error}); restore a backup") from error
    return copy


def backed_up(file: Path, target: Path) -> Path:
    """Copy a SQLite file that may be in use, and return the copy's path; a number makes it unique."""
    target.parent.mkdir(parents=True, exist_ok=True)
    place, number = target, 2
    while place.exists():
        place, number = target.with_stem(f"{target.stem}-{number}"), number + 1
    part = place.with_suffix(".part")
    with closing(sqlite3.connect(file)) as source, closing(sqlite3.connect(part)) as copy:
        source.backup(copy)
    part.replace(place)
    return place


def _lock(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    return config
