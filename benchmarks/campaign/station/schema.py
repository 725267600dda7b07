"""Requests made from the station's OpenAPI document by schemathesis: answers by status, server errors.

``python -m benchmarks.campaign.station.schema --schemathesis PATH``, half an hour; schemathesis in an environment of
its own, which is no part of the project. The count is the station's own, from its metrics.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import tempfile
import time
from collections import Counter
from pathlib import Path

from benchmarks.campaign.result import write_result
from benchmarks.campaign.station.process import TOKEN, Images, client_of, made_images, served

_STREAM = "/api/v1/events"
_COUNTED = re.compile(r'anomem_http_requests_total\{method="(\w+)",status="(\d+)"\} ([\d.e+]+)')


def attacked(schemathesis: str, images: Images, room: Path, examples: int, seconds: int) -> dict[str, object]:
    """Attack a station with a model, inspections and labels; return the number of answers by status."""
    started = time.monotonic()
    with (
        served(room / "station", "--model", images.model, "--folders", room, log=room / "log") as (process, url),
        client_of(url) as client,
    ):
        files = [("images", (path.name, path.read_bytes())) for path in [*images.good, *images.defects]]
        rows = client.post("/api/v1/models/1/inspections", files=files).raise_for_status().json()
        for row in rows[-3:]:
            client.post(f"/api/v1/inspections/{row['id']}/labels", json={"verdict": "defect"}).raise_for_status()
        command = [schemathesis, "run", f"{url}/api/v1/openapi.json", "--header", f"Authorization: Bearer {TOKEN}"]
        command += ["--checks", "not_a_server_error", "--exclude-path", _STREAM, "--max-examples", str(examples)]
        command += ["--workers", "2", "--continue-on-failure", "--no-shrink", "--no-color", "--seed", "1"]
        command += ["--request-timeout", "60", "--max-time", str(seconds), "--suppress-health-check", "all"]
        ran = subprocess.run(command, cwd=room, capture_output=True, text=True, check=False, timeout=2 * seconds + 600)
        (room / "schemathesis.log").write_text(ran.stdout + ran.stderr, encoding="utf-8")
        statuses: Counter[str] = Counter()
        for _, status, count in _COUNTED.findall(client.get("/metrics").text):
            statuses[status] += int(float(count))
        alive = process.poll() is None and client.get("/readyz").status_code == 200
    return {
        "requests": statuses.total(),
        "statuses": dict(sorted(statuses.items())),
        "server_errors": sum(count for status, count in statuses.items() if status >= "500"),
        "alive_after": alive,
        "seconds": round(time.monotonic() - started),
    }


def main() -> None:
    """Run the attack and write its result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--schemathesis", required=True, metavar="PATH", help="its command")
    parser.add_argument("--examples", type=int, default=400, help="per operation")
    parser.add_argument("--seconds", type=int, default=1500)
    parser.add_argument("--keep", type=Path, help="folder for logs")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="anomem-schema-") as name:
        room = given.keep or Path(name)
        room.mkdir(exist_ok=True)
        images = made_images(room)
        result = attacked(given.schemathesis, images, room, given.examples, given.seconds)
    write_result("station-schema", result, given.out)


if __name__ == "__main__":
    main()
