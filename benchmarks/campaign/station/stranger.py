"""A stranger's first verdict: seconds from a clone into an empty folder, by the commands of the documentation.

``python -m benchmarks.campaign.station.stranger``, ten minutes, most of them the download of PyTorch. The steps are
those of the README and of docs/station.md: clone, install with the ``serve`` extra, serve an empty station, add a
product, send good parts, fit, inspect one part. The parts are textures that the installed package makes.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx2 as httpx

from benchmarks.campaign.result import write_result

CHECKOUT = Path(__file__).parents[3]
PARTS = """
import sys
from pathlib import Path
from anomem.data.synthetic import write_textures
write_textures(Path(sys.argv[1]), n_train=60, n_test=4, size=224, seed=0, textures=["brick"])
"""
_LONGEST_S = 3600


class Watch:
    """Seconds per step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Measure a step."""
        started = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - started, 1)
        print(f"{name}: {self.seconds[name]} s", flush=True)


def ran(command: list[str], room: Path) -> str:
    """Run a command as a stranger does: from an empty environment and an empty folder."""
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG") or "PIP" in name}
    done = subprocess.run(command, cwd=room, env=kept, capture_output=True, text=True, check=False, timeout=_LONGEST_S)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stdout}{done.stderr}")
    return done.stdout


def installed(room: Path, watch: Watch) -> Path:
    """Clone and install; return the folder of the environment's programs."""
    programs = room / "venv" / "bin"
    with watch.step("clone"):
        ran(["git", "clone", "--quiet", "--no-hardlinks", str(CHECKOUT), "anomem"], room)
    torch = re.search(r"^TORCH\s*[:?]?=\s*(.+)$", (room / "anomem" / "Makefile").read_text("utf-8"), re.MULTILINE)
    if torch is None:
        raise RuntimeError("Makefile: names no TORCH")
    with watch.step("install"):
        ran([sys.executable, "-m", "venv", "venv"], room)
        pip = [str(programs / "python"), "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
        ran([*pip, *torch.group(1).split()], room)
        ran([*pip, "./anomem/runtime", "./anomem[serve]"], room)
    return programs


@contextmanager
def served(programs: Path, room: Path) -> Iterator[str]:
    """Serve an empty station; yield its URL."""
    command = [str(programs / "anomem"), "serve", "station", "--port", "0", "--json"]
    with subprocess.Popen(command, cwd=room, stdout=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline() if process.stdout is not None else ""
            yield json.loads(line)["url"]
        finally:
            process.terminate()


def judged(url: str, data: Path, watch: Watch) -> dict[str, Any]:
    """Fit to good parts by the interface of the page, and return the first verdict."""
    with httpx.Client(base_url=f"{url}/api/v1", timeout=600) as client:
        with watch.step("good parts sent"):
            client.post("/products", json={"name": "bricks"}).raise_for_status()
            client.post("/products/1/models", json={"name": "bricks", "alpha": 0.05}).raise_for_status()
            for file in sorted((data / "train" / "good").iterdir()):
                client.post("/models/1/normals", files={"images": (file.name, file.read_bytes())}).raise_for_status()
        with watch.step("fit"):
            job = client.post("/models/1/fit", json={}).raise_for_status().json()
            while job["state"] in ("queued", "running"):
                time.sleep(0.2)
                job = client.get(f"/jobs/{job['id']}").raise_for_status().json()
        if job["state"] != "done":
            raise RuntimeError(f"fit: {job['error']}")
        part = next(file for file in sorted((data / "test").rglob("*.png")) if file.parent.name != "good")
        with watch.step("first verdict"):
            answer = client.post("/models/1/inspections", files={"images": (part.name, part.read_bytes())})
    (row,) = answer.raise_for_status().json()
    return {"anomalous": row["anomalous"], "p_value": row["p_value"]}


def main() -> None:
    """Measure, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    watch = Watch()
    with ExitStack() as held:
        room = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="anomem-stranger-")))
        programs = installed(room, watch)
        ran([str(programs / "python"), "-c", PARTS, str(room)], room)
        with watch.step("serve"):
            url = held.enter_context(served(programs, room))
        verdict = judged(url, room / "brick", watch)
        listed = json.loads(ran([str(programs / "python"), "-m", "pip", "list", "--format", "json"], room))
    used = sum(seconds for step, seconds in watch.seconds.items() if step not in ("clone", "install"))
    result = {
        "seconds": watch.seconds,
        "seconds_to_first_verdict": round(sum(watch.seconds.values()), 1),
        "seconds_after_the_install": round(used, 1),
        "packages": len(listed),
        "verdict_on_a_planted_defect": verdict,
    }
    write_result("station-stranger", result, given.out)


if __name__ == "__main__":
    main()
