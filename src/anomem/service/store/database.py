"""Database connection: SQLite in WAL mode by default, PostgreSQL by URL."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, TimeoutError
from sqlalchemy.orm import Session, sessionmaker

from anomem.errors import InputError, MissingExtraError
from anomem.service.errors import StoreAwayError
from anomem.service.folder import DATABASE

__all__ = ["Database", "database_url"]

_BUSY_S = 5.0
"""Time that a connection waits for SQLite's write lock, seconds."""


def database_url(folder: Path, url: str | None) -> URL:
    """Return the URL of the station's database: `url`, or a SQLite file in the folder.

    Raises
    ------
    InputError
        The URL is of another database, or no URL.
    """
    if url is None:
        return URL.create("sqlite", database=str(folder / DATABASE))
    try:
        found = make_url(url)
    except (ArgumentError, ValueError) as error:
        raise InputError("--db: not a database URL; give postgresql://USER:PASSWORD@HOST/NAME") from error
    if found.get_backend_name() == "postgresql":
        return found.set(drivername="postgresql+psycopg")
    if found.get_backend_name() == "sqlite" and found.database:
        return found
    raise InputError(f"--db: {found.get_backend_name()} is not supported; give a postgresql:// or sqlite:/// URL")


class Database:
    """Engine and sessions.

    Parameters
    ----------
    url : URL
        From `database_url`.

    Raises
    ------
    MissingExtraError
        PostgreSQL without psycopg.
    """

    def __init__(self, url: URL) -> None:
        self.url = url
        try:
            self.engine = _engine(url)
        except (ModuleNotFoundError, NoSuchModuleError) as error:
            raise MissingExtraError("psycopg", "postgres") from error
        self._reading = sessionmaker(self.engine, expire_on_commit=False)
        self._writing = sessionmaker(self.engine.execution_options(writes=True), expire_on_commit=False)
        self._writer = threading.Lock() if self.file else nullcontext()

    @property
    def file(self) -> Path | None:
        """SQLite file, or None for PostgreSQL."""
        return Path(str(self.url.database)) if self.url.get_backend_name() == "sqlite" else None

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """Open a session that only reads.

        Raises
        ------
        StoreAwayError
            The database cannot be reached.
        """
        with _told(), self._reading() as session, session.begin():
            yield session

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """Open a session, commit it at the end of the block, roll it back after an error.

        Raises
        ------
        StoreAwayError
            The database cannot be reached or written.
        """
        with self._writer, _told(), self._writing() as session, session.begin():
            yield session

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except TimeoutError as error:
        raise StoreAwayError("database: all connections are in use; try again soon") from error
    except DBAPIError as error:
        if is_away(error):
            raise StoreAwayError("database: cannot be reached or written; try again soon") from error
        raise


def is_away(error: DBAPIError) -> bool:
    """Return True for an error of the database's state and not of a statement: away, locked, disk full."""
    return error.connection_invalidated or type(error.orig).__name__ in (
        "OperationalError",
        "InterfaceError",
        "AdminShutdown",
        "CannotConnectNow",
        "DiskFull",
    )


def _engine(url: URL) -> Engine:
    if url.get_backend_name() != "sqlite":
        return create_engine(url, pool_pre_ping=True, pool_size=8, max_overflow=8, pool_timeout=5)
    engine = create_engine(url, connect_args={"timeout": _BUSY_S}, pool_size=8, max_overflow=16)
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: sqlite3.Connection, _: Any) -> None:
    connection.isolation_level = None  # SQLAlchemy's own BEGIN, which DDL needs too
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", f"busy_timeout={int(_BUSY_S * 1000)}"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Any) -> None:
    # A transaction that reads before it writes would fail without waiting where another one has written in between.
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
