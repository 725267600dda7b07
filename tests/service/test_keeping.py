"""Retention, backup and restore."""

from __future__ import annotations

import tarfile
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import update

from anomem.errors import InputError
from anomem.service import images as image_store
from anomem.service.manage import back_up, restore
from anomem.service.settings import Settings
from anomem.service.store.tables import Image, now
from tests.service.conftest import Shop
from tests.service.served import Served, served


def grow_old(station: Served, days: int) -> None:
    with station.station.database.writing() as session:
        session.execute(update(Image).values(created=now() - timedelta(days=days)))


def test_old_images_are_deleted_unless_labelled_or_learnt_from(
    brick: Served, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = brick.inspect(*shop.good[:3])
    brick.post(f"/inspections/{found[0]['id']}/labels", {"verdict": "normal"}, status=201)
    brick.client.post("/api/v1/models/1/normals", files=[("images", (p.name, p.read_bytes())) for p in shop.good[1:2]])
    brick.client.put("/api/v1/retention", json={"days": 30})
    grow_old(brick, 31)
    assert brick.station.retention.apply() == 0  # all were received within the last hour
    monkeypatch.setattr(image_store, "_RECENT_S", 0.0)
    assert brick.station.retention.apply() == 1
    statuses = [brick.client.get(f"/api/v1/inspections/{row['id']}/original").status_code for row in found]
    assert statuses == [200, 200, 404]
    assert len(brick.get("/models/1/inspections")["items"]) == 3
    (again,) = brick.inspect(shop.good[2])
    assert brick.client.get(f"/api/v1/inspections/{again['id']}/original").status_code == 200


def test_images_above_a_size_are_deleted_oldest_first(
    brick: Served, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_store, "_RECENT_S", 0.0)
    found = [brick.inspect(path)[0] for path in shop.good]
    sizes = [path.stat().st_size for path in shop.good]
    with brick.station.database.writing() as session:  # as large as a whole megabyte each
        session.execute(update(Image).values(size=1_000_000))
    assert len(sizes) == 5
    brick.client.put("/api/v1/retention", json={"megabytes": 2})
    assert brick.station.retention.apply() == 3
    statuses = [brick.client.get(f"/api/v1/inspections/{row['id']}/original").status_code for row in found]
    assert statuses == [404, 404, 404, 200, 200]


def test_files_without_a_row_are_deleted_and_masks_are_not(
    brick: Served, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_store, "_RECENT_S", 0.0)
    (found,) = brick.inspect(shop.defects[0])
    body = {"verdict": "defect", "polygons": [[[1, 1], [9, 1], [9, 9]]]}
    mask = brick.post(f"/inspections/{found['id']}/labels", body, status=201)["mask_sha256"]
    orphan = brick.station.images.put(shop.good[0].read_bytes(), "refused later").sha256
    unfinished = brick.station.images.find(orphan).with_name(".cut-off")
    unfinished.write_bytes(b"half")
    assert brick.station.retention.remove_orphans() == 0  # too young
    assert brick.station.retention.remove_orphans(age_s=-10) == 1
    assert brick.station.images.find(orphan) is None
    assert not unfinished.exists()
    assert brick.station.images.find(mask).stat().st_size > 0
    assert brick.station.images.find(found["image_sha256"]).read_bytes() == shop.defects[0].read_bytes()


def test_a_backup_of_a_served_station_is_a_station(tmp_path: Path, shop: Shop) -> None:
    with served(tmp_path / "s", shop.model) as station:
        found = station.inspect(*shop.good[:2])
        back_up(tmp_path / "s", Settings(), tmp_path / "backup.tar")
        station.inspect(shop.defects[0])
    restore(tmp_path / "again", Settings(), tmp_path / "backup.tar")
    with served(tmp_path / "again") as station:
        assert station.get("/models/1/inspections")["items"] == found[::-1]
        (fresh,) = station.inspect(shop.good[0])
        assert fresh["score"] == pytest.approx(found[0]["score"], rel=1e-5)
        assert station.client.get(f"/api/v1/inspections/{found[1]['id']}/original").status_code == 200


def test_other_files_are_no_backups(tmp_path: Path, shop: Shop) -> None:
    with pytest.raises(InputError, match="not a station; check the path"):
        back_up(tmp_path, Settings(), tmp_path / "b.tar")
    with tarfile.open(tmp_path / "other.tar", "w") as archive:
        archive.add(shop.good[0], "../outside.png")
    for file in (shop.good[0], tmp_path / "other.tar", tmp_path / "missing.tar"):
        with pytest.raises(InputError, match="is not a backup"):
            restore(tmp_path / "new", Settings(), file)
        assert not (tmp_path / "new").exists()
    with pytest.raises(InputError, match="exists; name a new folder"):
        restore(tmp_path, Settings(), shop.good[0])
