"""Stations served by real servers, and a client."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2 as httpx
import uvicorn

from anomem.service.api.app import create_app
from anomem.service.running import add_first_model
from anomem.service.settings import Settings
from anomem.service.station import Station

PASSWORD = "a long password"


@dataclass
class Served:
    """Station behind a real server, with a client of this machine."""

    station: Station
    url: str
    client: httpx.Client

    def inspect(self, *files: Path, model: int = 1, **fields: Any) -> list[dict[str, Any]]:
        """Post images, which must be accepted."""
        images = [("images", (file.name, file.read_bytes())) for file in files]
        answer = self.client.post(f"/api/v1/models/{model}/inspections", files=images, data=fields)
        assert answer.status_code == 201, answer.text
        found: list[dict[str, Any]] = answer.json()
        return found

    def get(self, path: str, **query: Any) -> Any:
        """Return an answer's content, which must be a success."""
        answer = self.client.get(f"/api/v1{path}", params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post(self, path: str, body: Any = None, status: int = 200) -> Any:
        """Post JSON, and return the answer's."""
        answer = self.client.post(f"/api/v1{path}", json=body)
        assert answer.status_code == status, answer.text
        return answer.json()


class _Server(uvicorn.Server):
    """Server that ends once it is asked to, without uvicorn's two tenths of a second for clients of slow networks."""

    async def main_loop(self) -> None:
        await self.on_tick(0)
        while not self.should_exit:
            await asyncio.sleep(0.01)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for listener in self.servers:
            listener.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        deadline = time.monotonic() + 1
        while (self.server_state.connections or self.server_state.tasks) and time.monotonic() < deadline:
            await asyncio.sleep(0.002)
        await self.lifespan.shutdown()


@contextmanager
def served(root: Path, model: Path | None = None, *, poll: float = 1, **settings: Any) -> Iterator[Served]:
    """Serve a station in a thread, on a free port; watched folders are scanned every `poll` seconds."""
    station = Station(root, Settings(**settings))
    station.watching.poll = poll
    if model is not None:
        add_first_model(station, model)
    server = _Server(uvicorn.Config(create_app(station), log_level="error"))
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    try:
        while not server.started:
            assert thread.is_alive(), "the server has ended"
            time.sleep(0.01)
        # No certificates to verify: reading them takes longer than all else of a client.
        with httpx.Client(base_url=url, timeout=60, verify=False) as client:
            yield Served(station, url, client)
    finally:
        station.events.close()
        server.should_exit = True
        thread.join()
        listening.close()
