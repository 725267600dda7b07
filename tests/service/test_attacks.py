"""Attacks: each is refused, or kept as harmless data."""

from __future__ import annotations

import io
import re
import struct
import time
import zlib
from pathlib import Path

import httpx2 as httpx
import pytest
from fastapi.routing import APIRoute
from itsdangerous import URLSafeTimedSerializer
from itsdangerous.timed import TimestampSigner
from PIL import Image

from anomem.service.access.sessions import COOKIE, SESSION_S
from anomem.service.api.app import ROUTERS
from tests.service.conftest import Shop
from tests.service.served import PASSWORD, Served, served
from tests.service.test_access import OPEN, logged_in, with_users

HTML = b"<html><script>alert(1)</script></html>"
MINE = {"/api/v1/session"}
"""Paths that change nothing but the caller's own session."""
OPERATORS = {
    "/api/v1/models/{model_id}/inspections",
    "/api/v1/models/{model_id}/inspections/folder",
    "/api/v1/models/{model_id}/batch",
    "/api/v1/inspections/{inspection_id}/labels",
    "/v2/models/{name}/infer",
    "/v2/models/{name}/versions/{version}/infer",
}


def sent(station: Served, name: str, content: bytes, kind: str = "image/png") -> httpx.Response:
    return station.client.post("/api/v1/models/1/inspections", files={"images": (name, content, kind)})


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


@pytest.mark.parametrize("name", ["../../../etc/passwd.png", "..\\..\\x.png", "/etc/cron.d/x.png", "a\x00b.png", "."])
def test_names_of_uploads_are_no_paths(brick: Served, shop: Shop, name: str) -> None:
    root = brick.station.folder.root
    before = {path for path in root.parent.rglob("*") if not path.is_relative_to(root / "images")}
    answer = sent(brick, name, shop.good[0].read_bytes())
    assert answer.status_code in (201, 422)
    after = {path for path in root.parent.rglob("*") if not path.is_relative_to(root / "images")}
    assert {path for path in after - before if "station.sqlite" not in path.name} == set()


@pytest.mark.parametrize("path", ["/static/..%2f..%2fpages/texts.py", "/static/%2e%2e/%2e%2e/store/tables.py"])
def test_paths_lead_out_of_no_folder(blank: Served, path: str) -> None:
    assert blank.client.get(path).status_code == 404


def test_folders_of_requests_stay_below_the_allowed_one(tmp_path: Path, shop: Shop) -> None:
    allowed, outside = tmp_path / "allowed", tmp_path / "outside"
    (allowed / "in").mkdir(parents=True)
    outside.mkdir()
    (outside / "secret.png").write_bytes(shop.good[0].read_bytes())
    (allowed / "in" / "own.png").write_bytes(shop.good[1].read_bytes())
    (allowed / "in" / "link.png").symlink_to(outside / "secret.png")
    (allowed / "in" / "deeper").symlink_to(outside)
    with served(tmp_path / "s", shop.model, folders=(allowed,)) as station:
        for path in (outside, allowed / ".." / "outside", "/", allowed / "in" / "deeper"):
            for place in ("/models/1/inspections/folder", "/models/1/normals/folder", "/models/1/watches"):
                assert "--folders" in station.post(place, {"folder": str(path)}, status=422)["detail"]
        found = station.post("/models/1/inspections/folder", {"folder": str(allowed / "in")}, status=201)
        assert [row["name"] for row in found["inspections"]] == ["own.png"]
        again = station.post("/models/1/inspections/folder", {"folder": str(allowed / "in")}, status=201)
        assert again == found


def test_oversized_images_are_refused_unread(tmp_path: Path, shop: Shop) -> None:
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100_000)))
    with served(tmp_path / "s", shop.model, max_image_bytes=200_000) as station:
        assert sent(station, "large.png", b"\x89PNG\r\n\x1a\n" + bytes(200_000)).status_code == 413
        (row,) = sent(station, "bomb.png", bomb + chunk(b"IEND", b"")).json()
        assert "pixels" in row["error"]
        (good,) = station.inspect(shop.good[0])
        label = {"verdict": "defect", "mask_png": "A" * (9 << 20)}
        station.post(f"/inspections/{good['id']}/labels", label, status=422)
        many = [("images", ("a.png", b"\x89PNG\r\n\x1a\n"))] * 129
        assert station.client.post("/api/v1/models/1/inspections", files=many).status_code == 413


@pytest.mark.parametrize(
    ("content", "kind"),
    [(HTML, "image/png"), (b"<svg onload='alert(1)'/>", "image/svg+xml"), (b"%PDF-1.7", "application/pdf"), (b"", "")],
)
def test_what_is_no_image_is_refused_whatever_it_is_called(still: Served, content: bytes, kind: str) -> None:
    assert sent(still, "part.png", content, kind).status_code == 422
    assert still.get("/models/1/inspections")["items"] == []


def test_bodies_of_another_type_are_refused(brick: Served) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/xml"):
        answer = brick.client.post("/api/v1/products", content=b'{"name": "caps"}', headers={"content-type": kind})
        assert answer.status_code in (400, 415, 422), kind
    assert brick.client.post("/api/v1/models/1/inspections", data={"images": "text"}).status_code == 422
    assert [product["name"] for product in brick.get("/products")] == ["brick"]


@pytest.mark.parametrize("form", ["PNG", "GIF", "BMP"])
def test_polyglots_are_served_as_the_image_that_they_begin_with(brick: Served, shop: Shop, form: str) -> None:
    stream = io.BytesIO()
    Image.open(shop.good[0]).convert("RGB").save(stream, format=form)
    (row,) = sent(brick, "page.html", stream.getvalue() + HTML, "text/html").json()
    answer = brick.client.get(f"/api/v1/inspections/{row['id']}/original")
    assert answer.content.endswith(HTML)
    assert answer.headers["content-type"] == f"image/{form.lower()}"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    picture = brick.client.get(f"/api/v1/inspections/{row['id']}/picture.png").content
    assert HTML not in picture


def test_missing_forged_and_expired_credentials_open_nothing(empty: Served) -> None:
    with_users(empty)

    class Earlier(TimestampSigner):
        def get_timestamp(self) -> int:
            return int(time.time()) - SESSION_S - 5

    secret = empty.station.folder.secret()
    fresh = URLSafeTimedSerializer(secret, salt="session").dumps([1, 0, "t"])
    cookies = {
        "expired": URLSafeTimedSerializer(secret, salt="session", signer=Earlier).dumps([1, 0, "t"]),
        "of another key": URLSafeTimedSerializer(b"x" * 32, salt="session").dumps([1, 0, "t"]),
        "of another purpose": URLSafeTimedSerializer(secret, salt="other").dumps([1, 0, "t"]),
        "changed": fresh[:5] + ("A" if fresh[5] != "A" else "B") + fresh[6:],
        "no cookie": ';;"',
    }
    assert empty.client.get("/api/v1/products", headers={"cookie": f"{COOKIE}={fresh}"}).status_code == 200
    for name, value in cookies.items():
        answer = empty.client.get("/api/v1/products", headers={"cookie": f"{COOKIE}={value}"})
        assert answer.status_code == 401, name
    assert empty.client.get("/api/v1/products", headers={"cookie": f"{COOKIE}=\x7f"}).status_code == 400
    for value in ("", "Bearer", "Bearer anomem_x", "Basic ZXZlOmV2ZQ==", "Bearer None"):
        answer = empty.client.get("/api/v1/products", headers={"authorization": value} if value else {})
        assert answer.status_code == 401, value


def test_wrong_tokens_from_another_host_pause(empty: Served) -> None:
    with_users(empty)
    other = httpx.HTTPTransport(local_address="127.0.0.2")
    with httpx.Client(base_url=empty.url, transport=other, headers={"authorization": "Bearer guess"}) as client:
        statuses = [client.get("/api/v1/products").status_code for _ in range(6)]
        assert statuses == [401] * 5 + [429]
        assert int(client.get("/api/v1/products").headers["retry-after"]) >= 1


def test_no_role_does_what_is_above_it(empty: Served) -> None:
    with_users(empty)
    for name, allowed in (("vic", MINE | OPEN), ("olga", MINE | OPEN | OPERATORS)):
        with logged_in(empty, name) as client:
            tried = 0
            for route in (route for module in ROUTERS for route in module.router.routes):
                assert isinstance(route, APIRoute)
                if route.path in allowed or "GET" in route.methods:
                    continue
                for method in route.methods:
                    path = re.sub(r"{\w+}", "1", route.path)
                    answer = client.request(method, path, json={})
                    assert answer.status_code in (403, 422), (name, method, path, answer.text)
                    tried += 1
            assert tried > 15


def test_nobody_makes_himself_an_engineer(empty: Served) -> None:
    with_users(empty)
    with logged_in(empty, "olga") as client:
        for method, path, body in (
            ("PATCH", "/api/v1/users/olga", {"role": "engineer"}),
            ("POST", "/api/v1/users", {"name": "eve2", "role": "engineer", "password": PASSWORD}),
            ("POST", "/api/v1/tokens", {"name": "mine", "role": "engineer", "days": 1}),
            ("GET", "/api/v1/audit", None),
            ("GET", "/api/v1/tokens", None),
            ("GET", "/users", None),
        ):
            assert client.request(method, path, json=body).status_code == 403, path
        assert client.get("/api/v1/session").json()["role"] == "operator"


def test_behind_a_proxy_the_open_station_is_closed_and_cookies_are_secure(empty: Served) -> None:
    forwarded = {"x-forwarded-for": "10.0.0.7", "x-forwarded-proto": "https", "x-forwarded-host": "station.plant"}
    assert empty.client.get("/api/v1/products", headers=forwarded).status_code == 401
    with_users(empty)
    login = {"name": "eve", "password": PASSWORD}
    same = forwarded | {"host": "station.plant", "origin": "https://station.plant"}
    answer = empty.client.post("/api/v1/session", json=login, headers=same)
    assert answer.status_code == 200
    assert "; secure" in answer.headers["set-cookie"].lower()
    other = forwarded | {"host": "station.plant", "origin": "https://evil.example"}
    assert empty.client.post("/api/v1/session", json=login, headers=other).status_code == 403
