"""Store: upgrades from every revision, backup copies, transactions."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import select, text
from sqlalchemy.exc import IntegrityError

from anomem.errors import InputError
from anomem.service.store.audit import record
from anomem.service.store.database import Database, database_url
from anomem.service.store.migrating import backed_up, current_revision, revisions, upgrade
from anomem.service.store.models import add_product
from anomem.service.store.tables import Base, Product


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return Database(database_url(tmp_path, None))


@pytest.mark.parametrize("start", [None, *revisions()])
def test_every_revision_is_upgraded_to_the_present_tables(
    database: Database, tmp_path: Path, start: str | None
) -> None:
    if start is not None:
        upgrade(database, tmp_path / "backups", start)
        with database.engine.begin() as connection:
            connection.execute(text("INSERT INTO product (name, note, created) VALUES ('caps', '', '2026-01-01')"))
    upgrade(database, tmp_path / "backups")
    assert current_revision(database) == revisions()[-1]
    with database.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
    with database.reading() as session:
        assert [product.name for product in session.scalars(select(Product))] == ([] if start is None else ["caps"])
    database.close()


def test_copies_of_a_database_are_numbered(database: Database, tmp_path: Path) -> None:
    upgrade(database, tmp_path / "backups")
    assert not (tmp_path / "backups").exists()  # there was nothing to lose
    with database.writing() as session:
        add_product(session, "caps")
    for name in ("before-0002.sqlite", "before-0002-2.sqlite"):
        copy = backed_up(tmp_path / "station.sqlite", tmp_path / "backups" / "before-0002.sqlite")
        assert copy.name == name
        with closing(sqlite3.connect(copy)) as connection:
            assert connection.execute("SELECT name FROM product").fetchall() == [("caps",)]
    database.close()


def test_a_database_of_a_later_version_is_refused(database: Database, tmp_path: Path) -> None:
    upgrade(database, tmp_path / "backups")
    with database.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(InputError, match="later version of anomem; update anomem"):
        upgrade(database, tmp_path / "backups")
    database.close()


@pytest.mark.parametrize("statement", ["UPDATE audit SET author = 'x'", "DELETE FROM audit"])
def test_the_audit_is_append_only_in_the_database_itself(database: Database, tmp_path: Path, statement: str) -> None:
    upgrade(database, tmp_path / "backups")
    with database.writing() as session:
        record(session, "eve", "login", "station")
    with pytest.raises(IntegrityError, match="audit: rows are only added"), database.engine.begin() as connection:
        connection.execute(text(statement))
    database.close()


def _add_twice(database: Database) -> None:
    with database.writing() as session:
        add_product(session, "caps")
        session.execute(text("INSERT INTO product (name, note, created) VALUES ('caps', '', '2026-01-01')"))


def test_a_failed_transaction_leaves_nothing(database: Database, tmp_path: Path) -> None:
    upgrade(database, tmp_path / "backups")
    with pytest.raises(IntegrityError):
        _add_twice(database)
    with database.reading() as session:
        assert session.scalars(select(Product)).all() == []
    database.close()


@pytest.mark.parametrize("url", ["mysql://u@h/d", "nonsense", "sqlite://"])
def test_other_databases_are_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(InputError, match="--db: .*postgresql://"):
        database_url(tmp_path, url)
