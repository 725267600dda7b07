"""Load on the inspection station: throughput against `anomem score`, during a fit, memory, and a long history.

64 clients post one new 256-px JPEG image per request over HTTP; station, clients and database share the processor. The
model is the default one as OpenVINO IR, as for the figures of `anomem score`'s path on the same files.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
import warnings
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import httpx2 as httpx
import numpy as np

from benchmarks.campaign.station.process import TOKEN, client_of, served
from benchmarks.common import Bench, Row, isolated, options, start
from benchmarks.performance.exported import FORMS, prepare, runtimes, test_files

LOAD, MEMORY, PAINT, HISTORY = (
    "64 clients, one image per request",
    "Resident memory of the station",
    "First contentful paint in Chromium, milliseconds, median of 5 cold loads",
    "Pages and queue over a long history, milliseconds, median of 15",
)
FORM = "openvino float32"
CHROMIUM = "/usr/bin/chromium"
PAINTED = ("/", "/models/1", "/models/1/review", "/models/1/versions", "/models/1/threshold", "/models/1/history")
PAGES = {
    "review queue (API)": "/api/v1/models/1/queue",
    "review page": "/models/1/review",
    "live page": "/models/1",
    "history page": "/models/1/history",
    "history page, rejected": "/models/1/history?anomalous=true",
    "history page, labelled defect": "/models/1/history?label=defect",
    "history page, unlabelled and rejected": "/models/1/history?label=none&anomalous=true",
    "history page, name": "/models/1/history?name=part%204711",
    "history page, from a day": "/models/1/history?since=2026-06-01",
    "history page, in the middle": "/models/1/history?before=500000",
    "threshold page": "/models/1/threshold",
    "start page": "/",
}


def scored(images: str, models: str, count: int, threads: int) -> dict[str, Any]:
    """Measure images per second of the path of `anomem score`; for a separate process."""
    import anomem

    warnings.simplefilter("ignore")
    model = anomem.load(Path(models) / FORMS[FORM][0])
    files = test_files(Path(images))
    files = (files * (count // len(files) + 1))[:count]
    list(model.score(files[:32]))
    started = time.perf_counter()
    list(model.score(files))
    return {"per_second": round(count / (time.perf_counter() - started), 2), "threads": threads}


def loaded(url: str, images: Path, **given: object) -> dict[str, Any]:
    """Run the clients in a process of their own, and return what they have seen."""
    command = [sys.executable, "-m", "benchmarks.performance.station_load", url, TOKEN, str(images / "test")]
    for name, value in given.items():
        command += [f"--{name}", str(value)]
    ran = subprocess.run(command, check=True, capture_output=True, text=True, timeout=7200)
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


def under_load(images: Path, models: Path, room: Path, *, clients: int, seconds: float, fit: bool) -> dict[str, Any]:
    """Load a fresh station, with `fit` while it fits another version, and return the clients' figures."""
    with served(_fresh(room), "--model", models / FORMS[FORM][0]) as (process, url), client_of(url) as client:
        loaded(url, images, clients=clients, seconds=min(5.0, seconds))
        if fit:
            _start_fit(client, images)
        found = loaded(url, images, clients=clients, seconds=seconds)
        running = client.get("/api/v1/jobs", params={"state": "running"}).json()
        return {**found, "fit_still_runs": bool(running), "resident_mb": round(_resident(process.pid) / 1e6, 1)}


def _start_fit(client: httpx.Client, images: Path) -> None:
    """Add good parts and start a fit that lasts longer than the load."""
    files = sorted((images / "train" / "good").iterdir())
    for place in range(0, len(files), 100):
        content = [("images", (path.name, path.read_bytes())) for path in files[place : place + 100]]
        client.post("/api/v1/models/1/normals", files=content).raise_for_status()
    client.post("/api/v1/models/1/fit", json={}).raise_for_status()
    while not client.get("/api/v1/jobs", params={"state": "running"}).json():
        time.sleep(0.1)


def memory(images: Path, models: Path, room: Path, *, clients: int, requests: int) -> dict[str, Any]:
    """Return the slope of resident memory over requests, after a fifth of them, with its standard error."""
    step = max(1, requests // 20)
    with served(_fresh(room), "--model", models / FORMS[FORM][0]) as (process, url):
        sizes = []
        for _ in range(20):
            loaded(url, images, clients=clients, requests=step)
            time.sleep(0.5)
            sizes.append(_resident(process.pid) / 1e6)
    x, y = step * np.arange(4, 20) / 1000, np.asarray(sizes[4:])
    (slope, offset), covariance = np.polyfit(x, y, 1, cov=True)
    return {
        "requests": 20 * step,
        "megabytes": [round(size, 1) for size in sizes],
        "megabytes_per_1000_requests": round(float(slope), 3),
        "standard_error": round(float(np.sqrt(covariance[0, 0])), 3),
        "at_start": round(float(offset), 1),
    }


def history(images: Path, models: Path, room: Path, rows: int) -> dict[str, Any]:
    """Fill a station's history, and return milliseconds per page."""
    station = _fresh(room)
    with served(station, "--model", models / FORMS[FORM][0]) as (_, url):
        loaded(url, images, clients=4, requests=64)
    _fill(station / "station.sqlite", rows)
    found = {}
    with served(station) as (_, url), client_of(url) as client:
        for name, path in PAGES.items():
            taken = []
            for _ in range(16):
                started = time.perf_counter()
                client.get(path).raise_for_status()
                taken.append(1e3 * (time.perf_counter() - started))
            found[name] = round(statistics.median(taken[1:]), 1)
    return {"rows": rows, "milliseconds": found}


def paint(images: Path, models: Path, room: Path) -> dict[str, Any]:
    """Return milliseconds until a browser with an empty cache shows the first content of a page."""
    from playwright.sync_api import sync_playwright

    found = {}
    with served(_fresh(room), "--model", models / FORMS[FORM][0]) as (_, url), sync_playwright() as run:
        loaded(url, images, clients=4, requests=64)
        browser = run.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        for path in PAINTED:
            taken = []
            for _ in range(5):
                with closing(browser.new_context(extra_http_headers={"authorization": f"Bearer {TOKEN}"})) as context:
                    page = context.new_page()
                    page.goto(url + path, wait_until="load")
                    entry = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
                    while (shown := page.evaluate(entry)) is None:
                        page.wait_for_timeout(20)
                    taken.append(float(shown))
            found[path] = round(statistics.median(taken), 1)
        browser.close()
    return {"milliseconds": found}


def _fill(file: Path, rows: int) -> None:
    """Add inspections of the images that are there; one in a hundred is rejected, one in a thousand labelled."""
    import sqlite3

    rng = np.random.default_rng(0)
    columns = (
        "model_id, version_id, image_sha256, name, source, score, p_value, anomalous, alpha, sampled, label, created"
    )
    with closing(sqlite3.connect(file)) as connection, connection:
        hashes = [row[0] for row in connection.execute("SELECT sha256 FROM image ORDER BY sha256 LIMIT 64")]
        chunk = 50_000
        for first in range(0, rows, chunk):
            p = rng.uniform(size=chunk)
            content = [
                (
                    hashes[i % len(hashes)],
                    f"part {i}.jpg",
                    2 - p[i - first],
                    p[i - first],
                    bool(p[i - first] < 0.01),
                    i % 20 == 0,
                    ("defect" if p[i - first] < 0.01 else "normal") if i % 1000 == 0 else None,
                    f"2026-{1 + i * 11 // rows:02d}-{1 + i % 28:02d} 12:00:00.000000",
                )
                for i in range(first, min(rows, first + chunk))
            ]
            values = "1, 1, ?, ?, 'http', ?, ?, ?, 0.01, ?, ?, ?"
            connection.executemany(f"INSERT INTO inspection ({columns}) VALUES ({values})", content)


def _fresh(room: Path) -> Path:
    """Return the path of a new station."""
    room.mkdir(parents=True, exist_ok=True)
    number = len(list(room.iterdir()))
    while (room / f"station-{number}").exists():
        number += 1
    return room / f"station-{number}"


def _resident(pid: int) -> int:
    """Return the resident memory of a process, bytes."""
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096


def load_rows(bench: Bench, images: Path, models: Path) -> list[Row]:
    """Return throughput of both sides in turns, and of the station during a fit."""
    args, room = bench.args, bench.folder / "stations"
    count = args.limit or 600
    found: dict[str, list[dict[str, Any]]] = {"anomem score": [], "station": [], "station, during a fit": []}
    for turn in range(args.rounds):
        key = {"round": turn, "clients": args.clients, "seconds": args.seconds}
        given = {"clients": args.clients, "seconds": args.seconds}
        found["anomem score"].append(
            bench.unit({"score": FORM, **key}, lambda: isolated(scored, str(images), str(models), count, args.threads))
        )
        for name, fit in (("station", False), ("station, during a fit", True)):
            unit = bench.unit({name: FORM, **key}, partial(under_load, images, models, room, fit=fit, **given))
            found[name].append(unit)
    reference = statistics.fmean(unit["per_second"] for unit in found["anomem score"])
    return [_load_row(name, units, reference) for name, units in found.items()]


def _load_row(name: str, units: list[dict[str, Any]], reference: float) -> Row:
    rate = statistics.fmean(unit["per_second"] for unit in units)
    values: dict[str, Any] = {"images per second": round(rate, 1), "share of anomem score": round(rate / reference, 3)}
    if "statuses" in units[0]:
        statuses: dict[str, int] = {}
        for unit in units:
            for status, number in unit["statuses"].items():
                statuses[status] = statuses.get(status, 0) + number
        values |= {"statuses": statuses, "5xx or cut off": sum(n for status, n in statuses.items() if status >= "5")}
        values |= {key: max(unit["milliseconds"][key] for unit in units) for key in ("p50", "p99")}
        values["fit ran to the end of the load"] = all(unit["fit_still_runs"] for unit in units)
    return Row(LOAD, name, values)


def main() -> None:
    """Measure and write the result file."""
    parser = options(__doc__)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=10_000, help="requests of the memory slope")
    parser.add_argument("--rows", type=int, default=1_000_000, help="inspections of the long history")
    parser.add_argument("--fit-images", type=int, default=400)
    bench = start("station", "Inspection station under load", parser.parse_args())
    args = bench.args
    if args.limit:
        args.seconds, args.rounds, args.requests, args.rows, args.fit_images = 5.0, 1, 200, 20_000, 80
    images, models = prepare(bench, args.fit_images, args.limit or 256)
    room = bench.folder / "stations"
    rows = load_rows(bench, images, models)
    slope = bench.unit(
        {"memory": args.requests},
        lambda: memory(images, models, room, clients=args.clients, requests=args.requests),
    )
    rows.append(Row(MEMORY, f"{slope['requests']:,} requests", {k: v for k, v in slope.items() if k != "requests"}))
    painted = bench.unit({"paint": len(PAINTED)}, lambda: paint(images, models, room))
    rows += [Row(PAINT, path, {"median": ms}) for path, ms in painted["milliseconds"].items()]
    pages = bench.unit({"history": args.rows}, lambda: history(images, models, room, args.rows))
    rows += [Row(HISTORY, f"{name}, {args.rows:,} rows", {"median": ms}) for name, ms in pages["milliseconds"].items()]
    notes = [
        f"{runtimes()}. Model: the default one as {FORM}.",
        "Images: 256-px JPEG, each request a new file, kept and flushed to disk.",
        f"{args.clients} clients in one process of their own on the same processor.",
        f"{args.rounds} rounds of {args.seconds:g} s.",
        "`anomem score`: its scoring path on the same files, after a warm-up.",
        "During a fit: a fit of another version runs in its process from before the load on.",
        "Memory: least squares over the last four fifths of the requests, with its standard error.",
    ]
    bench.write(rows, notes=notes)


if __name__ == "__main__":
    main()
