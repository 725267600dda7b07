"""Reader of videos under damaged files."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from random import Random

import numpy as np

from anomem.data.sources import PathSource
from anomem.data.video import frames
from benchmarks.fuzz.mutations import bytes_of
from benchmarks.fuzz.reader import Reader

__all__ = ["readers"]


def readers(work: Path) -> list[Reader]:
    """Return one reader, which uses a folder of its own below `work`."""
    root = work / "videos"
    root.mkdir()
    seeds = [_clip(root / f"seed.{suffix}", codec) for suffix, codec in (("mp4", "mpeg4"), ("avi", "mjpeg"))]
    return [Reader("video", 3000, partial(_damaged, seeds), partial(_read, root / "t.mp4"))]


def _clip(place: Path, codec: str) -> bytes:
    import av

    with av.open(str(place), "w") as file:
        stream = file.add_stream(codec, rate=5)
        stream.width, stream.height = 32, 16
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for i in range(4):
            frame = av.VideoFrame.from_ndarray(np.full((16, 32, 3), 60 * i, np.uint8), format="rgb24")
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return place.read_bytes()


def _damaged(seeds: list[bytes], rng: Random) -> bytes:
    return bytes_of(rng.choice(seeds), rng, rng.choice(seeds))


def _read(place: Path, content: bytes) -> None:
    place.write_bytes(content)
    for frame in frames(place, 2)[:3]:
        PathSource([frame]).load(0)
