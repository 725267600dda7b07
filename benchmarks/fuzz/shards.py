"""Readers of sharded runs under damaged manifests, shard files and tars."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from contextlib import suppress
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from anomem.errors import AnomemError
from anomem.scale.ledger import MANIFEST, Ledger
from anomem.scale.shard import read_finished
from anomem.scale.sources import TarSource
from benchmarks.fuzz.mutations import bytes_of, text_of, tree_of
from benchmarks.fuzz.reader import Reader

__all__ = ["readers"]

_FACTS: dict[str, Any] = {"plan": "a" * 64, "names": 3, "shards": 2, "method": "knn", "alpha": 0.1, "heatmaps": None}


def readers(work: Path) -> list[Reader]:
    """Return the readers, which use a folder of their own below `work`."""
    root = work / "scale"
    root.mkdir()
    return [
        Reader("shards manifest", 3000, _manifest, partial(_ledger, root / "run")),
        Reader("shard file", 2000, partial(_damaged, _shard(root)), partial(_shard_facts, root / "s.parquet")),
        Reader("tar", 4000, partial(_damaged, _tar()), partial(_images, root / "t.tar")),
    ]


def _manifest(rng: Random) -> bytes:
    tree = {"format": 1, **_FACTS}
    return text_of(json.dumps(tree), rng) if rng.random() < 0.3 else json.dumps(tree_of(tree, rng)).encode()


def _ledger(folder: Path, content: bytes) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    (folder / MANIFEST).write_bytes(content)
    Ledger(folder, _FACTS).pending()


def _shard(root: Path) -> bytes:
    from anomem.data.result_table import write_parquet

    facts = {"anomem.shard": json.dumps({"plan": "a" * 64, "shard": 0, "rows": 1, "errors": 0, "anomalous": 0})}
    write_parquet(root / "seed.parquet", [{"path": "a.png", "score": 1.0}], {"path": str, "score": float}, facts)
    return (root / "seed.parquet").read_bytes()


def _shard_facts(place: Path, content: bytes) -> None:
    place.write_bytes(content)
    read_finished(place)


def _tar() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as file:
        for name in ("a/0.ppm", "../1.ppm", "/etc/2.ppm", "é" * 60 + ".ppm", ".h.ppm", "x.txt"):
            entry = tarfile.TarInfo(name)
            entry.size = 23
            file.addfile(entry, io.BytesIO(b"P6 2 2 255\n" + bytes(12)))
        link = tarfile.TarInfo("3.ppm")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        file.addfile(link)
    return stream.getvalue()


def _damaged(seed: bytes, rng: Random) -> bytes:
    return bytes_of(seed, rng, seed)


def _images(place: Path, content: bytes) -> None:
    place.write_bytes(content)
    source = TarSource(place, str(place))
    for i in range(min(len(source), 20)):
        with suppress(AnomemError):
            source.load(i)
