"""Clients that note what a station has acknowledged, and the comparison with what it holds afterwards."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2 as httpx

from benchmarks.campaign.station.process import client_of

__all__ = ["Acknowledged", "Load", "compared"]


@dataclass
class Acknowledged:
    """Inspection by delivery key, and labels, that the station has answered with success."""

    inspections: dict[str, int] = field(default_factory=dict)
    labels: dict[int, int] = field(default_factory=dict)
    tried: set[str] = field(default_factory=set)
    statuses: list[int] = field(default_factory=list)

    def add(self, other: Acknowledged) -> None:
        """Add what another client has noted."""
        self.inspections |= other.inspections
        self.labels |= other.labels
        self.tried |= other.tried
        self.statuses += other.statuses


class Load(threading.Thread):
    """Client that inspects and labels until the station is gone or `stop` is set.

    Parameters
    ----------
    url : str
    name : str
        Start of its delivery keys.
    images : sequence of Path
    """

    def __init__(self, url: str, name: str, images: Sequence[Path]) -> None:
        super().__init__(daemon=True)
        self._url, self._name, self._images = url, name, images
        self.stop = threading.Event()
        self.noted = Acknowledged()

    def run(self) -> None:
        """Send requests one after the other."""
        with client_of(self._url, timeout=30) as client:
            for i in range(1_000_000):
                if self.stop.is_set():
                    return
                try:
                    self._turn(client, i)
                except httpx.HTTPError:
                    return

    def _turn(self, client: httpx.Client, i: int) -> None:
        key, image = f"{self._name}-{i}", self._images[i % len(self._images)]
        self.noted.tried.add(key)
        files = {"images": (image.name, image.read_bytes())}
        answer = client.post("/api/v1/models/1/inspections", files=files, data={"key": key})
        self.noted.statuses.append(answer.status_code)
        if answer.status_code != 201:
            self.stop.wait(0.2)
            return
        number = answer.json()[0]["id"]
        self.noted.inspections[key] = number
        if i % 5 == 0:
            label = client.post(f"/api/v1/inspections/{number}/labels", json={"verdict": "normal"})
            if label.status_code == 201:
                self.noted.labels[label.json()["id"]] = number


def compared(client: httpx.Client, noted: Acknowledged, image: Path) -> dict[str, Any]:
    """Return what is lost, doubled or unreadable of what was acknowledged."""
    rows = _all_rows(client)
    found = {row["id"] for row in rows}
    again = {}
    for key in noted.inspections:
        files = {"images": (image.name, image.read_bytes())}
        answer = client.post("/api/v1/models/1/inspections", files=files, data={"key": key}).raise_for_status()
        again[key] = answer.json()[0]["id"]
    after = len(_all_rows(client))
    labels: set[int] = set()
    for number in set(noted.labels.values()):
        labels |= {row["id"] for row in client.get(f"/api/v1/inspections/{number}/labels").raise_for_status().json()}
    pictures = [client.get(f"/api/v1/inspections/{number}/original").status_code for number in sorted(found)[::7]]
    return {
        "tried": len(noted.tried),
        "acknowledged": len(noted.inspections),
        "kept": len(rows),
        "lost": len(set(noted.inspections.values()) - found),
        "doubled": sum(again[key] != number for key, number in noted.inspections.items()) + max(0, after - len(rows)),
        "more_than_tried": max(0, len(rows) - len(noted.tried)),
        "labels_acknowledged": len(noted.labels),
        "labels_lost": len(noted.labels.keys() - labels),
        "images_lost": sum(status != 200 for status in pictures),
    }


def _all_rows(client: httpx.Client) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    query: dict[str, Any] = {"limit": 500}
    while True:
        page = client.get("/api/v1/models/1/inspections", params=query).raise_for_status().json()
        found += page["items"]
        if page["before"] is None:
            return found
        query["before"] = page["before"]
