"""Labels: the latest counts, masks in the image's frame, the review queue."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
from PIL import Image

from tests.service.conftest import Shop
from tests.service.served import Served


def test_the_latest_label_counts_and_all_are_kept(brick: Served, shop: Shop) -> None:
    first, again = brick.inspect(shop.defects[0], shop.defects[0])
    for verdict in ("normal", "defect", None, "unsure"):
        brick.post(f"/inspections/{first['id']}/labels", {"verdict": verdict, "comment": "<b>"}, status=201)
    assert [label["verdict"] for label in brick.get(f"/inspections/{again['id']}/labels")] == [
        "unsure",
        None,
        "defect",
        "normal",
    ]
    assert brick.get(f"/inspections/{again['id']}")["label"] == "unsure"  # the same image
    assert [label["verdict"] for label in brick.get("/models/1/labels")] == ["unsure"]
    actions = [entry["action"] for entry in brick.get("/audit")]
    assert actions.count("label") == 4


def test_brushed_masks_and_polygons_are_kept_in_the_images_frame(brick: Served, shop: Shop) -> None:
    (found,) = brick.inspect(shop.defects[0])
    brush = np.zeros((72, 72), np.uint8)
    brush[10:20, 30:40] = 255
    stream = io.BytesIO()
    Image.fromarray(brush).save(stream, "PNG")
    body = {
        "verdict": "defect",
        "type": "crack",
        "mask_png": base64.b64encode(stream.getvalue()).decode(),
        "polygons": [[[50, 50], [59, 50], [59, 59], [50, 59]]],
    }
    label = brick.post(f"/inspections/{found['id']}/labels", body, status=201)
    mask = np.asarray(Image.open(brick.station.images.path(label["mask_sha256"]))) > 0
    expected = brush > 0
    expected[50:60, 50:60] = True
    assert np.array_equal(mask, expected)


def test_masks_that_fit_no_image_are_refused(brick: Served, shop: Shop) -> None:
    (found,) = brick.inspect(shop.defects[0])
    place = f"/inspections/{found['id']}/labels"
    for body, part in (
        ({"mask_png": "no base64!"}, "base64"),
        ({"mask_png": base64.b64encode(b"<svg/>").decode()}, "mask_png"),
        ({"polygons": [[[1, 1], [2, 2]]]}, "at least 3"),
    ):
        assert part in brick.post(place, {"verdict": "defect", **body}, status=422)["detail"]
    assert brick.get("/models/1/labels") == []


def test_the_queue_has_each_unlabelled_image_once(brick: Served, shop: Shop) -> None:
    found = brick.inspect(*shop.good, *shop.defects, shop.defects[0])
    queue = brick.get("/models/1/queue")
    assert len(queue) == 10
    assert queue[0]["score"] == max(answer["score"] for answer in found)
    brick.post(f"/inspections/{queue[0]['id']}/labels", {"verdict": "defect"}, status=201)
    assert queue[0]["image_sha256"] not in {row["image_sha256"] for row in brick.get("/models/1/queue")}


def test_labels_of_unknown_inspections_are_missing(empty: Served, tmp_path: Path) -> None:
    assert empty.post("/inspections/7/labels", {"verdict": "defect"}, status=404)["detail"].startswith("inspection 7: ")
