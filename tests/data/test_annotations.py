"""Exports of annotation tools as tables of labels."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from anomem.data import annotations
from anomem.data.corpus import read_corpus
from anomem.data.official.inside import read_mask
from anomem.data.tables import read_labels, read_table
from anomem.errors import ImageError, InputError
from anomem.runtime.progress import run_to_end
from anomem.types import ANOMALOUS, NORMAL, UNKNOWN

WIDTH, HEIGHT = 40, 20


def pictures(folder: Path, *names: str) -> None:
    for i, name in enumerate(names):
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (WIDTH, HEIGHT), (i, i, i)).save(place)


def choice(*words: str) -> dict[str, Any]:
    return {
        "value": {"choices": list(words)},
        "id": "h5Ik8ZGcPC",
        "from_name": "choice",
        "to_name": "image",
        "type": "choices",
        "origin": "manual",
    }


def polygon(word: str, *corners: Sequence[float]) -> dict[str, Any]:
    return {
        "original_width": WIDTH,
        "original_height": HEIGHT,
        "image_rotation": 0,
        "value": {"points": [list(corner) for corner in corners], "closed": True, "polygonlabels": [word]},
        "from_name": "label",
        "to_name": "image",
        "type": "polygonlabels",
    }


def task(number: int, image: str, *results: dict[str, Any], **facts: Any) -> dict[str, Any]:
    annotation = {"id": number, "completed_by": 1, "result": list(results), "was_cancelled": False, **facts}
    return {"id": number, "annotations": [annotation], "data": {"image": image}, "predictions": []}


def written(place: Path, content: Any) -> Path:
    place.write_text(content if isinstance(content, str) else json.dumps(content))
    return place


# --- Label Studio -----------------------------------------------------------------------------

UPLOADED = "/data/upload/1/0a1b2c3d-a.png"
SQUARE = [(25, 20), (75, 20), (75, 60), (25, 60)]


def test_label_studio_tasks_become_labels(tmp_path: Path) -> None:
    pictures(tmp_path, "a.png", "images/0a1b2c3d-b.png", "line 1/c.png", "d.png", "e.png", "f.png")
    export = written(
        tmp_path / "labels.json",
        [
            task(1, UPLOADED, choice("good")),
            task(2, "/data/upload/1/0a1b2c3d-b.png", choice("burr")),
            task(3, "/data/local-files/?d=station/line%201/c.png", polygon("Scratch", *SQUARE)),
            task(4, "s3://bucket/parts/d.png", choice("ng")),
            task(5, "https://host.example/x/e.png?token=1"),
            {**task(6, "f.png", choice("ng"), was_cancelled=True)},
        ],
    )
    samples = read_labels(export)
    assert [sample.label for sample in samples] == [NORMAL, ANOMALOUS, ANOMALOUS, ANOMALOUS, UNKNOWN, UNKNOWN]
    assert [sample.type for sample in samples] == [None, "burr", "Scratch", None, None, None]
    assert [sample.path.relative_to(tmp_path).as_posix() for sample in samples] == [
        "a.png",
        "images/0a1b2c3d-b.png",
        "line 1/c.png",
        "d.png",
        "e.png",
        "f.png",
    ]
    assert [sample.mask is None for sample in samples] == [True, True, False, True, True, True]
    table = read_table(export)
    assert [sample.label for sample in table.train] == [sample.label for sample in samples]


def test_label_studio_polygons_become_masks(tmp_path: Path) -> None:
    pictures(tmp_path, "a.png", "b.png", "c.png")
    box = {"value": {"x": 1, "y": 1, "width": 9, "height": 9, "rectanglelabels": ["Dent"]}, "type": "rectanglelabels"}
    triangle = [(0, 0), (100, 0), (0, 100)]
    export = written(
        tmp_path / "labels.json",
        [
            task(1, "a.png", polygon("Scratch", *SQUARE), polygon("ok", (0, 0), (10, 0), (10, 10))),
            task(2, "b.png", polygon("Scratch", *triangle)),
            task(3, "c.png", polygon("Scratch", *SQUARE), box),
        ],
    )
    square, half, boxed = read_labels(export)
    assert boxed.label == ANOMALOUS
    assert boxed.mask is None
    mask = read_mask(square.mask)
    assert mask.shape == (HEIGHT, WIDTH)
    rows, columns = np.nonzero(mask)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (4, 11, 10, 29)
    assert mask.sum() == 8 * 20
    assert read_mask(half.mask).mean() == pytest.approx(0.5, abs=0.03)
    large = read_mask(square.mask, (HEIGHT * 10, WIDTH * 10))
    assert large.sum() == 80 * 200
    corpus = run_to_end(read_corpus([square], default_label=ANOMALOUS), None)
    np.testing.assert_array_equal(corpus.mask_of(0, (HEIGHT, WIDTH)), mask)
    export.unlink()
    with pytest.raises(ImageError, match="the export has changed"):
        read_mask(square.mask)


def test_label_studio_tables_become_labels(tmp_path: Path) -> None:
    pictures(tmp_path, "a.png", "b.png", "c.png")
    region = json.dumps([{"points": SQUARE, "polygonlabels": ["Scratch"], "original_width": 40}])
    quoted = '"' + region.replace('"', '""') + '"'
    lines = (
        "annotation_id,annotator,choice,created_at,id,image,label,lead_time",
        f"7,1,good,2026-01-01T00:00:00Z,1,{UPLOADED},,3.5",
        '8,1,"{""choices"": [""ng"", ""dark""]}",2026-01-01T00:00:00Z,2,/data/upload/1/0a1b2c3d-b.png,,2.5',
        f"9,1,,2026-01-01T00:00:00Z,3,c.png,{quoted},2.5",
    )
    table = written(tmp_path / "labels.csv", "\n".join(lines))
    minimal = written(
        tmp_path / "min.json",
        [
            {"image": UPLOADED, "id": 1, "choice": "good", "annotator": 1},
            {"image": "b.png", "id": 2, "choice": {"choices": ["ng", "dark"]}},
            {"image": "c.png", "id": 3, "label": json.loads(region)},
        ],
    )
    for export in (table, minimal):
        samples = read_labels(export)
        assert [sample.label for sample in samples] == [NORMAL, ANOMALOUS, ANOMALOUS]
        assert [sample.type for sample in samples] == [None, "dark", "Scratch"]
        assert read_mask(samples[2].mask, (HEIGHT, WIDTH)).sum() == 160


# --- CVAT -------------------------------------------------------------------------------------


def cvat(*images: str) -> str:
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>\n  <meta><task>'
        "<name>parts</name></task></meta>\n" + "\n".join(images) + "\n</annotations>\n"
    )


def picture(name: str, *inside: str) -> str:
    return f'<image id="0" name="{name}" width="{WIDTH}" height="{HEIGHT}">{"".join(inside)}</image>'


def test_cvat_images_become_labels(tmp_path: Path) -> None:
    pictures(tmp_path, "a.png", "images/line/b.png", "c.png", "d.png", "e.png")
    export = written(
        tmp_path / "annotations.xml",
        cvat(
            picture("a.png", '<tag label="normal" source="manual"></tag>'),
            picture("line/b.png", '<polygon label="scratch" points="10.0,4.0;30,4;30,12;10,12" z_order="0"></polygon>'),
            picture("c.png", '<mask label="dent" rle="3, 2, 4, 1" left="5" top="6" width="5" height="2"></mask>'),
            picture("d.png", '<box label="dent" xtl="1" ytl="1" xbr="5" ybr="5"></box>'),
            picture("e.png"),
        ),
    )
    samples = read_labels(export)
    assert [sample.label for sample in samples] == [NORMAL, ANOMALOUS, ANOMALOUS, ANOMALOUS, UNKNOWN]
    assert [sample.type for sample in samples] == [None, "scratch", "dent", "dent", None]
    assert [sample.mask is None for sample in samples] == [True, False, False, True, True]
    assert samples[1].path == tmp_path / "images/line/b.png"
    assert read_mask(samples[1].mask).sum() == 160
    rows, columns = np.nonzero(read_mask(samples[2].mask))
    assert list(zip(rows.tolist(), columns.tolist(), strict=True)) == [(6, 8), (6, 9), (7, 9)]


# --- What is refused --------------------------------------------------------------------------

BOMB = '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "xxxxxxxx"><!ENTITY c "&b;&b;&b;">]><annotations>&c;</annotations>'
REFUSED: dict[str, tuple[str, Any, str]] = {
    "words": ("l.json", [task(1, "a.png", choice("burr"))], "task 1: label 'burr' is not understood"),
    "gone": ("l.json", [task(1, "no.png", choice("ok"))], "task 1: no.png: no such file; put the images beside"),
    "both": ("l.json", [task(4, "a.png", choice("ok"), choice("ng"))], "a.png is annotated as normal and as a defect"),
    "region": ("l.json", [task(4, "a.png", choice("ok"), polygon("x", *SQUARE))], "as normal and as a defect"),
    "twice": ("l.json", [task(1, "x/a.png", choice("ok")), task(2, "y/a.png", choice("ok"))], "are both found at"),
    "again": (
        "l.json",
        [task(1, "a.png", choice("ok")), task(2, "a.png", choice("ng"))],
        "a.png is annotated as normal and as a defect",
    ),
    "nothing": ("l.json", [], "0 images"),
    "no tasks": ("l.json", {"images": []}, "no list of tasks; export as JSON from Label Studio"),
    "no json": ("l.json", "[{", "not readable as JSON"),
    "deep": ("l.json", "[" * 200_000, "not readable as JSON"),
    "odd": ("l.json", [{"id": 3, "data": {"image": "a.png"}, "annotations": [{"result": [3]}]}], "task 3: damaged"),
    "nan": ("l.json", [task(3, "a.png", polygon("x", (0, 1), (float("nan"), 3), (2, 2)))], "task 3: damaged"),
    "no image": ("l.json", [{"id": 3, "data": {"text": "hello"}}], "task 3: 0 entries name an image file"),
    "bomb": ("l.xml", BOMB, "has a document type"),
    "no xml": ("l.xml", "<annotations><image", "not readable as XML"),
    "other": ("l.xml", "<net></net>", "no annotations of CVAT"),
    "video": ("l.xml", cvat('<track id="0" label="x"></track>'), "annotations of a video"),
    "beyond floats": ("l.json", [task(3, "a.png", polygon("x", (0, 1), (10**400, 3), (2, 2)))], "task 3: damaged"),
    **{
        f"size {side}": (
            "l.json",
            [task(3, "a.png", {**polygon("x", (0, 1), (9, 3), (2, 2)), "original_width": side})],
            "task 3: damaged",
        )
        for side in (0, -5, 2**31, float("inf"))
    },
    "size": ("l.xml", cvat('<image name="a.png" width="99999999" height="9999999"/>'), "image 1: damaged"),
    "runs": (
        "l.xml",
        cvat(picture("a.png", '<mask label="x" rle="9" left="0" top="0" width="1" height="1"/>')),
        "mask",
    ),
    "corners": ("l.json", [task(3, "a.png", polygon("x", *[(1, 1)] * 100_001))], "a polygon of 100,001 corners"),
    "columns": ("l.csv", "image,choice\na.png,burr\n", "l.csv:2: label 'burr' is not understood"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_exports_are_refused_in_one_line(tmp_path: Path, name: str) -> None:
    pictures(tmp_path, "a.png")
    file, content, expected = REFUSED[name]
    export = written(tmp_path / file, content)
    with pytest.raises(InputError) as error:
        read_labels(export)
    assert expected in str(error.value)
    assert str(error.value).startswith(str(export))
    assert "\n" not in str(error.value)


def test_large_exports_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(annotations, "_LARGEST", 10)
    export = written(tmp_path / "l.json", [task(1, "a.png")])
    with pytest.raises(InputError, match=r"l\.json: 0 MB of annotations"):
        read_labels(export)


def test_annotations_of_several_annotators_are_joined(tmp_path: Path) -> None:
    pictures(tmp_path, "a.png", "b.png")
    left, right = ([[x, 0], [x + 50, 0], [x + 50, 100], [x, 100]] for x in (0, 50))
    rows = [
        {"image": "a.png", "annotator": i, "label": [{"points": corners, "polygonlabels": ["dent"]}]}
        for i, corners in enumerate((left, right))
    ]
    (sample,) = read_labels(written(tmp_path / "two.json", rows))
    assert (sample.label, sample.type) == (ANOMALOUS, "dent")
    assert read_mask(sample.mask, (HEIGHT, WIDTH)).all()
    shape = f'<image name="b.png" width="{WIDTH}" height="{HEIGHT}"><polygon label="dent" points="{{}}"/></image>'
    jobs = "".join(shape.format(points) for points in ("0,0;20,0;20,20;0,20", "20,0;40,0;40,20;20,20"))
    (tmp_path / "two.xml").write_text(f"<annotations>{jobs}</annotations>")
    (sample,) = read_labels(tmp_path / "two.xml")
    assert read_mask(sample.mask, (HEIGHT, WIDTH)).all()
    rows = [{"image": "a.png", "annotator": i, "choice": word} for i, word in enumerate(("OK", "NG"))]
    with pytest.raises(InputError, match="annotated as normal and as a defect"):
        read_labels(written(tmp_path / "contrary.json", rows))


def test_classes_in_columns_of_any_name(tmp_path: Path) -> None:
    pictures(tmp_path, "a.png", "b.png", "c.png")
    rows = [{"image": f"{n}.png", "quality": w} for n, w in (("a", "n.i.O."), ("b", "no visible defect"), ("c", "?"))]
    found = read_labels(written(tmp_path / "t.json", rows))
    assert [sample.label for sample in found] == [ANOMALOUS, NORMAL, UNKNOWN]
