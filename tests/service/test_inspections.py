"""Scoring over HTTP, history and export."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import anomem
from anomem.service.store.tables import Inspection
from tests.service.conftest import Shop
from tests.service.served import Served


def test_scores_are_those_of_the_model_and_are_stored(brick: Served, shop: Shop) -> None:
    files = [*shop.good[:2], *shop.defects[:2]]
    answers = brick.inspect(*files, stratum="camera 1")
    expected = list(anomem.load(shop.model).score(files))
    assert [answer["score"] for answer in answers] == pytest.approx([result.score for result in expected], rel=1e-5)
    assert [answer["p_value"] for answer in answers] == [result.p_value for result in expected]
    assert [answer["anomalous"] for answer in answers] == [result.anomalous for result in expected]
    page = brick.get("/models/1/inspections")
    assert [item["id"] for item in page["items"]] == [answer["id"] for answer in answers][::-1]
    assert {item["stratum"] for item in page["items"]} == {"camera 1"}
    for answer, file in zip(answers, files, strict=True):
        original = brick.client.get(f"/api/v1/inspections/{answer['id']}/original")
        assert original.content == file.read_bytes()
        assert original.headers["content-type"] == "image/png"


def test_the_same_key_is_inspected_once(brick: Served, shop: Shop) -> None:
    (first,) = brick.inspect(shop.good[0], key="part 7")
    (again,) = brick.inspect(shop.good[0], key="part 7")
    (other,) = brick.inspect(shop.good[0], key="part 8")
    assert again == first
    assert other["id"] != first["id"]
    assert len(brick.get("/models/1/inspections")["items"]) == 2


def test_every_mth_part_is_drawn_whatever_its_score(brick: Served, shop: Shop) -> None:
    brick.client.patch("/api/v1/models/1", json={"settings": {"sample_every": 3}})
    found = brick.inspect(*shop.good, *shop.defects)
    assert [i for i, answer in enumerate(found) if answer["sampled"]] == [2, 5, 8]


def test_what_is_no_image_is_refused_and_a_damaged_one_recorded(brick: Served, shop: Shop, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("<script>alert(1)</script>")
    answer = brick.client.post("/api/v1/models/1/inspections", files={"images": ("page.html", page.read_bytes())})
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith("page.html: is not an image file; send PNG")
    damaged = tmp_path / "half.png"
    damaged.write_bytes(shop.good[0].read_bytes()[:600])
    found = brick.inspect(damaged, shop.good[0])
    assert found[0]["error"].startswith("half.png: ")
    assert str(brick.station.folder.root) not in found[0]["error"]
    assert (found[0]["score"], found[0]["p_value"], found[0]["anomalous"]) == (None, None, False)
    assert found[1]["error"] is None
    assert len(brick.get("/models/1/inspections", unreadable=True)["items"]) == 1


def test_pages_follow_each_other_in_both_directions(brick: Served, shop: Shop) -> None:
    ids = [answer["id"] for answer in brick.inspect(*shop.good, *shop.defects)][::-1]
    first = brick.get("/models/1/inspections", limit=4)
    second = brick.get("/models/1/inspections", limit=4, before=first["before"])
    last = brick.get("/models/1/inspections", limit=4, before=second["before"])
    assert [item["id"] for page in (first, second, last) for item in page["items"]] == ids
    assert last["before"] is None
    back = brick.get("/models/1/inspections", limit=4, after=last["items"][0]["id"])
    assert [item["id"] for item in back["items"]] == [item["id"] for item in second["items"]]


def test_filters_choose_rows(brick: Served, shop: Shop) -> None:
    found = brick.inspect(*shop.good, *shop.defects)
    anomalous = [item["id"] for item in brick.get("/models/1/inspections", anomalous=True)["items"]]
    assert anomalous == [answer["id"] for answer in found if answer["anomalous"]][::-1]
    named = brick.get("/models/1/inspections", name=shop.good[0].name)["items"]
    assert {item["name"] for item in named} == {shop.good[0].name}
    middle = found[4]["created"]
    assert brick.get("/models/1/inspections", until="2020-01-01T00:00:00Z")["items"] == []
    assert len(brick.get("/models/1/inspections", since=middle)["items"]) >= 6
    refused = brick.client.get("/api/v1/models/1/inspections", params={"colour": "red"})
    assert refused.status_code == 422


def test_exports_hold_every_row_and_no_formula(brick: Served, shop: Shop, tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    odd = tmp_path / "=1+1.png"
    odd.write_bytes(shop.good[0].read_bytes())
    found = brick.inspect(odd, *shop.defects[:2])
    text = brick.client.get("/api/v1/models/1/inspections.csv").text
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [int(row["id"]) for row in rows] == [answer["id"] for answer in found]
    assert rows[0]["name"] == "'=1+1.png"
    assert [float(row["score"]) for row in rows] == [answer["score"] for answer in found]
    table = pq.read_table(io.BytesIO(brick.client.get("/api/v1/models/1/inspections.parquet").content))
    assert table.column("name").to_pylist()[0] == "=1+1.png"
    assert table.column("score").to_pylist() == [answer["score"] for answer in found]


def test_pictures_come_at_any_size(brick: Served, shop: Shop) -> None:
    (found,) = brick.inspect(shop.defects[0])
    for layer, mode in (("image", "RGB"), ("overlay", "RGB"), ("map", "RGBA"), ("contour", "RGBA")):
        answer = brick.client.get(
            f"/api/v1/inspections/{found['id']}/picture.png", params={"layer": layer, "width": 36}
        )
        assert answer.status_code == 200, answer.text
        picture = Image.open(io.BytesIO(answer.content))
        assert (picture.size, picture.mode) == ((36, 36), mode)
    plain = brick.client.get(f"/api/v1/inspections/{found['id']}/picture.png").content
    assert np.array_equal(Image.open(io.BytesIO(plain)), Image.open(shop.defects[0]).convert("RGB"))


def test_the_most_similar_good_parts_come_first(brick: Served, shop: Shop, tmp_path: Path) -> None:
    again = tmp_path / "again.bmp"
    Image.open(shop.normals[3]).convert("RGB").save(again)
    found = brick.inspect(*shop.good, again)
    place = f"/inspections/{found[5]['id']}/alike"
    assert {row["kind"] for row in brick.get(place)} <= {"inspection"}  # an imported model has no normals here
    images = [("images", (path.name, path.read_bytes())) for path in shop.normals[:6]]
    brick.client.post("/api/v1/models/1/normals", files=images)
    similar = brick.get(place, count=3)
    assert [row["kind"] for row in similar] == ["normal"] * 3
    assert similar[0]["id"] == 4
    assert similar[0]["distance"] < 0.02 < similar[1]["distance"] < similar[2]["distance"]
    assert {row["by"] for row in similar} == {"memory"}
    detector = anomem.load(shop.model)
    assert isinstance(detector, anomem.AnoMem)
    own, normal = detector.recalled([again, shop.normals[similar[1]["id"] - 1]])
    assert own.sum() == pytest.approx(len(detector.scorer_.memories()))
    assert similar[1]["distance"] == pytest.approx(np.abs(own - normal).sum() / (own + normal).sum(), abs=0.02)
    assert brick.client.get("/api/v1/normals/4/picture.png", params={"width": 20}).status_code == 200


def test_a_full_queue_refuses_the_whole_request(brick: Served, shop: Shop) -> None:
    batcher = brick.station.serving.batcher(1)
    batcher._limit = 3
    answer = brick.client.post(
        "/api/v1/models/1/inspections", files=[("images", (f.name, f.read_bytes())) for f in shop.good[:4]]
    )
    assert answer.status_code == 429
    assert answer.headers["retry-after"] == "1"
    with brick.station.database.reading() as session:
        assert session.query(Inspection).count() == 0
    assert len(brick.inspect(*shop.good[:3])) == 3
