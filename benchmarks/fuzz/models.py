"""Readers of model files, exported files, zips and array files under damaged content that is sealed again."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import zipfile
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

import anomem
from anomem.data.official.inside import read_file
from anomem.data.official.records import read_records, svhn_digits
from anomem.data.official.tree import open_tree
from anomem.data.sources import PathSource
from anomem.data.synthetic import crops
from anomem.detector import Detector
from anomem.detectors import get
from anomem.errors import AnomemError
from anomem.runtime.exported import read_facts
from anomem.runtime.limits import MAX_PIXELS, image_bytes
from anomem.runtime.metadata import read_texts, write_texts
from anomem.runtime.seal import seal
from anomem.runtime.session import Session
from benchmarks.fuzz.mutations import bytes_of, text_of, tree_of
from benchmarks.fuzz.reader import Reader

__all__ = ["readers"]


def readers(work: Path) -> list[Reader]:
    """Return the readers, which use a folder of their own below `work`."""
    root = work / "models"
    root.mkdir()
    model, onnx, ir = _seeds(root)
    return [
        Reader("model file", 5000, partial(_model, model.read_bytes()), partial(_load, root / "t.safetensors")),
        Reader("onnx facts", 4000, partial(_exported, onnx, root / "made.onnx"), partial(_facts, root / "t.onnx")),
        Reader("onnx network", 1000, partial(_bytes, [onnx.read_bytes()]), partial(_network, root / "t.onnx")),
        Reader("ir facts", 500, partial(_exported, ir, root / "made.xml"), partial(_facts_of_ir, ir, root / "t.xml")),
        Reader("ir network", 100, partial(_bytes, [ir.read_bytes()]), partial(_network_of_ir, ir, root / "t.xml")),
        Reader("zip", 5000, partial(_zip, _zipped()), partial(_unzip, root / "t.zip")),
        Reader("arrays", 6000, partial(_tagged, _arrays()), partial(_records, root)),
    ]


def _seeds(root: Path) -> tuple[Path, Path, Path]:
    small, mapped = _fitted("memae"), _fitted("padim")
    small.save(root / "seed.safetensors")
    small.export(root / "seed.onnx")
    mapped.export(root / "seed.xml")
    return root / "seed.safetensors", root / "seed.onnx", root / "seed.xml"


def _fitted(method: str) -> Detector:
    normals = list(crops("brick", 36, size=16, half="train", rng=np.random.default_rng(0)))
    kind = get(method)
    return kind(**kind.test_params).fit(normals, alpha=0.3, device="cpu", groups=[i // 2 for i in range(36)])


def _sealed(place: Path) -> None:
    with suppress(ValueError):  # the place of the digest may be damaged
        seal(place)


def _model(content: bytes, rng: Random) -> bytes:
    """Damage a model file: its manifest, the table of its tensors, or any byte."""
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    draw = rng.random()
    if draw < 0.2:
        return bytes_of(content, rng)
    if draw < 0.75:
        manifest = json.loads(header["__metadata__"]["anomem"])
        header["__metadata__"]["anomem"] = json.dumps(tree_of(manifest, rng))
    elif draw < 0.95:
        table = {name: entry for name, entry in header.items() if name != "__metadata__"}
        header = {"__metadata__": header["__metadata__"], **tree_of(table, rng)}
    else:
        header["__metadata__"] = tree_of(header["__metadata__"], rng)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + content[8 + size :]


def _load(place: Path, content: bytes) -> None:
    place.write_bytes(content)
    _sealed(place)
    model = anomem.load(place)
    model.p_value([np.full((16, 16, 3), 127, np.uint8)])


def _exported(seed: Path, made: Path, rng: Random) -> bytes:
    """Damage the texts of an exported file, or any byte."""
    if rng.random() < 0.2:
        return bytes_of(seed.read_bytes(), rng)
    texts = read_texts(seed)
    name = rng.choice(("manifest", "manifest", "arrays", "arrays", "weights", "manifest"))
    if name in texts and name != "weights" and rng.random() < 0.9:
        texts[name] = json.dumps(tree_of(json.loads(texts[name]), rng))
    else:
        texts[name] = text_of(texts.get(name, "x")[:5000], rng).decode("utf-8", "replace")
    try:
        write_texts(seed, texts, made)
    except (UnicodeEncodeError, ValueError):  # a text that no file can hold
        return bytes_of(seed.read_bytes(), rng)
    return made.read_bytes()


def _facts(place: Path, content: bytes) -> None:
    place.write_bytes(content)
    _sealed(place)
    read_facts(place)


def _network(place: Path, content: bytes) -> None:
    place.write_bytes(content)
    _sealed(place)
    Session.open(place, engine="onnxruntime", threads=1)


def _facts_of_ir(seed: Path, place: Path, content: bytes) -> None:
    shutil.copy(seed.with_suffix(".bin"), place.with_suffix(".bin"))
    _facts(place, content)


def _network_of_ir(seed: Path, place: Path, content: bytes) -> None:
    shutil.copy(seed.with_suffix(".bin"), place.with_suffix(".bin"))
    place.write_bytes(content)
    _sealed(place)
    Session.open(place, threads=1)


def _bytes(seeds: list[bytes], rng: Random) -> bytes:
    return bytes_of(rng.choice(seeds), rng, rng.choice(seeds))


def _zipped() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as file:
        for name in ("train/good/0.ppm", "test/bad/1.ppm", "../x.ppm", "/abs.ppm", "a\\b.ppm", "é/.h.ppm"):
            file.writestr(name, b"P6 2 2 255\n" + bytes(12))
        array = io.BytesIO()
        np.save(array, np.zeros((3, 4, 4), np.uint8))
        file.writestr("x.npy", array.getvalue())
    return stream.getvalue()


def _zip(content: bytes, rng: Random) -> bytes:
    """Damage a zip at its directory, which is at the end, or anywhere."""
    if rng.random() < 0.5:
        return bytes_of(content, rng)
    start = content.index(b"PK\x01\x02")
    return content[:start] + bytes_of(content[start:], rng)


def _unzip(place: Path, content: bytes) -> None:
    place.write_bytes(content)
    tree = open_tree(place, "give a zip")
    _, files = tree.listing("train/good")
    for name in (*(f"train/good/{file}" for file in files), "test/bad/1.ppm", "x.npy/00001.pgm"):
        with suppress(AnomemError):
            read_file(place / name, image_bytes(MAX_PIXELS))
            PathSource([place / name]).load(0)


def _arrays() -> list[tuple[int, bytes]]:
    """Return seeds, each with the number of its file name in `_ARRAY_NAMES`."""
    from scipy.io import savemat

    numpy_file, mat = io.BytesIO(), io.BytesIO()
    np.save(numpy_file, np.zeros((3, 4, 4), np.uint8))
    savemat(mat, {"X": np.zeros((4, 4, 3, 2), np.uint8), "y": np.ones((2, 1), np.uint8)})
    idx = b"\0\0\x08\x03" + b"".join(n.to_bytes(4, "big") for n in (2, 3, 3)) + bytes(18)
    return [(0, numpy_file.getvalue()), (1, idx), (2, gzip.compress(idx)), (3, bytes(3073 * 2)), (4, mat.getvalue())]


_ARRAY_NAMES = ("t.npy", "t-ubyte", "t-ubyte.gz", "t.bin", "t.mat")


def _tagged(seeds: list[tuple[int, bytes]], rng: Random) -> bytes:
    number, content = rng.choice(seeds)
    return bytes([number]) + bytes_of(content, rng)


def _records(root: Path, content: bytes) -> None:
    place = root / _ARRAY_NAMES[content[0] % len(_ARRAY_NAMES)]
    place.write_bytes(content[1:])
    read: Callable[[Path], Any] = svhn_digits if place.suffix == ".mat" and len(content) % 2 else read_records
    np.asarray(read(place)).sum()
