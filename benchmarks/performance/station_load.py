"""Clients of the station's load benchmark, in a process of their own: many connections, one image per request.

Run by `benchmarks.performance.station` as ``python -m benchmarks.performance.station_load``; prints one JSON object.
Every request sends new content, an image file with unique bytes behind its end, so that each is kept and flushed.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import threading
import time
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

_BOUNDARY = "anomem-load"


class Client(threading.Thread):
    """Connection that sends requests until a moment, or until a shared count is used up."""

    def __init__(self, url: str, token: str, images: list[bytes], number: int, end: float, left: itertools.count[int]):
        super().__init__(daemon=True)
        parts = urlsplit(url)
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
        self._headers = {
            "authorization": f"Bearer {token}",
            "content-type": f"multipart/form-data; boundary={_BOUNDARY}",
        }
        self._images, self._number, self._end, self._left = images, number, end, left
        self.seconds: list[tuple[float, float]] = []
        self.statuses: Counter[str] = Counter()

    def run(self) -> None:
        """Send requests one after the other; a refused one waits as long as the answer says."""
        for i in itertools.count():
            if time.monotonic() >= self._end or next(self._left) <= 0:
                return
            image = self._images[(self._number * 7 + i) % len(self._images)]
            body = self._body(image + f"{self._number}-{i}-{time.monotonic_ns()}".encode())
            started = time.monotonic()
            try:
                self._connection.request("POST", "/api/v1/models/1/inspections", body, self._headers)
                answer = self._connection.getresponse()
                answer.read()
            except (OSError, http.client.HTTPException) as error:
                self.statuses[type(error).__name__] += 1
                self._connection.close()
                continue
            self.statuses[str(answer.status)] += 1
            if answer.status == 201:
                self.seconds.append((started, time.monotonic() - started))
            else:
                time.sleep(float(answer.headers.get("retry-after", "1")))

    @staticmethod
    def _body(content: bytes) -> bytes:
        head = f'--{_BOUNDARY}\r\ncontent-disposition: form-data; name="images"; filename="part.jpg"\r\n\r\n'
        return head.encode() + content + f"\r\n--{_BOUNDARY}--\r\n".encode()


def main() -> None:
    """Run the clients and print what they have seen."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("token")
    parser.add_argument("images", type=Path)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=1e9)
    parser.add_argument("--requests", type=int, default=1 << 40)
    given = parser.parse_args()
    images = [path.read_bytes() for path in sorted(given.images.rglob("*.jpg"))]
    started = time.monotonic()
    left = itertools.count(given.requests, -1)
    end = started + given.seconds
    clients = [Client(given.url, given.token, images, i, end, left) for i in range(given.clients)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    every = sorted(entry for client in clients for entry in client.seconds)
    taken = time.monotonic() - started
    found = {
        "images": len(every),
        "per_second": round(len(every) / taken, 2),
        "statuses": dict(sum((client.statuses for client in clients), Counter[str]())),
        "seconds": round(taken, 2),
        "milliseconds": {
            name: round(1e3 * sorted(s for _, s in every)[min(len(every) - 1, int(share * len(every)))], 1)
            for name, share in (("p50", 0.5), ("p99", 0.99))
            if every
        },
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
