"""Watched folders: each file once, complete files only."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

from tests.service.conftest import Shop
from tests.service.served import Served, served


def wait_for(station: Served, count: int) -> list[dict[str, Any]]:
    end = time.monotonic() + 60
    while True:
        items: list[dict[str, Any]] = station.get("/models/1/inspections", limit=100)["items"]
        if len(items) >= count:
            return items
        assert time.monotonic() < end, items
        time.sleep(0.02)


def settle(station: Served) -> None:
    """Wait until two scans have begun and ended."""
    watching = station.station.watching
    wanted, end = watching.scans + 3, time.monotonic() + 60
    while watching.scans < wanted:
        assert time.monotonic() < end, "no scan ends"
        time.sleep(0.01)


def test_files_are_inspected_once_over_restarts_and_again_when_replaced(tmp_path: Path, shop: Shop) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    with served(tmp_path / "s", shop.model, folders=(tmp_path,), poll=0.1) as station:
        station.post("/models/1/watches", {"folder": str(folder), "stratum": "line"}, status=201)
        for path in shop.good[:3]:
            shutil.copy(path, folder / path.name)
        (folder / "notes.txt").write_text("no image")
        (folder / ".hidden.png").write_bytes(shop.good[0].read_bytes())
        items = wait_for(station, 3)
        settle(station)
        assert {item["name"] for item in items} == {path.name for path in shop.good[:3]}
        assert {(item["source"], item["stratum"]) for item in items} == {("watch", "line")}
    with served(tmp_path / "s", folders=(tmp_path,), poll=0.1) as station:
        settle(station)
        shutil.copy(shop.defects[0], folder / shop.good[0].name)
        items = wait_for(station, 4)
        settle(station)
        assert len(station.get("/models/1/inspections")["items"]) == 4
        assert items[0]["name"] == shop.good[0].name


def test_half_written_files_are_waited_for(tmp_path: Path, shop: Shop) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    content = shop.good[0].read_bytes()
    with served(tmp_path / "s", shop.model, folders=(tmp_path,), poll=0.1) as station:
        station.post("/models/1/watches", {"folder": str(folder)}, status=201)
        with (folder / "slow.png").open("wb") as stream:
            stream.write(content[:500])
            stream.flush()
            settle(station)
            assert station.get("/models/1/inspections")["items"] == []
            stream.write(content[500:])
        (item,) = wait_for(station, 1)
        assert item["error"] is None
        original = station.client.get(f"/api/v1/inspections/{item['id']}/original")
        assert original.content == content


def test_only_allowed_folders_are_watched_and_links_are_not_followed(tmp_path: Path, shop: Shop) -> None:
    folder, secret = tmp_path / "in", tmp_path / "secret"
    folder.mkdir()
    secret.mkdir()
    with served(tmp_path / "s", shop.model, folders=(folder,), poll=0.1) as station:
        for name in (str(secret), str(folder / ".." / "secret"), "/"):
            station.post("/models/1/watches", {"folder": name}, status=422)
        shutil.copy(shop.good[0], secret / "a.png")
        (folder / "a.png").symlink_to(secret / "a.png")
        station.post("/models/1/watches", {"folder": str(folder)}, status=201)
        shutil.copy(shop.good[1], folder / "b.png")
        assert [item["name"] for item in wait_for(station, 1)] == ["b.png"]
        settle(station)
        assert len(station.get("/models/1/inspections")["items"]) == 1
