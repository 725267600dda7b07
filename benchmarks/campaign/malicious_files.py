"""Files that attack a reader, by name: each case makes one and returns the call that reads it."""

# ruff: noqa: ARG001, ARG005 - few cases need all that each may need

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import anomem
from anomem.data.official.inside import read_file
from anomem.data.official.records import read_records
from anomem.data.sources import PathSource, read_dataset, read_labels
from anomem.data.synthetic import crops
from anomem.detectors import get
from anomem.nn.backbones import load_backbone
from anomem.params import parse_assignments
from anomem.runtime.groups import resolve_groups
from anomem.runtime.images import decode
from anomem.runtime.limits import MAX_PIXELS, image_bytes
from anomem.runtime.metadata import read_texts, write_texts
from anomem.runtime.seal import seal
from anomem.runtime.sources import FileSource
from anomem.scale.ledger import Ledger
from anomem.scale.plan import write_plan
from anomem.scale.sources import TarSource

__all__ = ["CASES", "MARK", "Seeds", "make_seeds"]

MARK = "pickle-was-opened"

Read = Callable[[], object]
Make = Callable[[Path, "Seeds"], Read]


@dataclass(frozen=True)
class Seeds:
    """Sound files that cases change: a model, its ONNX export, an image."""

    model: Path
    onnx: Path
    png: bytes


def make_seeds(root: Path) -> Seeds:
    """Fit and export a tiny model."""
    normals = list(crops("brick", 36, size=16, half="train", rng=np.random.default_rng(0)))
    kind = get("memae")
    model = kind(**kind.test_params).fit(normals, alpha=0.3, device="cpu")
    model.save(root / "seed.safetensors")
    model.export(root / "seed.onnx")
    return Seeds(root / "seed.safetensors", root / "seed.onnx", _png(4, 4, zlib.compress(bytes(4 * 13))))


class _Opened:
    def __reduce__(self) -> Any:
        return (open, (MARK, "w"))


def _png(width: int, height: int, data: bytes, *more: tuple[bytes, bytes]) -> bytes:
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), *more, (b"IDAT", data), (b"IEND", b"")]
    parts = (struct.pack(">I", len(b)) + k + b + struct.pack(">I", zlib.crc32(k + b)) for k, b in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _image(content: Callable[[Seeds], bytes], name: str = "a.png") -> Make:
    def make(folder: Path, seeds: Seeds) -> Read:
        (folder / name).write_bytes(content(seeds))
        return lambda: PathSource([folder / name]).load(0).shape

    return make


def _special(put: Callable[[Path], object]) -> Make:
    def make(folder: Path, seeds: Seeds) -> Read:
        put(folder / "a.png")
        return lambda: PathSource([folder / "a.png"]).load(0).shape

    return make


def _sparse(place: Path) -> None:
    with place.open("wb") as stream:
        stream.truncate(100 << 30)


def _zip(*entries: tuple[str, bytes], name: str = "a.zip", read: str = "train/good/0.ppm") -> Make:
    def make(folder: Path, seeds: Seeds) -> Read:
        with zipfile.ZipFile(folder / name, "w", zipfile.ZIP_DEFLATED) as file:
            for entry, content in entries:
                file.writestr(entry, content)
        return lambda: (read_dataset(folder / name).describe(), PathSource([folder / name / read]).load(0).shape)

    return make


def _dear(case: Callable[[], Make]) -> Make:
    """Return a case whose content is made only when it is read."""
    return lambda folder, seeds: case()(folder, seeds)  # noqa: PLW0108


def _table(text: str | bytes, name: str = "t.csv") -> Make:
    def make(folder: Path, seeds: Seeds) -> Read:
        (folder / name).write_bytes(text.encode() if isinstance(text, str) else text)
        return lambda: (read_dataset if name.endswith((".csv", ".parquet")) else read_labels)(folder / name)

    return make


def _parquet_bomb(folder: Path, seeds: Seeds) -> Read:
    import pyarrow as pa
    import pyarrow.parquet as pq

    column = pa.DictionaryArray.from_arrays(pa.array([0] * 3_000_000, pa.int32()), pa.array(["x" * 5000]))
    pq.write_table(pa.table({"path": column}), folder / "t.parquet", compression="zstd")
    return lambda: read_dataset(folder / "t.parquet")


def _records(content: bytes, name: str) -> Make:
    def make(folder: Path, seeds: Seeds) -> Read:
        (folder / name).write_bytes(content)
        return lambda: np.asarray(read_records(folder / name)).shape

    return make


def _npy(header: str) -> bytes:
    text = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def _objects() -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.array([_Opened()], dtype=object), allow_pickle=True)
    return stream.getvalue()


def _model(change: Callable[[dict[str, Any]], object]) -> Make:
    """Change the manifest of a model file and seal it again."""

    def make(folder: Path, seeds: Seeds) -> Read:
        content = seeds.model.read_bytes()
        size = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + size])
        manifest = json.loads(header["__metadata__"]["anomem"])
        change(manifest)
        header["__metadata__"]["anomem"] = json.dumps(manifest)
        text = json.dumps(header).encode()
        place = folder / "m.safetensors"
        place.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + size :])
        seal(place)
        return lambda: anomem.load(place).name

    return make


def _raw_model(content: Callable[[Seeds], bytes], name: str = "m.safetensors") -> Make:
    def make(folder: Path, seeds: Seeds) -> Read:
        (folder / name).write_bytes(content(seeds))
        return lambda: anomem.load(folder / name).name

    return make


def _flipped(content: bytes) -> bytes:
    middle = len(content) * 3 // 4
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def _texts(change: Callable[[dict[str, str]], object]) -> Make:
    def make(folder: Path, seeds: Seeds) -> Read:
        texts = read_texts(seeds.onnx)
        change(texts)
        write_texts(seeds.onnx, texts, folder / "m.onnx")
        seal(folder / "m.onnx")
        return lambda: anomem.load(folder / "m.onnx").name

    return make


def _external(location: str) -> Make:
    def make(folder: Path, seeds: Seeds) -> Read:
        import onnx

        network = onnx.load(seeds.onnx)
        weights = network.graph.initializer[0]
        weights.ClearField("raw_data")
        weights.data_location = onnx.TensorProto.EXTERNAL
        weights.external_data.add(key="location", value=location)
        (folder / "m.onnx").write_bytes(network.SerializeToString())
        seal(folder / "m.onnx")
        return lambda: anomem.load(folder / "m.onnx").name

    return make


def _tar(*entries: tarfile.TarInfo, cut: int | None = None) -> Make:
    def make(folder: Path, seeds: Seeds) -> Read:
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w") as file:
            for entry in entries:
                file.addfile(entry, io.BytesIO(seeds.png.ljust(entry.size, b"\0")))
        (folder / "a.tar").write_bytes(stream.getvalue()[:cut])

        def read() -> object:
            source = TarSource(folder / "a.tar", "a.tar")
            return [source.load(i).shape for i in range(len(source))]

        return read

    return make


def _entry(name: str, size: int = 128, **facts: Any) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.size = size
    for key, value in facts.items():
        setattr(entry, key, value)
    return entry


def _manifest(text: str) -> Make:
    def make(folder: Path, seeds: Seeds) -> Read:
        (folder / "manifest.json").write_text(text, encoding="utf-8")
        return lambda: Ledger(folder, {"plan": "x", "shards": 1}).pending()

    return make


def _plan(*sources: str) -> Make:
    return lambda folder, seeds: lambda: write_plan(sources, folder / "plan.parquet", 10, 1)


def _plan_of(content: bytes, name: str) -> Make:
    def make(folder: Path, seeds: Seeds) -> Read:
        (folder / name).write_bytes(content)
        return lambda: write_plan([str(folder / name)], folder / "plan.parquet", 10, 1)

    return make


def _set(*assignments: str) -> Make:
    def read() -> object:
        kind = get("anomem")
        return kind(**parse_assignments(kind, list(assignments))).resolve()

    return lambda folder, seeds: read


def _backbone(name: str) -> Make:
    return lambda folder, seeds: lambda: load_backbone(name, [1], weights="default")


def _load(name: str, content: bytes) -> Make:
    def make(folder: Path, seeds: Seeds) -> Read:
        (folder / name).write_bytes(content)
        return lambda: anomem.load(folder / name)

    return make


def _groups(rule: str, name: str) -> Make:
    return lambda folder, seeds: lambda: list(resolve_groups(rule, FileSource([name])))


_PPM = b"P6 2 2 255\n" + bytes(12)
_TREE = "<annotations>" + "<image>" * 20_000
_LAUGHS = (
    "<!DOCTYPE a [<!ENTITY a '"
    + "x" * 1000
    + "'>"
    + "".join(
        f"<!ENTITY {'b' * (i + 1)} '{'&' + ('b' * i or 'a') + ';'}{'&' + ('b' * i or 'a') + ';'}'>" for i in range(30)
    )
    + f"]><annotations>&{'b' * 30};</annotations>"
)
_FILE_ENTITY = "<!DOCTYPE a [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><annotations>&x;</annotations>"

CASES: dict[str, Make] = {
    "image: 100,000,000 x 1 pixels": _image(lambda s: _png(100_000_000, 1, zlib.compress(bytes(1000)))),
    "image: 60,000 x 60,000 pixels": _image(lambda s: _png(60_000, 60_000, zlib.compress(bytes(1000)))),
    "image: no pixels": _image(lambda s: _png(0, 7, b"")),
    "image: data of a gigabyte": _image(lambda s: _png(9, 9, zlib.compress(bytes(1 << 28)))),
    "image: text of a gigabyte": _image(
        lambda s: _png(4, 4, zlib.compress(bytes(52)), (b"zTXt", b"a\0\0" + zlib.compress(bytes(1 << 28))))
    ),
    "image: cut off": _image(lambda s: s.png[:-20]),
    "image: a pickle": _image(lambda s: pickle.dumps(_Opened())),
    "image: PostScript": _image(lambda s: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) run\n", "a.eps"),
    "image: endless numbers as text": _image(lambda s: b"P3 4000 4000 255\n" + b"1 " * 20_000_000, "a.ppm"),
    "image: TIFF directory that leads to itself": _image(
        lambda s: b"II*\0\x08\0\0\0" + struct.pack("<H", 1) + struct.pack("<HHII", 256, 3, 1, 9) + struct.pack("<I", 8),
        "a.tif",
    ),
    "image: TIFF with 2^32 entries": _image(lambda s: b"II*\0\x08\0\0\0" + b"\xff\xff" + b"\x01" * 500, "a.tif"),
    "place: a pipe": _special(os.mkfifo),
    "place: a link to an endless device": _special(lambda place: place.symlink_to("/dev/zero")),
    "place: a link to itself": _special(lambda place: place.symlink_to(place)),
    "place: 100 GB of nothing": _special(_sparse),
    "place: a folder": _special(lambda place: place.mkdir()),
    "zip: an entry that leads out": _zip(("train/good/0.ppm", _PPM), ("../../evil.ppm", _PPM)),
    "zip: an absolute entry": _zip(("train/good/0.ppm", _PPM), ("/etc/evil.ppm", _PPM)),
    "zip: an entry of two gigabytes": _dear(
        lambda: _zip(("train/good/0.ppm", b"P6 20000 20000 255\n" + bytes(1 << 28)))
    ),
    "zip: no zip": lambda folder, seeds: _bad_zip(folder),
    "zip: cut off": lambda folder, seeds: _cut_zip(folder),
    "tar: a link to /etc/passwd": _tar(_entry("a.png", 0, type=tarfile.SYMTYPE, linkname="/etc/passwd")),
    "tar: a path that leads out": _tar(_entry("../../../etc/evil.png")),
    "tar: a device": _tar(_entry("a.png", 0, type=tarfile.CHRTYPE, devmajor=1, devminor=5)),
    "tar: cut off": _tar(_entry("a.png"), _entry("b.png"), cut=1200),
    "table: a formula as path": _table("path,label\n=cmd|' /C calc'!A0,0\n"),
    "table: a device as path": _table("path\n/dev/zero\n"),
    "table: zero bytes": _table("path,label\n\0\0\0,0\n"),
    "table: 100,000 columns": _table(",".join(f"c{i}" for i in range(100_000)) + "\n"),
    "table: a name of 100,000 characters": _table("path\n" + "a" * 100_000 + ".png\n"),
    "table: one cell of 200 MB": _dear(lambda: _table(b'path\n"' + b"a" * (200 << 20))),
    "table: not text": _table(bytes(range(256)) * 100),
    "table: Parquet of 15 GB in some kB": _parquet_bomb,
    "table: Parquet of noise": _table(b"PAR1" + bytes(range(256)) * 20 + b"PAR1", "t.parquet"),
    "annotations: entities that double": _table(_LAUGHS, "a.xml"),
    "annotations: a file as entity": _table(_FILE_ENTITY, "a.xml"),
    "annotations: 20,000 levels of elements": _table(_TREE, "a.xml"),
    "annotations: 100,000 levels of JSON": _table("[" * 100_000, "a.json"),
    "records: pickled objects": _records(_objects(), "a.npy"),
    "records: an array of 10^18 values": _records(
        _npy("{'descr':'|u1','fortran_order':False,'shape':(10**18,)}"), "a.npy"
    ),
    "records: a header with a call": _records(_npy("{'descr':__import__('os').abort(),'shape':()}"), "a.npy"),
    "records: gzip of a gigabyte": _dear(
        lambda: _records(
            gzip.compress(b"\0\0\x08\x03" + struct.pack(">III", 1, 1 << 14, 1 << 14) + bytes(1 << 28)), "t-ubyte.gz"
        )
    ),
    "model: a pickle": _raw_model(lambda s: pickle.dumps(_Opened()), "m.pt"),
    "model: a pickle named safetensors": _raw_model(lambda s: pickle.dumps(_Opened())),
    "model: a header of 2^60 bytes": _raw_model(lambda s: struct.pack("<Q", 1 << 60) + b"{}"),
    "model: one bit changed": _raw_model(lambda s: _flipped(s.model.read_bytes())),
    "model: cut off": _raw_model(lambda s: s.model.read_bytes()[:-100]),
    "model: unknown arithmetic": _model(lambda m: m["architecture"].update(precision="foo")),
    "model: 50,000 layers": _model(lambda m: m["architecture"].update(channels=[8] * 50_000)),
    "model: unknown method": _model(lambda m: m.update(method="os.system")),
    "model: numbers beyond floats": _model(lambda m: m["calibration"].update(alpha=10**400)),
    "model: no architecture": _model(lambda m: m.pop("architecture")),
    "export: one bit changed": _raw_model(lambda s: _flipped(s.onnx.read_bytes()), "m.onnx"),
    "export: weights in /etc/passwd": _external("/etc/passwd"),
    "export: weights in ../secret": _external("../secret"),
    "export: arrays nested 5,000 levels": _texts(lambda t: t.update(arrays="[" * 5000)),
    "export: manifest of noise": _texts(lambda t: t.update(manifest="{" + "x" * 1000)),
    "export: network of noise": _load("m.onnx", bytes(range(256)) * 40),
    "export: IR with a file as entity": _load("m.xml", _FILE_ENTITY.encode()),
    "export: IR with entities that double": _load("m.xml", _LAUGHS.encode()),
    "set: a call": _set("size=__import__('os').system('touch mark')"),
    "set: 100,000 levels": _set("size=" + "(" * 100_000),
    "set: a number of 100,000 digits": _set("size=" + "9" * 100_000),
    "set: a hub that runs code": _backbone("hf-hub:evil/model"),
    "set: a folder as backbone": _backbone("local-dir:/tmp"),
    "groups: an expression without end": _groups("(", "a.png"),
    "manifest: 100,000 levels": _manifest("[" * 100_000),
    "manifest: 2^70 shards": _manifest('{"plan": "x", "shards": 1180591620717411303424}'),
    "source: an unknown protocol": _plan("evil://x"),
    "source: a Parquet list of noise": _plan_of(b"PAR1" + bytes(range(256)) * 20 + b"PAR1", "list.parquet"),
}
"""Name of each case, and the function that makes its file."""


def _bad_zip(folder: Path) -> Read:
    (folder / "a.zip").write_bytes(b"PK\x03\x04" + bytes(100))
    return lambda: read_file(folder / "a.zip" / "0.png", image_bytes(MAX_PIXELS))


def _cut_zip(folder: Path) -> Read:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        file.writestr("0.ppm", _PPM)
    (folder / "a.zip").write_bytes(stream.getvalue()[:-10])
    return lambda: decode((folder / "a.zip").read_bytes())
