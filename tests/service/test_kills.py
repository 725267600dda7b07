"""Kills: what was acknowledged is there, once."""

from __future__ import annotations

import json
import os
import shutil
import signal
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2 as httpx
import pytest

from tests.cli.process import COMMAND, completed, environment, running
from tests.service.conftest import Shop


@contextmanager
def process(station: Path, *options: object) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run `anomem serve`; killed at the end unless it has ended."""
    command = [*COMMAND, "serve", str(station), "--port", "0", "--json", *map(str, options)]
    with running(command, stderr=None, env=environment()) as station_process:
        line = station_process.stdout.readline()
        assert line, "the station has ended"
        yield station_process, json.loads(line)["url"]


class Load(threading.Thread):
    """Client that posts images under keys of its own until the server is gone."""

    def __init__(self, url: str, number: int, images: list[Path]) -> None:
        super().__init__()
        self.url, self.number, self.images = url, number, images
        self.acknowledged: dict[str, int] = {}
        self.tried: list[str] = []

    def run(self) -> None:
        with httpx.Client(base_url=self.url, timeout=60) as client:
            for i in range(10_000):
                key, image = f"{self.number}-{i}", self.images[i % len(self.images)]
                self.tried.append(key)
                try:
                    answer = client.post(
                        "/api/v1/models/1/inspections",
                        files={"images": (image.name, image.read_bytes())},
                        data={"key": key},
                    )
                except httpx.HTTPError:
                    return
                if answer.status_code == 201:
                    self.acknowledged[key] = answer.json()[0]["id"]


@pytest.mark.slow
@pytest.mark.ci_sample
def test_nothing_acknowledged_is_lost_or_doubled_by_a_kill_under_load(tmp_path: Path, shop: Shop) -> None:
    acknowledged: dict[str, int] = {}
    tried: list[str] = []
    with process(tmp_path / "station", "--model", shop.model) as (station, url):
        loads = [Load(url, i, [*shop.good, *shop.defects]) for i in range(4)]
        for load in loads:
            load.start()
        goal = 20
        while sum(len(load.acknowledged) for load in loads) < goal:
            assert station.poll() is None
            time.sleep(0.02)
        station.send_signal(signal.SIGKILL)
        for load in loads:
            load.join(60)
            acknowledged |= load.acknowledged
            tried += load.tried
    with process(tmp_path / "station") as (station, url), httpx.Client(base_url=url, timeout=60) as client:
        found: dict[int, str] = {}
        before = None
        while True:
            query = {"limit": 500} if before is None else {"limit": 500, "before": before}
            page = client.get("/api/v1/models/1/inspections", params=query).json()
            found |= {item["id"]: item["image_sha256"] for item in page["items"]}
            before = page["before"]
            if before is None:
                break
        assert set(acknowledged.values()) <= found.keys()
        assert len(acknowledged) <= len(found) <= len(tried)
        for key, number in list(acknowledged.items())[:5]:  # sent again, it is the same inspection
            image = shop.good[0]
            answer = client.post(
                "/api/v1/models/1/inspections", files={"images": image.read_bytes()}, data={"key": key}
            )
            assert answer.json()[0]["id"] == number
        for number in found:
            assert client.get(f"/api/v1/inspections/{number}/original").status_code == 200
        station.send_signal(signal.SIGTERM)
        assert station.wait(60) == 128 + signal.SIGTERM


def test_a_station_is_served_by_one_process(tmp_path: Path, shop: Shop) -> None:
    with process(tmp_path / "station"):
        second = completed([*COMMAND, "serve", str(tmp_path / "station"), "--port", "0"], env=environment())
    assert second.returncode == 2
    assert second.stderr.splitlines() == [
        f"anomem: error: {tmp_path / 'station'}: is served by another process; end it first"
    ]


@pytest.mark.slow
def test_certificates_and_a_token_open_the_station_to_other_hosts(tmp_path: Path) -> None:
    openssl = shutil.which("openssl") or pytest.skip("no openssl here to make a certificate")
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    made = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    made += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    completed(made, check=True)
    options = ("--host", "0.0.0.0", "--token", "a token of this test", "--certificate", certificate, "--key", key)
    with process(tmp_path / "station", *options) as (_, url):
        assert url.startswith("https://0.0.0.0:")
        context = ssl.create_default_context(cafile=str(certificate))
        with httpx.Client(base_url=url.replace("0.0.0.0", "127.0.0.1"), verify=context) as client:
            assert client.get("/api/v1/products").status_code == 401
            bearer = {"authorization": "Bearer a token of this test"}
            assert client.get("/api/v1/session", headers=bearer).json()["role"] == "engineer"


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--host", "0.0.0.0"], "--host 0.0.0.0: others could use the station without a user"),
        (["--certificate", "c.pem"], "--certificate: needs --key"),
        (["--db", "mysql://h/d"], "--db: mysql is not supported"),
    ],
)
def test_unsafe_or_unknown_settings_are_one_line(tmp_path: Path, options: list[str], line: str) -> None:
    ran = completed([*COMMAND, "serve", str(tmp_path / "s"), "--port", "0", *options], env=environment())
    assert ran.returncode == 2
    assert ran.stderr.startswith(f"anomem: error: {line}")
    assert len(ran.stderr.splitlines()) == 1
    assert os.listdir(tmp_path) in ([], ["s"])  # noqa: PTH208
