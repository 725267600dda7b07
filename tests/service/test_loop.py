"""The loop: fit from good parts, label, refit, judge, promote, roll back."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

import anomem
from tests.service.conftest import Shop
from tests.service.served import Served, served

TINY = {"set": ["size=64", "memory_size=16", "memory_share=1"]}


def finished(station: Served, job: dict[str, Any], *, seconds: float = 600) -> dict[str, Any]:
    """Wait for a job's end."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found: dict[str, Any] = station.get(f"/jobs/{job['id']}")
        if found["state"] not in ("queued", "running"):
            return found
        time.sleep(0.1)
    pytest.fail(f"job {job} did not end")


def label_all(station: Served, found: list[dict[str, Any]], verdict: str) -> None:
    for answer in found:
        station.post(f"/inspections/{answer['id']}/labels", {"verdict": verdict}, status=201)


@pytest.mark.slow
@pytest.mark.ci_sample
def test_from_an_empty_station_to_a_better_model_and_back(empty: Served, shop: Shop) -> None:
    product = empty.post("/products", {"name": "bricks"}, status=201)
    model = empty.post(f"/products/{product['id']}/models", {"name": "top", "alpha": 0.1}, status=201)
    assert empty.post("/models/1/fit", TINY, status=202)["state"] == "queued"
    failed = finished(empty, {"id": 1})
    assert (failed["state"], failed["error"]) == (
        "failed",
        "fit: the model has no images of good parts; add some first",
    )
    images = [("images", (path.name, path.read_bytes())) for path in [*shop.normals, shop.normals[0]]]
    assert empty.client.post("/api/v1/models/1/normals", files=images).json() == {"added": 30, "known": 1}
    done = finished(empty, empty.post("/models/1/fit", TINY, status=202))
    assert done["state"] == "done", done["error"]
    (version,) = empty.get("/models/1/versions")
    assert (version["state"], version["kind"], version["job_id"]) == ("current", "fit", done["id"])
    assert version["figures"]["n_train"] == version["figures"]["n_calibration"] == 30  # every normal counts
    assert version["figures"]["alpha"] == pytest.approx(max(0.1, version["figures"]["alpha_min"]))

    empty.client.patch("/api/v1/models/1", json={"settings": {"sample_every": 2}})
    found = empty.inspect(*shop.good, *shop.defects)
    label_all(empty, found[:2], "normal")
    label_all(empty, found[5:], "defect")
    refit = finished(empty, empty.post("/models/1/refit", status=202))
    assert refit["state"] == "done", refit["error"]
    candidate = empty.get("/models/1/versions")[0]
    figures = candidate["figures"]
    assert (candidate["state"], candidate["kind"], candidate["parent_id"]) == ("candidate", "labels", version["id"])
    assert figures["n_labelled"] == 5  # confirmed normals wait for the next full fit
    assert figures["cross_validated"]["n"] == figures["before"]["n"] == 5
    assert 0 <= figures["cross_validated"]["auroc"] <= 1
    confirmed = [row["id"] for row in found[:2] if row["sampled"]]
    assert figures["unselected"]["confirmed"] == len(confirmed) == 1
    assert figures["history"]["n"] == 10
    changed = {change["id"] for change in figures["history"]["changes"]}
    assert changed <= {answer["id"] for answer in found}

    empty.post(f"/versions/{candidate['id']}/promote")
    (again,) = empty.inspect(shop.defects[0])
    assert again["version_id"] == candidate["id"]
    empty.post(f"/versions/{candidate['id']}/promote", status=409)
    empty.post(f"/models/{model['id']}/rollback")
    (back,) = empty.inspect(shop.defects[0])
    assert back["version_id"] == version["id"]
    assert back["score"] == pytest.approx(found[5]["score"], rel=1e-5)  # rounding depends on the batch
    assert [v["state"] for v in empty.get("/models/1/versions")] == ["retired", "current"]
    empty.post(f"/models/{model['id']}/rollback", status=409)
    actions = [entry["action"] for entry in empty.get("/audit")]
    assert {"version.promote", "version.roll_back", "job.refit", "label", "normals.add"} <= set(actions)


@pytest.mark.slow
@pytest.mark.ci_sample
def test_fresh_normals_calibrate_those_confirmed_in_the_unselected_sample_only(brick: Served, shop: Shop) -> None:
    brick.client.patch("/api/v1/models/1", json={"settings": {"sample_every": 2}})
    found = brick.inspect(*shop.good, *shop.defects)
    drawn = [answer for answer in found if answer["sampled"]]
    label_all(brick, found[:5], "normal")
    label_all(brick, found[5:], "defect")
    brick.client.put("/api/v1/models/1/alpha", json={"alpha": 0.4})
    job = finished(brick, brick.post("/models/1/calibrate", {}, status=202))
    assert job["state"] == "done", job["error"]
    figures = brick.get("/models/1/versions")[0]["figures"]
    good_and_drawn = [answer for answer in drawn if answer["id"] <= found[4]["id"]]
    assert figures["n_calibration"] == len(good_and_drawn) == 2
    assert figures["alpha"] == pytest.approx(0.4)


def test_an_engineer_cancels_a_job(brick: Served, shop: Shop) -> None:
    images = [("images", (path.name, path.read_bytes())) for path in shop.normals]
    brick.client.post("/api/v1/models/1/normals", files=images)
    job = brick.post("/models/1/fit", TINY, status=202)
    brick.post("/models/1/fit", TINY, status=409)
    assert brick.post(f"/jobs/{job['id']}/cancel")["state"] == "cancelled"
    brick.post(f"/jobs/{job['id']}/cancel", status=409)
    again = brick.post("/models/1/fit", {"set": ["size=64"]}, status=202)
    brick.post(f"/jobs/{again['id']}/cancel")
    assert len(brick.get("/models/1/versions")) == 1


@pytest.mark.parametrize("given", ["roi=/etc/passwd", "weights=/etc/passwd", "sise=64", "size"])
def test_hyperparameters_are_checked_at_once_and_name_no_file(still: Served, given: str) -> None:
    assert given.partition("=")[0] in still.post("/models/1/fit", {"set": [given]}, status=422)["detail"]
    assert still.get("/jobs") == []


@pytest.mark.slow
def test_each_stratum_is_calibrated_and_unknown_ones_are_refused(brick: Served, shop: Shop) -> None:
    for camera, chosen in (("left", shop.normals[:15]), ("right", shop.normals[15:])):
        images = [("images", (path.name, path.read_bytes())) for path in chosen]
        brick.client.post("/api/v1/models/1/normals", files=images, data={"stratum": camera})
    job = finished(brick, brick.post("/models/1/fit", TINY, status=202))
    assert job["state"] == "done", job["error"]
    version = brick.get("/models/1/versions")[0]
    assert version["figures"]["strata"] == ["left", "right"]
    brick.post(f"/versions/{version['id']}/promote")
    (row,) = brick.inspect(shop.good[0], stratum="left")
    assert row["version_id"] == version["id"]
    files = {"images": (shop.good[0].name, shop.good[0].read_bytes())}
    for wrong in ({}, {"stratum": "rear"}):
        assert brick.client.post("/api/v1/models/1/inspections", files=files, data=wrong).status_code == 422
    picture = brick.client.get(f"/api/v1/inspections/{row['id']}/picture.png", params={"layer": "overlay"})
    assert picture.status_code == 200


@pytest.mark.slow
def test_history_is_scored_again_by_another_version(brick: Served, shop: Shop) -> None:
    found = brick.inspect(*shop.good[:2], *shop.defects[:2])
    job = finished(brick, brick.post("/models/1/rescore", {"version": 1}, status=202))
    assert job["state"] == "done", job["error"]
    rows = {row[0]: row[1:] for row in job["result"]["rows"]}
    for answer in found:
        score, *others = rows.pop(answer["id"])
        assert score == pytest.approx(answer["score"], rel=1e-5)
        assert others == [answer["p_value"], *[answer["anomalous"]] * 2]
    assert rows == {}
    assert job["result"]["changed"] == 0


@pytest.mark.slow
def test_a_job_that_a_kill_has_cut_off_is_taken_up_again(tmp_path: Path, shop: Shop) -> None:
    with served(tmp_path / "s", shop.model) as station:
        found = station.inspect(*shop.defects)
        label_all(station, found, "defect")
        job = station.post("/models/1/refit", status=202)
    with served(tmp_path / "s") as station:
        assert finished(station, job)["state"] == "done"
        assert len(station.get("/models/1/versions")) == 2


@pytest.mark.slow
def test_versions_are_exported_where_the_model_says_so_and_promoted_if_better(brick: Served, shop: Shop) -> None:
    pytest.importorskip("onnxruntime")
    settings = {"sample_every": 2, "export": "onnx", "promote": "auto"}
    assert brick.client.patch("/api/v1/models/1", json={"settings": settings}).status_code == 200
    found = brick.inspect(*shop.good, *shop.defects)
    label_all(brick, found[5:], "defect")
    job = finished(brick, brick.post("/models/1/refit", status=202))
    assert job["state"] == "done", job["error"]
    version = brick.get("/models/1/versions")[0]
    assert version["files"] == {"detector": "brick.safetensors", "exported": "model.onnx"}
    assert (version["state"] == "current") == version["figures"]["better"]
    if version["state"] != "current":
        brick.post(f"/versions/{version['id']}/promote")
    (row,) = brick.inspect(shop.defects[0])
    place = brick.station.folder.versions.parent
    (folder,) = {path.parent for path in place.glob("versions/*/model.onnx")}
    detector = anomem.load(folder / "brick.safetensors")
    assert row["score"] == pytest.approx(float(detector.anomaly_score([shop.defects[0]])[0]), rel=1e-3)
