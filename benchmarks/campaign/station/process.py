"""Served stations of the campaign: `anomem serve` as a process, a small model, and a client."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2 as httpx

import anomem
from anomem.data.synthetic import write_textures

__all__ = ["TOKEN", "Images", "client_of", "command_of", "made_images", "served"]

TOKEN = "token of this run"
_COMMAND = (sys.executable, "-m", "anomem.cli.main", "serve")
_STOP_S = 60


@dataclass(frozen=True)
class Images:
    """Made images, and the smallest model that has learnt from the normals."""

    normals: Sequence[Path]
    good: Sequence[Path]
    defects: Sequence[Path]
    model: Path


def made_images(root: Path, *, size: int = 72, n_train: int = 30, n_test: int = 10) -> Images:
    """Write texture images and a fitted model below a folder."""
    (data,) = write_textures(root, n_train=n_train, n_test=n_test, size=size, seed=0, textures=["brick"])
    normals = sorted((data / "train" / "good").glob("*.png"))
    test = sorted((data / "test").rglob("*.png"))
    good = [path for path in test if path.parent.name == "good"]
    detector = anomem.AnoMem(size=64, memory_size=(16,), memory_share=1).fit(normals, alpha=0.1)
    detector.save(root / "brick.safetensors")
    return Images(normals, good, [path for path in test if path not in good], root / "brick.safetensors")


def command_of(station: Path) -> list[str]:
    """Return the command that serves a station on a free port."""
    return [*_COMMAND, str(station), "--port", "0", "--token", TOKEN, "--rate", "0", "--json"]


@contextmanager
def served(station: Path, *options: object, log: Path | None = None) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run a station on a free port; yield its process and URL, and end it unless it has ended."""
    command = [*command_of(station), *map(str, options)]
    errors = subprocess.DEVNULL if log is None else log.open("ab")
    environment = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment) as process:
        try:
            line = process.stdout.readline() if process.stdout is not None else ""
            if not line:
                raise RuntimeError(f"{station}: the station has ended with {process.wait(_STOP_S)}")
            yield process, json.loads(line)["url"]
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(_STOP_S)
                except subprocess.TimeoutExpired:
                    process.kill()


def client_of(url: str, timeout: float = 60) -> httpx.Client:
    """Return a client with the station's token."""
    return httpx.Client(base_url=url, timeout=timeout, headers={"authorization": f"Bearer {TOKEN}"})
