"""Draws docs/images/station/: every page of the inspection station, light, dark, and on a tablet.

Run from the project's root: ``.venv/bin/python docs/pictures_station.py``; needs playwright and Debian's Chromium. The
parts are the shipped photograph of bricks with planted defects. No photograph of a data set is shown.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2 as httpx
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from anomem.data.synthetic import write_textures

TARGET = Path(__file__).parent / "images" / "station"
CHROMIUM = "/usr/bin/chromium"
MODEL = "/models/1"
PAGES = {
    "login": "/login",
    "start": "/",
    "parts": f"{MODEL}/parts",
    "live": MODEL,
    "review": f"{MODEL}/review",
    "versions": f"{MODEL}/versions",
    "comparison": f"{MODEL}/comparisons/3",
    "threshold": f"{MODEL}/threshold",
    "history": f"{MODEL}/history",
    "batch": f"{MODEL}/batch?fdr=0.2",
    "drift": f"{MODEL}/drift",
    "settings": f"{MODEL}/settings",
    "users": "/users",
    "audit": "/audit",
    "station": "/station",
}
VIEWS: dict[str, dict[str, Any]] = {
    "desktop": {"viewport": {"width": 1280, "height": 900}},
    "dark": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "dark"},
    "tablet": {"viewport": {"width": 820, "height": 1180}, "has_touch": True},
}
COLOURS = 96


@contextmanager
def served(station: Path) -> Iterator[str]:
    """Run an empty station, and yield its URL."""
    command = [sys.executable, "-m", "anomem.cli.main", "serve", str(station), "--port", "0", "--json"]
    command += ["--folders", str(station.parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(os.environ)) as process:
        try:
            line = process.stdout.readline() if process.stdout is not None else ""
            yield json.loads(line)["url"]
        finally:
            process.terminate()


def fill(client: httpx.Client, data: Path, folder: Path) -> None:
    """Make a product, fit, inspect, label, refit, and compare; add a watched folder, a receiver and a token."""
    post(client, "/products", {"name": "paving", "note": "Paving bricks, top view"})
    model = {"name": "paving-brick", "alpha": 0.05, "settings": {"sample_every": 3}}
    post(client, "/products/1/models", model)
    send(client, f"{MODEL}/normals", sorted((data / "train" / "good").glob("*.png")))
    job(client, f"{MODEL}/fit", {"set": ["size=128"]})
    test = sorted((data / "test").rglob("*.png"))
    rows = send(client, f"{MODEL}/inspections", test[::2] + test[1::2])
    for row in rows[: len(rows) * 2 // 3]:
        kind = row["name"].partition("/")[0]
        verdict = "normal" if kind == "good" else "defect"
        if verdict == "defect" or row["sampled"]:
            post(
                client,
                f"/inspections/{row['id']}/labels",
                {"verdict": verdict, "type": None if kind == "good" else kind},
            )
    job(client, f"{MODEL}/refit", None)
    job(client, f"{MODEL}/rescore", {"version": 2})
    folder.mkdir()
    post(client, f"{MODEL}/watches", {"folder": str(folder), "stratum": "line 1"})
    post(client, "/products/1/sinks", {"kind": "webhook", "target": "http://127.0.0.1:9/results"})
    post(client, "/tokens", {"name": "line 1", "role": "operator"})


def post(client: httpx.Client, path: str, body: Any) -> Any:
    """Post JSON, and return the answer's."""
    return client.post(f"/api/v1{path}", json=body).raise_for_status().json()


def send(client: httpx.Client, path: str, files: list[Path]) -> Any:
    """Send images under the names of their folders."""
    images = [("images", (f"{file.parent.name}/{file.name}", file.read_bytes())) for file in files]
    return client.post(f"/api/v1{path}", files=images).raise_for_status().json()


def job(client: httpx.Client, path: str, body: Any) -> None:
    """Start a job, and wait for its end."""
    number = post(client, path, body)["id"]
    while (found := client.get(f"/api/v1/jobs/{number}").json())["state"] in ("queued", "running"):
        time.sleep(0.3)
    if found["state"] != "done":
        raise RuntimeError(f"{path}: {found['error']}")


def draw(page: Page, place: str, target: Path) -> None:
    """Write a page as it is shown, with few colours."""
    page.goto(place)
    page.wait_for_load_state("load")
    if "/review" in place:
        page.wait_for_selector("#alike img:nth-of-type(1)")
    page.wait_for_function("[...document.images].filter(i => i.loading != 'lazy').every(i => i.complete)")
    page.wait_for_timeout(400)
    shot = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    shot.quantize(COLOURS, method=Image.Quantize.MEDIANCUT).save(target, optimize=True)


def main() -> None:
    """Draw all pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", type=Path, default=TARGET)
    parser.add_argument("--pages", nargs="*", choices=list(PAGES), default=list(PAGES))
    given = parser.parse_args()
    given.target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="anomem-pictures-") as name:
        room = Path(name)
        (data,) = write_textures(room / "data", n_train=60, n_test=24, size=160, seed=0, textures=["brick"])
        with (
            served(room / "paving") as url,
            httpx.Client(base_url=url, timeout=600) as client,
            sync_playwright() as run,
        ):
            fill(client, data, room / "camera")
            browser = run.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
            for view, options in VIEWS.items():
                page = browser.new_page(base_url=url, bypass_csp=True, **options)  # to wait for images
                page.set_default_timeout(120_000)
                for part in given.pages:
                    draw(page, PAGES[part], given.target / f"{part}-{view}.png")
            browser.close()


if __name__ == "__main__":
    main()
