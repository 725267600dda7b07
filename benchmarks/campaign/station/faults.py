"""Faults of the station, counted: kills under load, during refits and upgrades; database away; full disk.

``python -m benchmarks.campaign.station.faults --database sqlite`` and ``--database postgresql``, some twenty minutes
each; PostgreSQL is started by the run, and the full disk needs the right to mount a tmpfs.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sqlite3
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2 as httpx
from sqlalchemy import text

from anomem.service.store.database import Database, database_url
from anomem.service.store.migrating import current_revision, revisions, upgrade
from benchmarks.campaign.result import FOLDER, write_result
from benchmarks.campaign.station.load import Acknowledged, Load, compared
from benchmarks.campaign.station.postgres import Postgres, missing, postgres
from benchmarks.campaign.station.process import Images, client_of, command_of, made_images, served

PARTS = ("kills", "upgrades", "away", "full_disk", "folder_and_webhook")
_AWAY_S = 10.0
_ROWS = 20_000


@dataclass(frozen=True)
class Ground:
    """Place of a run: its folder, images, and the PostgreSQL server or None for SQLite."""

    room: Path
    images: Images
    server: Postgres | None

    def fresh(self, name: str) -> tuple[Path, list[object]]:
        """Return a new station's folder and its options; a PostgreSQL database is emptied."""
        if self.server is None:
            return self.room / name, []
        database = Database(database_url(self.room, self.server.url))
        with database.engine.begin() as connection:
            connection.execute(text("DROP SCHEMA public CASCADE"))
            connection.execute(text("CREATE SCHEMA public"))
        database.close()
        return self.room / name, ["--db", self.server.url]


def kills(ground: Ground, count: int) -> dict[str, Any]:
    """Kill a station under load, in every second turn during a refit; return what is lost and doubled."""
    rng = random.Random(1)
    station, options = ground.fresh("kills")
    images, noted, during = [*ground.images.good, *ground.images.defects], Acknowledged(), Counter[str]()
    for turn in range(count):
        with served(station, "--model", ground.images.model, *options, log=ground.room / "log") as (process, url):
            loads = [Load(url, f"{turn}-{i}", images) for i in range(4)]
            for load in loads:
                load.start()
            with client_of(url) as client:
                _until(lambda loads=loads: sum(len(load.noted.inspections) for load in loads) >= 8)
                if turn % 2:
                    during[_refit(client, ground)] += 1
                time.sleep(rng.uniform(0.0, 1.5))
            process.send_signal(signal.SIGKILL)
            for load in loads:
                load.join(60)
                noted.add(load.noted)
    with served(station, *options, log=ground.room / "log") as (_, url), client_of(url) as client:
        _until(lambda: not _jobs(client, "queued") and not _jobs(client, "running"), 300)
        versions = client.get("/api/v1/models/1/versions").raise_for_status().json()
        jobs = [version["job_id"] for version in versions if version["job_id"] is not None]
        found = compared(client, noted, ground.images.good[0])
        done = len(_jobs(client, "done"))
    state = {"refits_at_kills": dict(during), "jobs_done": done, "versions_doubled": len(jobs) - len(set(jobs))}
    return {"kills": count, **found, **state}


def _refit(client: httpx.Client, ground: Ground) -> str:
    """Label the defects once, start a refit, and return the job's state after a moment."""
    files = [("images", (path.name, path.read_bytes())) for path in ground.images.defects]
    keys = {"key": [f"defect-{i}" for i in range(len(files))]}
    rows = client.post("/api/v1/models/1/inspections", files=files, data=keys).raise_for_status().json()
    for row in rows:
        if row["label"] is None:
            client.post(f"/api/v1/inspections/{row['id']}/labels", json={"verdict": "defect"}).raise_for_status()
    client.post("/api/v1/models/1/refit")  # one may wait already
    _until(lambda: bool(_jobs(client, "running")), 30)
    return "running" if _jobs(client, "running") else "ended"


def _jobs(client: httpx.Client, state: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.get("/api/v1/jobs", params={"state": state}).raise_for_status().json()
    return found


def upgrades(ground: Ground, count: int) -> dict[str, Any]:
    """Kill a station while it upgrades an old database; return the states found after the kills, and the rows."""
    station, options = ground.fresh("upgrades")
    with served(station, "--model", ground.images.model, *options) as _:
        pass  # makes the folder and its files
    station, options = ground.fresh("upgrades")
    database = Database(database_url(station, ground.server.url if ground.server else None))
    if database.file is not None:
        for file in station.glob("station.sqlite*"):
            file.unlink()
    upgrade(database, station / "backups", revisions()[0])
    with database.engine.begin() as connection:
        connection.execute(text("INSERT INTO product (name, note, created) VALUES ('p', '', '2026-01-01')"))
        names = [{"name": f"part {i}", "sha": f"{i:064x}"} for i in range(_ROWS)]
        row = "INSERT INTO image (sha256, size, media, created) VALUES (:sha, 1, 'image/png', '2026-01-01')"
        connection.execute(text(row), names)
    database.close()
    states: Counter[str] = Counter()
    rng, kept = random.Random(2), True
    command = [*command_of(station), *map(str, options)]
    for _ in range(count):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        _until(lambda process=process: process.poll() is not None, rng.uniform(0.6, 3.5), quiet=True)
        process.kill()
        process.wait(60)
        with closing(_Looked(database)) as looked:
            states[looked.revision] += 1
            kept &= looked.rows == _ROWS
            if looked.revision == revisions()[-1]:
                looked.back()
    with served(station, *options) as (_, url), client_of(url) as client:
        ready = client.get("/readyz").status_code
    return {"kills": count, "revisions_found": dict(states), "rows_kept": kept, "ready_after": ready}


class _Looked:
    """Database between two kills."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.revision = current_revision(database) or "none"
        with database.engine.connect() as connection:
            self.rows = connection.execute(text("SELECT count(*) FROM image")).scalar_one()

    def back(self) -> None:
        """Undo the upgrades that an older database would need again."""
        with self._database.engine.begin() as connection:
            for statement in (
                "DROP TABLE normal",
                "DROP INDEX ix_inspection_model_id_name",
                "DROP INDEX ix_inspection_model_id_source_id",
                "DROP INDEX ix_inspection_model_id_version_id_id",
                "DROP INDEX ix_inspection_unreadable",
                *_triggers(self._database.file is None),
                f"UPDATE alembic_version SET version_num = '{revisions()[0]}'",
            ):
                connection.execute(text(statement))

    def close(self) -> None:
        self._database.close()


def _triggers(on_postgresql: bool) -> list[str]:
    if on_postgresql:
        return [f"DROP FUNCTION {table}_append_only() CASCADE" for table in ("audit", "label")]
    return [f"DROP TRIGGER {table}_no_{action}" for table in ("audit", "label") for action in ("update", "delete")]


def away(ground: Ground) -> dict[str, Any]:
    """Take the database away for ten seconds under load; return the answers meanwhile, and the time to recover."""
    station, options = ground.fresh("away")
    with served(station, "--model", ground.images.model, *options, log=ground.room / "log") as (_, url):
        loads = [Load(url, f"a{i}", ground.images.good) for i in range(4)]
        for load in loads:
            load.start()
        with client_of(url) as client:
            _until(lambda: sum(len(load.noted.inspections) for load in loads) >= 20)
            answers: Counter[int] = Counter()
            with _taken(ground, station):
                end = time.monotonic() + _AWAY_S
                while time.monotonic() < end:
                    answers[client.get("/readyz").status_code] += 1
                    time.sleep(0.5)
            started = time.monotonic()
            before = sum(len(load.noted.inspections) for load in loads)
            _until(lambda: sum(len(load.noted.inspections) for load in loads) > before, 60)
            recovered = time.monotonic() - started
            noted = Acknowledged()
            for load in loads:
                load.stop.set()
                load.join(60)
                noted.add(load.noted)
            found = compared(client, noted, ground.images.good[0])
    posts = {str(status): n for status, n in Counter(noted.statuses).items()}
    ready = {str(status): n for status, n in answers.items()}
    return {"seconds_away": _AWAY_S, "posts": posts, "ready": ready, "recovered_s": round(recovered, 2), **found}


@contextmanager
def _taken(ground: Ground, station: Path) -> Iterator[None]:
    """Stop the server, or hold SQLite's exclusive lock."""
    if ground.server is not None:
        ground.server.stop()
        yield
        ground.server.start()
        return
    with closing(sqlite3.connect(station / "station.sqlite", timeout=30, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


def full_disk(ground: Ground) -> dict[str, Any]:
    """Fill the disk of a station; return the answers to uploads and history while it is full, and after."""
    disk = ground.room / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(disk)], check=True, timeout=60)
    try:
        return _filled(ground, disk)
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False, timeout=60)


def _filled(ground: Ground, disk: Path) -> dict[str, Any]:
    _, options = ground.fresh("unused")
    with (
        served(disk / "station", "--model", ground.images.model, *options, log=ground.room / "log") as (_, url),
        client_of(url) as client,
    ):
        before = [_post(client, path) for path in ground.images.good[:3]]
        with suppress(OSError), (disk / "filler").open("wb", buffering=0) as stream:
            while stream.write(bytes(1 << 12)):
                pass
        while_full = [_post(client, path) for path in [*ground.images.good[3:], *ground.images.defects]]
        read = client.get("/api/v1/models/1/inspections")
        (disk / "filler").unlink()
        after = [_post(client, path) for path in ground.images.good[3:6]]
        rows = client.get("/api/v1/models/1/inspections").json()["items"]
        files = [client.get(f"/api/v1/inspections/{row['id']}/original").status_code for row in rows]
    acknowledged = sum(status == 201 for status in [*before, *while_full, *after])
    return {
        "uploads_while_full": _counted(while_full),
        "history_while_full": [read.status_code, len(read.json()["items"])],
        "uploads_after": _counted(after),
        "lost": acknowledged - len(rows),
        "images_lost": sum(status != 200 for status in files),
    }


def _post(client: httpx.Client, path: Path) -> int:
    return client.post("/api/v1/models/1/inspections", files={"images": (path.name, path.read_bytes())}).status_code


def _counted(statuses: list[int]) -> dict[str, int]:
    return {str(status): n for status, n in sorted(Counter(statuses).items())}


class _Receiver(ThreadingHTTPServer):
    """Webhook that answers 503 while it is away, and notes the ids in the order of arrival."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.away, self.ids = False, list[int]()
        threading.Thread(target=self.serve_forever, daemon=True).start()


class _Handler(BaseHTTPRequestHandler):
    server: _Receiver

    def do_POST(self) -> None:
        number = int(self.headers["idempotency-key"].rpartition("-")[2])
        self.rfile.read(int(self.headers["content-length"]))
        if not self.server.away:
            self.server.ids.append(number)
        self.send_response(503 if self.server.away else 204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def folder_and_webhook(ground: Ground, files: int, turns: int) -> dict[str, Any]:
    """Fill a watched folder while the station is killed and the webhook is away; return the counts of both."""
    station, options = ground.fresh("watch")
    folder, receiver = ground.room / "in", _Receiver()
    folder.mkdir()
    options += ["--folders", ground.room]
    content = [path.read_bytes() for path in [*ground.images.good, *ground.images.defects]]
    for turn in range(turns):
        receiver.away = turn % 2 == 1
        with served(station, "--model", ground.images.model, *options, log=ground.room / "log") as (process, url):
            if turn == 0:
                _connect(url, folder, receiver.server_port)
            for i in range(turn * files // turns, (turn + 1) * files // turns):
                (folder / f"{i:04d}.png").write_bytes(content[i % len(content)])
                time.sleep(0.02)
            time.sleep(1.5)
            process.send_signal(signal.SIGKILL)
    receiver.away = False
    with served(station, *options, log=ground.room / "log") as (_, url), client_of(url) as client:
        _until(lambda: _number(client) >= files, 120)
        time.sleep(4)
        rows = client.get("/api/v1/models/1/inspections", params={"limit": 500}).json()["items"]
        ids = sorted(row["id"] for row in rows)
        _until(lambda: set(ids) <= set(receiver.ids), 400)
    receiver.shutdown()
    first = list(dict.fromkeys(receiver.ids))
    names = Counter(row["name"] for row in rows)
    return {
        "files": files,
        "kills": turns,
        "inspected_once": sum(n == 1 for n in names.values()),
        "inspected_again": sum(n > 1 for n in names.values()),
        "missed": files - len(names),
        "webhook_received": len(set(receiver.ids) & set(ids)),
        "webhook_repeated": len(receiver.ids) - len(first),
        "webhook_in_order": first == sorted(first),
    }


def _connect(url: str, folder: Path, port: int) -> None:
    with client_of(url) as client:
        client.post("/api/v1/models/1/watches", json={"folder": str(folder)}).raise_for_status()
        target = {"kind": "webhook", "target": f"http://127.0.0.1:{port}/in"}
        client.post("/api/v1/products/1/sinks", json=target).raise_for_status()


def _number(client: httpx.Client) -> int:
    answer = client.get("/api/v1/models/1/inspections", params={"limit": 500}).raise_for_status()
    return len(answer.json()["items"])


def _until(done: Callable[[], bool], seconds: float = 120, *, quiet: bool = False) -> None:
    end = time.monotonic() + seconds
    while not done():
        if time.monotonic() > end:
            if quiet:
                return
            raise TimeoutError(f"not done after {seconds:g} s")
        time.sleep(0.05)


def main() -> None:
    """Run all faults and write their counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database", choices=("sqlite", "postgresql"), required=True)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--upgrades", type=int, default=20)
    parser.add_argument("--files", type=int, default=200)
    parser.add_argument("--only", nargs="*", choices=PARTS, help="parts; the file keeps the others")
    parser.add_argument("--out", type=Path, default=None)
    given = parser.parse_args()
    reason = missing() if given.database == "postgresql" else None
    if reason is not None:
        raise SystemExit(reason)
    with tempfile.TemporaryDirectory(prefix="anomem-faults-") as name:
        room = Path(name)
        images = made_images(room)
        if given.database == "sqlite":
            _run(Ground(room, images, None), given)
        else:
            with postgres() as server:
                _run(Ground(room, images, server), given)


def _run(ground: Ground, given: argparse.Namespace) -> None:
    """Run the parts, and write the file after each."""
    path = given.out or FOLDER / f"station-faults-{given.database}.json"
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "kills": lambda: kills(ground, given.kills),
        "upgrades": lambda: upgrades(ground, given.upgrades),
        "away": lambda: away(ground),
        "full_disk": lambda: full_disk(ground),
        "folder_and_webhook": lambda: folder_and_webhook(ground, given.files, 5),
    }
    earlier = json.loads(path.read_text("utf-8")) if given.only and path.exists() else {}
    found = {**earlier, "database": given.database}
    for name, run in parts.items():
        if not given.only or name in given.only:
            found[name] = run()
            print(name, found[name], flush=True)
            write_result("station-faults", found, path)


if __name__ == "__main__":
    main()
