"""Sinks: at least once, in order, while the receiver is away, after a restart."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tests.service.conftest import Shop
from tests.service.served import Served, served


class Receiver:
    """Webhook server that answers with a status of the test's choice."""

    def __init__(self, port: int = 0) -> None:
        self.status, self.received = 200, []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                content = json.loads(self.rfile.read(int(self.headers["content-length"])))
                if outer.status == 200:
                    outer.received.append((content["id"], self.headers["idempotency-key"]))
                self.send_response(outer.status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = HTTPServer(("127.0.0.1", port), Handler)
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    found = Receiver()
    yield found
    found.close()


def wait_for(receiver: Receiver, count: int) -> None:
    end = time.monotonic() + 60
    while len(receiver.received) < count:
        assert time.monotonic() < end, receiver.received
        time.sleep(0.05)


def test_results_arrive_in_order_and_failures_are_tried_again(brick: Served, shop: Shop, receiver: Receiver) -> None:
    sink = brick.post(
        "/products/1/sinks", {"kind": "webhook", "target": f"http://127.0.0.1:{receiver.port}/in"}, status=201
    )
    receiver.status = 503
    found = brick.inspect(*shop.good[:3])
    end = time.monotonic() + 30
    while brick.get("/products/1/sinks")[0]["error"] != "answered 503":
        assert time.monotonic() < end
        time.sleep(0.05)
    receiver.status = 200
    found += brick.inspect(*shop.defects[:2])
    wait_for(receiver, 5)
    assert receiver.received == [(answer["id"], f"inspection-{answer['id']}") for answer in found]
    brick.client.patch(f"/api/v1/sinks/{sink['id']}", json={"active": False})
    brick.inspect(shop.good[0])
    assert len(receiver.received) == 5


def test_results_wait_for_the_receiver_over_a_restart(tmp_path: Path, shop: Shop, receiver: Receiver) -> None:
    port = receiver.port
    receiver.status = 500
    with served(tmp_path / "s", shop.model) as station:
        target = {"kind": "webhook", "target": f"http://127.0.0.1:{port}/"}
        station.post("/products/1/sinks", target, status=201)
        ids = [answer["id"] for answer in station.inspect(*shop.good)]
    receiver.status = 200
    with served(tmp_path / "s"):
        wait_for(receiver, 5)
    assert [number for number, _ in receiver.received] == ids


def test_a_folder_receives_one_file_per_result(tmp_path: Path, shop: Shop) -> None:
    allowed, outside = tmp_path / "allowed", tmp_path / "outside"
    (allowed / "results").mkdir(parents=True)
    outside.mkdir()
    with served(tmp_path / "s", shop.model, folders=(allowed,)) as station:
        for target in (outside, allowed / ".." / "outside", "/"):
            body = {"kind": "folder", "target": str(target)}
            assert "--folders" in station.post("/products/1/sinks", body, status=422)["detail"]
        station.post("/products/1/sinks", {"kind": "folder", "target": str(allowed / "results")}, status=201)
        found = station.inspect(*shop.good[:2])
        end = time.monotonic() + 30
        while len(list((allowed / "results").glob("*.json"))) < 2:
            assert time.monotonic() < end
            time.sleep(0.05)
    files = sorted((allowed / "results").glob("*.json"))
    assert [json.loads(file.read_text())["id"] for file in files] == [answer["id"] for answer in found]


@pytest.mark.parametrize(
    "body",
    [
        {"kind": "webhook", "target": "file:///etc/passwd"},
        {"kind": "webhook", "target": "http://"},
        {"kind": "webhook", "target": "http://h/\r\nX: y"},
        {"kind": "webhook", "target": "http://h/", "headers": {"X": "a\r\nb"}},
        {"kind": "carrier pigeon", "target": "http://h/"},
    ],
)
def test_targets_are_checked(still: Served, body: dict[str, object]) -> None:
    still.post("/products/1/sinks", body, status=422)
