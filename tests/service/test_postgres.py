"""PostgreSQL: the same tables, the same answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from anomem.errors import InputError
from anomem.service.manage import back_up, restore
from anomem.service.settings import Settings
from anomem.service.store.database import Database, database_url
from anomem.service.store.migrating import current_revision, revisions, upgrade
from anomem.service.store.tables import Base
from tests.service.conftest import Shop
from tests.service.postgres import postgres
from tests.service.served import served

pytest.importorskip("psycopg", reason="psycopg is not installed")


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with postgres() as found:
        yield found


def test_inspections_labels_and_pages_on_postgresql(tmp_path: Path, shop: Shop, url: str) -> None:
    database = Database(database_url(tmp_path, url))
    for revision in revisions():
        upgrade(database, tmp_path / "backups", revision)
        assert current_revision(database) == revision
    with database.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
    with pytest.raises(DBAPIError, match="audit: rows are only added"), database.engine.begin() as connection:
        connection.execute(text("DELETE FROM audit"))
    database.close()
    with served(tmp_path / "s", shop.model, db=url) as station:
        found = station.inspect(*shop.good, *shop.defects, key=[f"part {i}" for i in range(10)])
        again = station.inspect(shop.good[0], key=["part 0"])
        assert again == found[:1]
        station.post(f"/inspections/{found[7]['id']}/labels", {"verdict": "defect"}, status=201)
        page = station.get("/models/1/inspections", limit=4)
        assert [item["id"] for item in page["items"]] == [answer["id"] for answer in found[:5:-1]]
        labelled = station.get("/models/1/inspections", label="defect")["items"]
        assert [item["id"] for item in labelled] == [found[7]["id"]]
        assert station.get("/models/1/inspections", since=found[0]["created"])["items"][-1]["id"] == found[0]["id"]
        assert station.client.get("/readyz").status_code == 200
        assert not (station.station.folder.root / "station.sqlite").exists()


def test_a_backup_is_restored_into_either_database(tmp_path: Path, shop: Shop, url: str) -> None:
    server = Database(database_url(tmp_path, url))
    with server.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for name in ("first", "second"):
            connection.execute(text(f"CREATE DATABASE {name}"))
    server.close()
    first, second = (Settings(db=url.replace("/postgres", f"/{name}")) for name in ("first", "second"))
    with served(tmp_path / "s", shop.model, db=first.db) as station:
        found = station.inspect(*shop.good[:2], shop.defects[0])
        station.post(f"/inspections/{found[2]['id']}/labels", {"verdict": "defect", "comment": "é"}, status=201)
        back_up(tmp_path / "s", first, tmp_path / "backup.tar")
        kept = [station.get(path) for path in ("/models/1/inspections", "/models/1/labels", "/models/1/versions")]
    with pytest.raises(InputError, match="holds a station already; name an empty database"):
        restore(tmp_path / "again", first, tmp_path / "backup.tar")
    assert not (tmp_path / "again").exists()
    for name, settings in (("postgresql", second), ("sqlite", Settings())):
        restore(tmp_path / name, settings, tmp_path / "backup.tar")
        assert (tmp_path / name / "station.sqlite").exists() == (settings.db is None)
        with served(tmp_path / name, db=settings.db) as station:
            again = [station.get(path) for path in ("/models/1/inspections", "/models/1/labels", "/models/1/versions")]
            assert again == kept
            (fresh,) = station.inspect(shop.good[3])
            assert fresh["id"] == found[2]["id"] + 1
            assert station.client.get(f"/api/v1/inspections/{found[2]['id']}/original").status_code == 200
