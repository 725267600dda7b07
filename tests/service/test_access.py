"""Access: roles, sessions, tokens, other sites, other hosts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2 as httpx
import numpy as np
import pytest
from fastapi.routing import APIRoute

from anomem.errors import InputError
from anomem.service.access.login_limit import LoginLimit
from anomem.service.access.passwords import check_password, hash_password
from anomem.service.access.rate_limit import RateLimit
from anomem.service.access.sessions import COOKIE, Sessions
from anomem.service.api.app import ROUTERS
from anomem.service.errors import BusyError
from anomem.service.manage import new_password, new_user
from anomem.service.pages import PAGES
from anomem.service.running import check_exposure
from anomem.service.settings import Settings
from anomem.service.station import Station
from tests.service.served import PASSWORD, Served, served

OPEN = {"/login", "/healthz", "/readyz", "/api/v1/session", "/v2/health/live", "/v2/health/ready"}
"""Paths that need no credentials; of the session, only the login."""


def with_users(station: Served) -> None:
    station.post("/users", {"name": "eve", "role": "engineer", "password": PASSWORD}, status=201)
    token = station.client.post("/api/v1/session", json={"name": "eve", "password": PASSWORD}).json()["csrf"]
    for name, role in (("olga", "operator"), ("vic", "viewer")):
        body = {"name": name, "role": role, "password": PASSWORD}
        answer = station.client.post("/api/v1/users", json=body, headers={"x-csrf-token": token})
        assert answer.status_code == 201, answer.text
    station.client.cookies.clear()


@contextmanager
def logged_in(station: Served, name: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=station.url, timeout=60) as client:
        answer = client.post("/api/v1/session", json={"name": name, "password": PASSWORD})
        assert answer.status_code == 200, answer.text
        client.headers["x-csrf-token"] = answer.json()["csrf"]
        yield client


def test_every_route_has_a_role() -> None:
    found, checked = set(), 0
    for router in [*PAGES, *(module.router for module in ROUTERS)]:
        for route in router.routes:
            assert isinstance(route, APIRoute)
            calls = [dependant.call for dependant in route.dependant.dependencies]
            if any("needs.<locals>" in call.__qualname__ for call in calls if call is not None):
                checked += 1
            else:
                found.add(route.path)
    assert found == OPEN
    assert checked > 40


def test_the_first_user_ends_the_open_station(empty: Served) -> None:
    assert empty.get("/session") == {"name": "local", "role": "engineer", "csrf": None}
    refused = empty.post("/users", {"name": "olga", "role": "operator", "password": PASSWORD}, status=409)
    assert refused["detail"].startswith("user: the first one must be an engineer")
    with_users(empty)
    answer = empty.client.get("/api/v1/products")
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"


def test_roles_have_their_rights_and_no_more(empty: Served) -> None:
    with_users(empty)
    tries = {
        "viewer": ("GET", "/api/v1/products", None),
        "operator": ("POST", "/api/v1/inspections/9/labels", {"verdict": "normal"}),
        "engineer": ("POST", "/api/v1/products", {"name": "caps"}),
    }
    allowed = {"vic": {"viewer"}, "olga": {"viewer", "operator"}, "eve": {"viewer", "operator", "engineer"}}
    for name, roles in allowed.items():
        with logged_in(empty, name) as client:
            for role, (method, path, body) in tries.items():
                status = client.request(method, path, json=body).status_code
                assert (status == 403) == (role not in roles), (name, role, status)
            assert client.patch("/api/v1/users/vic", json={"role": "engineer"}).status_code == (
                200 if name == "eve" else 403
            )


def test_a_session_needs_its_token_and_ends(empty: Served) -> None:
    with_users(empty)
    with logged_in(empty, "eve") as client:
        for token in ("", "wrong"):
            refused = client.post("/api/v1/products", json={"name": "caps"}, headers={"x-csrf-token": token})
            assert refused.status_code == 403
        cookie = client.cookies[COOKIE]
        assert client.delete("/api/v1/session").status_code == 204
    with httpx.Client(base_url=empty.url, cookies={COOKIE: cookie}) as thief:
        assert thief.get("/api/v1/products").status_code == 401
    forged, _ = Sessions(b"another key").issue(1, 0)
    with httpx.Client(base_url=empty.url, cookies={COOKIE: forged}) as thief:
        assert thief.get("/api/v1/products").status_code == 401


def test_a_new_password_or_role_ends_sessions(empty: Served) -> None:
    with_users(empty)
    with logged_in(empty, "olga") as client:
        new_password(empty.station.folder.root, empty.station.settings, "olga", "another password")
        assert client.get("/api/v1/products").status_code == 401
    with logged_in(empty, "vic") as client, logged_in(empty, "eve") as engineer:
        assert engineer.patch("/api/v1/users/vic", json={"active": False}).status_code == 200
        assert client.get("/api/v1/products").status_code == 401
        assert engineer.patch("/api/v1/users/eve", json={"role": "viewer"}).status_code == 409  # the last engineer
        assert engineer.get("/api/v1/products").status_code == 200


def test_tokens_are_shown_once_expire_and_are_revoked(empty: Served) -> None:
    made = empty.post("/tokens", {"name": "line 1", "role": "operator", "days": 1}, status=201)
    assert "token" not in empty.get("/tokens")[0]
    with_users(empty)
    with httpx.Client(base_url=empty.url, headers={"authorization": f"Bearer {made['token']}"}) as line:
        assert line.get("/api/v1/products").status_code == 200
        assert line.post("/api/v1/products", json={"name": "caps"}).status_code == 403
        assert (
            line.post("/api/v1/inspections/9/labels", json={"verdict": None}).status_code == 404
        )  # no other site can send the token
        with logged_in(empty, "eve") as engineer:
            engineer.delete(f"/api/v1/tokens/{made['id']}")
        assert line.get("/api/v1/products").status_code == 401
        for text in ("x", f"{made['token']}x"):
            assert line.get("/api/v1/products", headers={"authorization": f"Bearer {text}"}).status_code == 401


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site", "origin": "http://127.0.0.1:1"},
    ],
)
def test_other_sites_cannot_post(blank: Served, headers: dict[str, str]) -> None:
    answer = blank.client.post("/api/v1/products", json={"name": "caps"}, headers=headers)
    assert answer.status_code == 403
    assert blank.get("/products") == []


@pytest.mark.parametrize(
    "headers", [{"host": "evil.example"}, {"x-forwarded-for": "10.0.0.7"}, {"forwarded": "for=10.0.0.7"}]
)
def test_an_open_station_answers_this_machine_only(blank: Served, headers: dict[str, str]) -> None:
    assert blank.client.get("/api/v1/products", headers=headers).status_code == 401


def test_other_hosts_need_users_or_a_token(tmp_path: Path) -> None:
    for settings, allowed in ((Settings(host="0.0.0.0"), False), (Settings(host="0.0.0.0", token="t" * 20), True)):
        station = Station(tmp_path / "s", settings)
        if allowed:
            check_exposure(station)
        else:
            with pytest.raises(InputError, match="--host 0.0.0.0: .*--add-user NAME --role engineer"):
                check_exposure(station)
        station.recorder.stop()
        station.database.close()
    new_user(tmp_path / "s", Settings(), "eve", "engineer", PASSWORD)
    station = Station(tmp_path / "s", Settings(host="0.0.0.0"))
    check_exposure(station)
    station.recorder.stop()
    station.database.close()


def test_failed_logins_pause(empty: Served) -> None:
    with_users(empty)
    statuses = [
        empty.client.post("/api/v1/session", json={"name": "eve", "password": "wrong"}).status_code for _ in range(6)
    ]
    assert statuses == [401] * 5 + [429]
    right = empty.client.post("/api/v1/session", json={"name": "eve", "password": PASSWORD})
    assert right.status_code == 429
    assert int(right.headers["retry-after"]) >= 1


def test_pauses_double_and_end() -> None:
    seconds = [0.0]
    limit = LoginLimit(lambda: seconds[0])
    for _ in range(5):
        limit.check("eve")
        limit.failed("eve")
    with pytest.raises(BusyError, match="wait 3 s"):
        limit.check("eve")
    limit.check("olga")
    seconds[0] = 2.5
    limit.check("eve")
    limit.failed("eve")
    seconds[0] = 6.0
    with pytest.raises(BusyError):
        limit.check("eve")
    limit.succeeded("eve")
    limit.check("eve")


def test_passwords_are_salted_and_compared() -> None:
    first, second = hash_password(PASSWORD), hash_password(PASSWORD)
    assert first != second
    assert PASSWORD not in first
    assert check_password(PASSWORD, first)
    assert not check_password(PASSWORD + "x", first)
    assert not check_password(PASSWORD, None)
    assert not check_password(PASSWORD, "scrypt$damaged")
    with pytest.raises(InputError, match="choose 10 to 256"):
        hash_password("short")


def test_large_bodies_are_refused(tmp_path: Path) -> None:
    with served(tmp_path / "s", max_request_bytes=1000) as station:
        assert station.client.post("/api/v1/products", content=b"x" * 1001).status_code == 413

        def chunks() -> object:
            yield from [b"x" * 300] * 5

        assert station.client.post("/api/v1/products", content=chunks()).status_code == 413
        answer = station.client.get("/api/v1/products")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "default-src 'self'" in answer.headers["content-security-policy"]


def test_an_address_with_too_many_requests_waits_and_others_do_not(tmp_path: Path) -> None:
    with served(tmp_path / "s", rate=0.001) as station:
        assert station.client.get("/healthz").status_code == 200
        answer = station.client.get("/healthz")
        assert answer.status_code == 429
        assert answer.json()["detail"].startswith("request: too many from this address; wait ")
        assert 1 <= int(answer.headers["retry-after"]) <= 1000
        other = httpx.HTTPTransport(local_address="127.0.0.2")
        with httpx.Client(base_url=station.url, transport=other) as client:
            assert client.get("/healthz").status_code == 200


def test_the_rate_allows_a_burst_and_then_a_steady_flow() -> None:
    seconds = [0.0]
    limit = RateLimit(2.0, clock=lambda: seconds[0])
    assert [limit.wait_s("a") for _ in range(21)] == [0.0] * 20 + [0.5]
    seconds[0] = 1.0
    assert [limit.wait_s("a") for _ in range(3)] == [0.0, 0.0, 0.5]
    assert limit.wait_s("b") == 0.0
    for now in np.random.default_rng(0).uniform(0, 1e7, 100):  # whose differences are rounded
        slow, fast = (RateLimit(rate, clock=lambda now=now: now) for rate in (0.001, 0.7))
        assert (slow.wait_s("a"), round(slow.wait_s("a"), 3)) == (0.0, 1000.0)
        assert [fast.wait_s("a") for _ in range(7)] == [0.0] * 7
        assert fast.wait_s("a") > 1
    assert {RateLimit(0).wait_s("a") for _ in range(100)} == {0.0}
