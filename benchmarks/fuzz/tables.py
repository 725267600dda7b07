"""Readers of tables, annotations, stores, run lines, parameter values and folders under damaged texts."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from PIL import Image

from anomem.benchmark.run_file import RunFile, read_runs
from anomem.benchmark.unit import FORMAT
from anomem.data.annotations import MASK_SUFFIX, read_regions
from anomem.data.sources import read_dataset, read_labels
from anomem.data.store import read_store, store_of
from anomem.detectors import get
from anomem.errors import AnomemError
from anomem.params import describe, parse_assignments
from anomem.report.benchmark.line import run_of
from anomem.runtime.groups import resolve_groups
from anomem.runtime.sources import FileSource
from benchmarks.fuzz.mutations import bytes_of, text_of, tree_of
from benchmarks.fuzz.reader import Reader

__all__ = ["readers"]

_NAMES = ("0.png", "1.png", "sub/2.png", "é 3.png")
_TABLES = (
    "path,label,mask,type,group,split\n0.png,0,,,a,train\n1.png,1,m.png,scratch,,test\nsub/2.png,good,,,b,val\n",
    "path;label\n0.png;ok\n1.png;ng\n",
    'path\tlabel\ttype\n"é 3.png"\tdefect\t"a\nb"\n',
    "path\n0.png\n1.png\n",
)
_CVAT = """<?xml version="1.0" encoding="utf-8"?><annotations><version>1.1</version>
<image id="0" name="0.png" width="28" height="20"><polygon label="scratch" points="1.0,2.0;9.5,2;9,8.25"/>
<mask label="spot" left="2" top="3" width="4" height="2" rle="1,3,2,2"/>
<box label="dent" xtl="1" ytl="2" xbr="5" ybr="9"/></image>
<image id="1" name="sub/2.png" width="28" height="20"><tag label="normal"/></image></annotations>"""
_STUDIO: Any = [
    {
        "id": 1,
        "data": {"image": "/data/upload/1/ab12cd34-0.png"},
        "annotations": [
            {
                "was_cancelled": False,
                "result": [
                    {"value": {"choices": ["defect"]}, "type": "choices"},
                    {
                        "original_width": 28,
                        "original_height": 20,
                        "value": {"points": [[1, 2], [50, 2], [40, 60.5]], "polygonlabels": ["scratch"]},
                    },
                ],
            }
        ],
    },
    {"id": 2, "image": "1.png", "choice": "normal", "annotator": 1},
    {"id": 3, "image": "sub/2.png", "label": [{"polygonlabels": ["dent"], "points": [[1, 1], [9, 1], [5, 9]]}]},
]
_LINE: Any = {
    "format": FORMAT,
    "key": "k",
    "protocol": "localisation",
    "data": "a/b",
    "category": "b",
    "method": "knn",
    "label": "knn",
    "task": {"draw": 1},
    "parameters": {"size": 64},
    "seed": 0,
    "n_test": {"normal": 3, "anomalous": 4},
    "image": {"auroc": 0.9, "auroc_ci": [0.8, 1.0]},
    "pixel": {"auroc": 0.9, "aupro": 0.8},
    "types": {"cut": {"auroc": 0.9}},
    "at_alpha": {"alpha": 0.05, "n_false": 1},
    "roc": {"fpr": [0, 1], "tpr": [0, 1]},
    "made_by": {"cpu": "x"},
    "history": [{"stage": "a", "step": 1}],
    "splits": {"expected": 0.1, "each": [0.1]},
    "trivial": {"mean": {"auroc": 0.5}},
}


def readers(work: Path) -> list[Reader]:
    """Return the readers, which use a folder of their own below `work`."""
    root = work / "tables"
    for name in (*_NAMES, "m.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((20, 28), 127, np.uint8)).save(root / name)
    store = f'path,digest,group\n{root}/0.png,{5:016x},"""a"""\n'
    texts = [json.dumps(_STUDIO), json.dumps(_STUDIO[1:])]
    return [
        Reader("table csv", 6000, partial(_text, _TABLES), partial(_table, root / "t.csv")),
        Reader("table parquet", 4000, _parquet, partial(_table, root / "t.parquet")),
        Reader("annotations cvat", 5000, partial(_text, (_CVAT,)), partial(_regions, root / "cvat.xml")),
        Reader("annotations json", 6000, partial(_json, _STUDIO, texts), partial(_regions, root / "studio.json")),
        Reader("annotations csv", 2000, partial(_text, (_studio_csv(),)), partial(_table, root / "studio.csv")),
        Reader(
            "store",
            3000,
            partial(_text, (store,)),
            partial(_store, root / "m"),
        ),
        Reader("journal", 6000, _journal, partial(_runs, root / "runs.jsonl")),
        Reader("assignments", 6000, _assignment, _assign),
        Reader("groups", 2000, partial(_text, ("(.*)_[0-9]+", "folder", "[^/]+$", "(?:0|1)\\.png")), _groups),
        Reader("folder", 3000, _names, partial(_folder, work / "folder")),
    ]


def _text(seeds: tuple[str, ...], rng: Random) -> bytes:
    return text_of(rng.choice(seeds), rng) if rng.random() < 0.8 else bytes_of(rng.choice(seeds).encode(), rng)


def _json(tree: Any, texts: list[str], rng: Random) -> bytes:
    if rng.random() < 0.3:
        return text_of(rng.choice(texts), rng)
    return json.dumps(tree_of(tree, rng)).encode()


def _studio_csv() -> str:
    stream = io.StringIO()
    table = csv.writer(stream)
    table.writerow(("image", "id", "label", "choice", "annotator"))
    table.writerow(("0.png", 1, json.dumps(_STUDIO[2]["label"]), "", 1))
    table.writerow(("1.png", 2, "", "normal", 1))
    return stream.getvalue()


def _parquet(rng: Random) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns: dict[str, Any] = {"path": list(_NAMES), "label": [0, 1, 0, 1], "group": ["a", None, "b", "c"]}
    if rng.random() < 0.6:
        odd: tuple[Any, ...] = (None, 1.5, "x", b"\xff", True, "é" * 9, "nan")
        name = rng.choice(("path", "label", "mask", "type", "group", "split", ""))
        columns[name] = [rng.choice(odd)] * 4
    stream = io.BytesIO()
    pq.write_table(pa.table(columns), stream)
    return bytes_of(stream.getvalue(), rng) if rng.random() < 0.6 else stream.getvalue()


def _written(place: Path, content: bytes) -> Path:
    place.write_bytes(content)
    return place


def _table(place: Path, content: bytes) -> None:
    _written(place, content)
    _each(lambda: read_dataset(place), lambda: read_labels(place))


def _each(*calls: Callable[[], object]) -> None:
    """Make all calls; an error of anomem in one does not prevent the others."""
    for call in calls[:-1]:
        with suppress(AnomemError):
            call()
    calls[-1]()


def _regions(place: Path, content: bytes) -> None:
    for sample in read_labels(_written(place, content)):
        if sample.mask is not None and sample.mask.suffix == MASK_SUFFIX:
            mask = read_regions(sample.mask, (20, 28))
            if mask.shape != (20, 28) or mask.dtype != bool:
                raise AssertionError(f"regions of shape {mask.shape}")
            read_regions(sample.mask)


def _store(model: Path, content: bytes) -> None:
    _written(store_of(model), content)
    read_store(model, frozenset())


def _journal(rng: Random) -> bytes:
    lines = [json.dumps(tree_of(_LINE, rng) if rng.random() < 0.8 else _LINE) for _ in range(rng.choice((1, 2)))]
    content = ("\n".join(lines) + "\n").encode()
    return content if rng.random() < 0.7 else bytes_of(content, rng)


def _runs(place: Path, content: bytes) -> None:
    _written(place, content)
    _each(partial(_locked, place), lambda: [run_of(line, "runs:1") for line in read_runs(place)])


def _locked(place: Path) -> None:
    with RunFile(place):
        pass


_KEYS = [str(row["name"]) for name in ("anomem", "plume", "padim") for row in describe(get(name))]


def _assignment(rng: Random) -> bytes:
    value = text_of(rng.choice(("1,2,3", "(1, 2)", "[0.5]", "none", "true", "'a'", "1e-3", "auto", "{'a': 1}")), rng)
    content = f"{rng.choice(_KEYS)}=".encode() + value
    return bytes_of(content, rng) if rng.random() < 0.2 else content


def _assign(content: bytes) -> None:
    kind = get(("anomem", "plume", "padim")[len(content) % 3])
    kind(**parse_assignments(kind, [content.decode("utf-8", "surrogateescape")])).resolve()


def _groups(content: bytes) -> None:
    source = FileSource(["a/b_1.png", "a/b_2.png", "c/d.png"])
    for _ in resolve_groups(content.decode("utf-8", "surrogateescape"), source):
        pass


_PARTS = (
    *(
        "train",
        "test",
        "val",
        "good",
        "bad",
        "ok",
        "NG",
        "normal",
        "Anomaly",
        "ground_truth",
        "masks",
        "images",
        "cam1",
    ),
    *(
        "labels",
        "defect",
        "ungut",
        ".hidden",
        "a b",
        "-x",
        "\n",
        "\x1b[31m",
        "é",
        "🧪" * 60,
        "CON",
        "~",
        "%s",
        "{x}",
        "labels.csv",
    ),
)
_FILES = (
    "0.png",
    "1.PNG",
    "0_mask.png",
    "1_GT.png",
    "2.jpg",
    "2.png",
    "x.txt",
    "y",
    "z.tif.part",
    "\udcff.png",
    "t.csv",
    "v.mp4",
)


def _names(rng: Random) -> bytes:
    places = []
    for _ in range(rng.randrange(1, 9)):
        parts = [rng.choice(_PARTS) for _ in range(rng.randrange(4))]
        places.append(
            "/".join([*parts, rng.choice(_FILES)]) + rng.choice(("", "", "", "|link", "|loop", "|empty", "|pipe"))
        )
    return "\0".join(places).encode("utf-8", "surrogateescape")


_PIXELS = [np.random.default_rng(i).integers(0, 256, (6, 8, 3), np.uint8) for i in range(2)]


def _folder(root: Path, content: bytes) -> None:
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    for i, line in enumerate(content.decode("utf-8", "surrogateescape").split("\0")):
        name, _, kind = line.partition("|")
        _put(root / name, kind, _PIXELS[i % 2])
    read_dataset(root)


def _put(place: Path, kind: str, pixels: np.ndarray) -> None:
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        match kind:
            case "link":
                place.symlink_to("0.png")
            case "loop":
                place.symlink_to(".")
            case "empty":
                place.touch()
            case "pipe":
                os.mkfifo(place)
            case _:
                Image.fromarray(pixels).save(place, format="PNG")
    except OSError:  # a file is in the way of a folder, or has this name
        pass
