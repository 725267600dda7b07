"""Small images and a model of them, made once."""

from __future__ import annotations

import functools
import tarfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from anomem.data.synthetic import crops
from anomem.detectors import get


@functools.cache
def model(folder: Path) -> Path:
    """A file of the fastest model that there is."""
    normals = list(crops("brick", 36, size=16, half="train", rng=np.random.default_rng(0)))
    kind = get("memae")
    path = folder / "model.safetensors"
    kind(**kind.test_params).fit(normals, alpha=0.3, device="cpu").save(path)
    return path


def write_images(folder: Path, n: int) -> list[Path]:
    """Write `n` images; the third is no image."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(n):
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(folder / f"{i:03d}.png")
    (folder / "002.png").write_bytes(b"\x89PNG\r\n\x1a\n, and no more")
    return sorted(folder.iterdir())


def write_tar(path: Path, files: list[Path]) -> bytes:
    stream = BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as file:
        for place in files:
            file.add(place, place.name)
    path.write_bytes(stream.getvalue())
    return stream.getvalue()


def rows_of(run: Path) -> list[dict[str, object]]:
    """All rows of a run, in order."""
    return [row for path in sorted((run / "shards").iterdir()) for row in pq.read_table(path).to_pylist()]


def write_list(path: Path, names: list[str]) -> Path:
    pq.write_table(pa.table({"path": names}), path)
    return path
