"""MQTT against Debian's broker: at least once, in order, while the broker is away."""

from __future__ import annotations

import json
import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.cli.process import running
from tests.service.conftest import Shop
from tests.service.served import Served

mqtt = pytest.importorskip("paho.mqtt.client", reason="paho-mqtt is not installed")

pytestmark = pytest.mark.slow

_BROKER = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


class Broker:
    """Mosquitto on a port of its own, which keeps sessions over restarts."""

    def __init__(self, root: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._config = root / "mosquitto.conf"
        root.chmod(0o777)  # as root, the broker becomes another user
        lines = [f"listener {self.port} 127.0.0.1", "allow_anonymous true", "persistence true"]
        lines += [f"persistence_location {root}/", "user root"]
        self._config.write_text("\n".join(lines) + "\n", encoding="utf-8")
        self._process = ExitStack()

    def start(self) -> None:
        """Start it, and wait for its port."""
        self._process.enter_context(running([_BROKER, "-c", self._config]))
        end = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                assert time.monotonic() < end, "the broker does not listen"
                time.sleep(0.05)
            else:
                return

    def stop(self) -> None:
        """End it."""
        self._process.close()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    if _BROKER is None:
        pytest.skip("no mosquitto here: apt-get install mosquitto")
    root = tmp_path / "broker"
    root.mkdir()
    found = Broker(root)
    found.start()
    yield found
    found.stop()


class Subscriber:
    """Client with a session that outlasts its connections."""

    def __init__(self, port: int) -> None:
        self.ids: list[int] = []
        self._ready = threading.Event()
        client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="plc", clean_session=False)
        client.reconnect_delay_set(1, 1)
        client.on_connect = lambda client, *_: client.subscribe("line/1", qos=1)
        client.on_subscribe = lambda *_: self._ready.set()
        client.on_message = lambda _, __, message: self.ids.append(json.loads(message.payload)["id"])
        client.connect("127.0.0.1", port)
        client.loop_start()
        assert self._ready.wait(60)
        self.client = client

    def wait_for(self, ids: list[int]) -> None:
        """Wait until all have come."""
        end = time.monotonic() + 120
        while not set(ids) <= set(self.ids):
            assert time.monotonic() < end, (ids, self.ids)
            time.sleep(0.05)


def test_results_arrive_in_order_also_after_the_broker_was_away(brick: Served, shop: Shop, broker: Broker) -> None:
    subscriber = Subscriber(broker.port)
    try:
        target = {"kind": "mqtt", "target": f"mqtt://127.0.0.1:{broker.port}/line/1"}
        brick.post("/products/1/sinks", target, status=201)
        ids = [row["id"] for row in brick.inspect(*shop.good[:3])]
        subscriber.wait_for(ids)
        broker.stop()
        ids += [row["id"] for row in brick.inspect(*shop.defects[:3])]
        end = time.monotonic() + 60
        while brick.get("/products/1/sinks")[0]["error"] is None:
            assert time.monotonic() < end
            time.sleep(0.1)
        broker.start()
        subscriber.wait_for(ids)
        assert list(dict.fromkeys(subscriber.ids)) == ids
        assert brick.get("/products/1/sinks")[0]["error"] is None
    finally:
        subscriber.client.disconnect()
        subscriber.client.loop_stop()
