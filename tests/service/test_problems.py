"""Refused requests: one line that names the field, never an unexpected error."""

from __future__ import annotations

import pytest

from tests.service.conftest import Shop
from tests.service.served import Served


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/products", b'{"name": "caps\\u0000"}', "body.name"),
        ("/products", b'{"name": "\\ud800"}', "body.name"),
        ("/products", b'{"name": "caps", "note": 7}', "body.note"),
        ("/products", b'{"name": "caps", "colour": "red"}', "body.colour"),
        ("/products", b'{"name": ', "body"),
        ("/products", b"[" * 100_000, ""),
        ("/products/1/models", b'{"name": "top", "alpha": NaN}', "body.alpha"),
        ("/products/1/models", b'{"name": "top", "alpha": 1e999}', "body.alpha"),
        ("/products/99999999999999999999/models", b'{"name": "top"}', "path.product_id"),
        ("/inspections/1/labels", b'{"verdict": "defect", "polygons": [[[NaN, 1], [1, 2], [3, 4]]]}', "body.polygons"),
        ("/users", b'{"name": "eve", "role": "king", "password": "a long password"}', "body.role"),
    ],
)
def test_bodies_are_refused_by_one_line(blank: Served, path: str, body: bytes, field: str) -> None:
    answer = blank.client.post(f"/api/v1{path}", content=body, headers={"content-type": "application/json"})
    assert 400 <= answer.status_code < 500, answer.text
    detail = answer.json()["detail"]
    assert detail.startswith(field)
    assert "\n" not in detail


def test_control_characters_in_forms_and_queries_are_refused(brick: Served, shop: Shop) -> None:
    files = {"images": (shop.good[0].name, shop.good[0].read_bytes())}
    answer = brick.client.post("/api/v1/models/1/inspections", files=files, data={"stratum": "a\x00b"})
    assert answer.status_code == 422
    assert brick.client.get("/api/v1/models/1/inspections", params={"name": "\x00"}).status_code == 422
    assert brick.get("/models/1/inspections")["items"] == []


@pytest.mark.parametrize("path", ["/api/v1/nothing", "/static/../station.sqlite", "/static/%2e%2e/tables.py", "/v2/x"])
def test_unknown_paths_are_missing(blank: Served, path: str) -> None:
    answer = blank.client.get(path)
    assert answer.status_code == 404
    assert answer.json()["detail"].startswith("request: ")


def test_a_name_taken_is_a_conflict(empty: Served) -> None:
    empty.post("/products", {"name": "caps"}, status=201)
    assert (
        empty.post("/products", {"name": "caps"}, status=409)["detail"] == "product caps: exists; choose another name"
    )
