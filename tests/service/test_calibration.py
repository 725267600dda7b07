"""Promised false-alarm rate: change, preview; events and metrics beside them."""

from __future__ import annotations

import json
import threading

import httpx2 as httpx
import pytest

import anomem
from anomem.runtime.fdr import benjamini_hochberg
from tests.service.conftest import Shop
from tests.service.served import Served


def test_alpha_changes_the_next_verdicts_and_is_audited(brick: Served, shop: Shop) -> None:
    before = brick.inspect(*shop.good, *shop.defects)
    alpha_min = anomem.load(shop.model).calibration_.alpha_min
    refused = brick.client.put("/api/v1/models/1/alpha", json={"alpha": alpha_min / 10})
    assert refused.status_code == 422
    assert f"use alpha {alpha_min:.3g} or above" in refused.json()["detail"]
    assert brick.client.put("/api/v1/models/1/alpha", json={"alpha": 0.45}).status_code == 200
    after = brick.inspect(*shop.good, *shop.defects)
    assert [row["score"] for row in after] == pytest.approx([row["score"] for row in before], rel=1e-5)
    assert [row["anomalous"] for row in after] == [row["p_value"] <= 0.45 for row in before]
    assert {row["alpha"] for row in after} == {0.45}
    entry = brick.get("/audit")[0]
    assert (entry["author"], entry["action"], entry["facts"]["after"]) == ("local", "model.alpha", 0.45)


def test_a_preview_counts_what_another_rate_would_do(brick: Served, shop: Shop) -> None:
    found = brick.inspect(*shop.good, *shop.defects)
    for row, verdict in zip(found, ["normal"] * 5 + ["defect"] * 5, strict=True):
        brick.post(f"/inspections/{row['id']}/labels", {"verdict": verdict}, status=201)
    shown = brick.get("/models/1/preview", alpha=0.45)
    missed = [row["id"] for row in found[5:] if row["p_value"] > 0.45]
    assert sorted(shown["missed"]) == missed
    assert shown["caught"] == 5 - len(missed)
    assert shown["false_alarms"] == sum(row["p_value"] <= 0.45 for row in found[:5])
    assert shown["threshold"] == anomem.load(shop.model).set_alpha(0.45).calibration_.threshold
    assert sum(shown["counts"]) == 10
    assert len(shown["edges"]) == len(shown["counts"]) + 1
    assert {row["alpha"] for row in brick.inspect(shop.good[0])} == {found[0]["alpha"]}  # nothing has changed


def test_a_batch_is_judged_together(brick: Served, shop: Shop) -> None:
    found = brick.inspect(*shop.good, *shop.defects)
    ids = [row["id"] for row in found]
    expected = benjamini_hochberg([row["p_value"] for row in found], 0.5)
    answer = brick.post("/models/1/batch", {"inspections": ids[::-1], "fdr": 0.5})
    assert answer["rejected"] == [number for number, out in zip(ids, expected, strict=True) if out]
    assert answer["rejected"]
    brick.post("/models/1/batch", {"inspections": [*ids, 999], "fdr": 0.5}, status=404)
    brick.post("/models/1/batch", {"inspections": ids, "fdr": 1.5}, status=422)


def test_events_reach_a_subscriber(brick: Served, shop: Shop) -> None:
    events: list[tuple[str, dict[str, object]]] = []
    connected = threading.Event()

    def listen() -> None:
        kind = ""
        with (
            httpx.Client(base_url=brick.url, timeout=60) as client,
            client.stream("GET", "/api/v1/events") as answer,
        ):
            for line in answer.iter_lines():
                connected.set()
                if line.startswith("event: "):
                    kind = line.removeprefix("event: ")
                elif line.startswith("data: "):
                    events.append((kind, json.loads(line.removeprefix("data: "))))
                    if len(events) == 2:
                        return

    thread = threading.Thread(target=listen)
    thread.start()
    assert connected.wait(60)
    (found,) = brick.inspect(shop.good[0])
    brick.post(f"/inspections/{found['id']}/labels", {"verdict": "normal"}, status=201)
    thread.join(60)
    assert [kind for kind, _ in events] == ["inspection", "label"]
    assert events[0][1]["score"] == found["score"]
    assert events[1][1]["inspection"] == found["id"]


def test_metrics_count_requests_and_verdicts(brick: Served, shop: Shop) -> None:
    brick.inspect(*shop.good[:3])
    text = brick.client.get("/metrics").text
    counted = [line for line in text.splitlines() if line.startswith("anomem_inspections_total{")]
    assert sum(float(line.rsplit(" ", 1)[1]) for line in counted) == 3
    assert 'anomem_http_requests_total{method="POST",status="201"} 1.0' in text
    assert 'anomem_queue{model="1"} 0.0' in text


def test_the_start_page_shows_models_and_the_login(brick: Served) -> None:
    page = brick.client.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert ">brick<" in page.text
    assert "Promised false-alarm rate" in page.text
    assert brick.client.get("/static/api.js").status_code == 200
    brick.post("/users", {"name": "eve", "role": "engineer", "password": "a long password"}, status=201)
    assert "brick" not in brick.client.get("/").text
