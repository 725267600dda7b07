"""Copy of all rows from one database to another, so that a backup is one format whatever keeps the station."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Table, func, insert, select, text

from anomem.errors import InputError
from anomem.service.store.database import Database
from anomem.service.store.migrating import current_revision, revisions
from anomem.service.store.tables import Base

__all__ = ["copy_rows"]

_ROWS = 2000


def copy_rows(source: Database, target: Database) -> None:
    """Copy all rows, as they are at one moment, in one transaction.

    Parameters
    ----------
    source : Database
        It may be in use.
    target : Database
        With the tables of this version, all empty.

    Raises
    ------
    InputError
        The source has other tables than this version, or the target holds rows.
    """
    if current_revision(source) != revisions()[-1]:
        raise InputError(f"{source.url!r}: is not of this version of anomem; serve the station once, which upgrades it")
    tables = Base.metadata.sorted_tables
    with _snapshot(source) as read, target.engine.begin() as write:
        if any(write.scalar(select(func.count()).select_from(table)) for table in tables):
            raise InputError(f"{target.url!r}: holds a station already; name an empty database")
        for table in tables:
            for rows in read.execute(select(table)).mappings().partitions(_ROWS):
                write.execute(insert(table), [dict(row) for row in rows])
            _go_on_counting(write, table)


@contextmanager
def _snapshot(database: Database) -> Iterator[Connection]:
    """Open a connection whose reads all see the same moment, row by row and not all at once."""
    options = {"isolation_level": "REPEATABLE READ"} if database.file is None else {}
    with database.engine.connect() as connection:
        yield connection.execution_options(stream_results=True, yield_per=_ROWS, **options)


def _go_on_counting(connection: Connection, table: Table) -> None:
    """Set the sequence of a PostgreSQL table behind the copied rows; SQLite numbers by itself."""
    if connection.dialect.name != "postgresql" or "id" not in table.c:
        return
    last = connection.scalar(select(func.max(table.c.id)))
    if last is not None:
        name = connection.dialect.identifier_preparer.format_table(table)
        sequence = "SELECT setval(pg_get_serial_sequence(:name, 'id'), :last)"
        connection.execute(text(sequence), {"name": name, "last": last})
