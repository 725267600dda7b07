"""Pages over HTTP: content, escaping, access, parts of pages."""

from __future__ import annotations

import pytest

from anomem.service.store.tables import Job
from tests.service.conftest import Shop
from tests.service.pages import PAGES, Page, shown
from tests.service.served import Served
from tests.service.test_access import logged_in, with_users

EVIL = "<script>alert('x')</script>\"><img src=x onerror=alert(1)>"


def test_every_page_is_shown_with_and_without_inspections(brick: Served, shop: Shop) -> None:
    for path in PAGES:
        shown(brick, path)
    brick.inspect(*shop.good[:2], *shop.defects[:2])
    brick.post("/inspections/3/labels", {"verdict": "defect", "type": "hole"}, status=201)
    for path in PAGES:
        page = shown(brick, path)
        assert len(page.named("main")) == len(page.named("h1")) == len(page.named("title")) == 1
        scripts = page.named("script")
        assert all(script["src"].startswith("/static/") for script in scripts)
        assert not page.named("style")
        inline = [name for _, attributes in page.tags for name in attributes if name == "style" or name[:2] == "on"]
        assert inline == []


def test_an_empty_station_leads_from_product_to_good_parts(empty: Served) -> None:
    assert 'id="create"' in empty.client.get("/").text
    empty.post("/products", {"name": "caps"}, status=201)
    empty.post("/products/1/models", {"name": "top", "alpha": 0.1}, status=201)
    assert empty.client.get("/models/1").headers["location"] == "/models/1/parts"
    parts = shown(empty, "/models/1/parts")
    assert "/models/1/fit" not in parts.forms  # nothing to learn from
    assert [zone["data-upload"] for zone in parts.named("section") if "data-upload" in zone] == [
        "/api/v1/models/1/normals"
    ]
    assert "no version" in " ".join(shown(empty, "/models/1/threshold", status=409).texts)


def test_html_in_every_text_field_is_escaped(brick: Served, shop: Shop) -> None:
    brick.client.post("/api/v1/products", json={"name": "caps", "note": EVIL})
    image = shop.good[0].read_bytes()
    brick.client.post(
        "/api/v1/models/1/inspections", files=[("images", ("<b onclick=x>.png", image))], data={"stratum": ""}
    ).raise_for_status()
    brick.post("/inspections/1/labels", {"verdict": "defect", "type": EVIL[:120], "comment": EVIL}, status=201)
    brick.client.post("/api/v1/products/1/sinks", json={"kind": "webhook", "target": f"http://127.0.0.1:9/{EVIL}"})
    brick.client.post("/api/v1/models/1/normals", files=[("images", ("<i onload=x>.png", image))]).raise_for_status()
    brick.post("/tokens", {"name": EVIL, "role": "viewer"}, status=201)
    for path in [*PAGES, "/models/1/review?inspection=1", f"/models/1/history?name={EVIL}", f"/login?next=/{EVIL}"]:
        page = Page(brick.client.get(path).text)
        assert not [attributes for _, attributes in page.tags if {"onclick", "onerror", "onload"} & attributes.keys()]
        assert all("src" in script for script in page.named("script"))
    assert EVIL in shown(brick, "/").texts  # escaped, hence a text
    assert "<b onclick=x>.png" in shown(brick, "/models/1/history").texts


def test_a_reader_without_a_session_is_sent_to_the_login_and_back(brick: Served) -> None:
    with_users(brick)
    for path in PAGES:
        answer = brick.client.get(path)
        assert answer.status_code == 303
        assert answer.headers["location"].startswith("/login")
    there = brick.client.get("/models/1/history?label=defect").headers["location"]
    (form,) = [form for form in shown(brick, there).named("form") if form.get("id") == "login"]
    assert form["data-then"] == "/models/1/history?label=defect"
    part = brick.client.get("/models/1", headers={"hx-request": "true"})
    assert (part.status_code, part.headers["hx-redirect"]) == (401, "/login")


@pytest.mark.parametrize("elsewhere", ["https://example.org", "//example.org", "/\\example.org", "javascript:alert(1)"])
def test_the_login_leads_to_no_other_site(blank: Served, elsewhere: str) -> None:
    page = Page(blank.client.get("/login", params={"next": elsewhere}).text)
    assert [form["data-then"] for form in page.named("form") if form.get("id") == "login"] == ["/"]


def test_pages_carry_the_token_that_the_session_needs(brick: Served) -> None:
    with_users(brick)
    with logged_in(brick, "eve") as client:
        page = Page(client.get("/").text)
        (token,) = [meta["content"] for meta in page.named("meta") if meta.get("name") == "csrf"]
        del client.headers["x-csrf-token"]
        assert client.delete("/api/v1/session").status_code == 403
        assert client.delete("/api/v1/session", headers={"x-csrf-token": token}).status_code == 204


def test_pages_offer_what_the_role_may_do(brick: Served, shop: Shop) -> None:
    brick.inspect(*shop.defects[:2])
    with_users(brick)
    offered = {}
    for name in ("vic", "olga", "eve"):
        with logged_in(brick, name) as client:
            for path in ("/users", "/audit", "/station", "/models/1/settings"):
                assert client.get(path).status_code == (200 if name == "eve" else 403)
            pages = [Page(client.get(f"/models/1{path}").text) for path in ("", "/versions", "/threshold", "/parts")]
            offered[name] = {form for page in pages for form in page.forms if form != "/session"}
            review = client.get("/models/1/review").text
            assert ("data-verdict" in review) == (name != "vic")
    assert offered["vic"] == set()
    assert offered["olga"] == set()
    assert offered["eve"] == {"/models/1/refit", "/models/1/alpha"}


def test_a_script_gets_parts_of_pages(brick: Served, shop: Shop) -> None:
    brick.inspect(shop.good[0])
    for path, root in {
        "/models/1": "live",
        "/models/1/versions": "versions",
        "/models/1/threshold?position=3": "preview",
        "/models/1/history": "results",
        "/models/1/drift": "drift",
        "/models/1/job": "job",
        "/audit": "entries",
    }.items():
        page = shown(brick, path, **{"HX-Request": "true"})
        assert page.tags[0][1]["id"] == root
        assert not page.named("html")


def test_problems_are_pages(brick: Served) -> None:
    assert "model 99: does not exist; see the list of models" in shown(brick, "/models/99", status=404).texts
    assert "This page does not exist." in shown(brick, "/models/none", status=404).texts
    texts = shown(brick, "/models/1/history?label=best", status=422).texts
    assert any(text.startswith("label: ") and text.endswith("change the filter") for text in texts)
    shown(brick, "/models/1/threshold?position=1000", status=404)


def test_history_is_paged_and_filtered(brick: Served, shop: Shop) -> None:
    brick.inspect(*shop.good, *shop.defects)
    brick.post("/inspections/7/labels", {"verdict": "defect"}, status=201)

    def ids(path: str) -> list[int]:
        links = [link["href"] for link in shown(brick, path).named("a") if "?inspection=" in link["href"]]
        return [int(link.rpartition("=")[2]) for link in links]

    def turn(path: str, word: str) -> str:
        (found,) = [link["href"] for link in shown(brick, path).named("a") if f"?{word}=" in link["href"]]
        return found

    start = "/models/1/history?limit=4"
    assert ids(start) == [10, 9, 8, 7]
    older = turn(start, "before") + "&limit=4"
    assert ids(older) == [6, 5, 4, 3]
    assert ids(turn(older, "after") + "&limit=4") == [10, 9, 8, 7]
    assert ids("/models/1/history?label=defect&anomalous=&name=&since=2020-01-01&until=") == [7]
    links = {link.get("id"): link["href"] for link in shown(brick, "/models/1/history?label=defect").named("a")}
    exported = brick.client.get(links["csv"]).text.splitlines()
    assert len(exported) == 2  # the header, and the one that is labelled


def test_the_review_begins_with_the_inspection_asked_for(brick: Served, shop: Shop) -> None:
    brick.inspect(*shop.good[:2], *shop.defects[:2])
    for wanted in (2, 3):
        page = shown(brick, f"/models/1/review?inspection={wanted}")
        queue = [int(button["data-id"]) for button in page.named("button") if "data-id" in button]
        assert queue[0] == wanted
        assert sorted(queue) == [1, 2, 3, 4]
    assert brick.client.get("/inspections/3").headers["location"] == "/models/1/review?inspection=3"
    shown(brick, "/models/1/review?inspection=99", status=404)


def test_the_threshold_moves_along(brick: Served, shop: Shop) -> None:
    found = brick.inspect(*shop.good, *shop.defects)
    for row in found[5:]:
        brick.post(f"/inspections/{row['id']}/labels", {"verdict": "defect"}, status=201)
    rates, rejected = [], []
    for position in (0, 100, 200):
        page = shown(brick, f"/models/1/threshold?position={position}", **{"HX-Request": "true"})
        (alpha,) = [field["value"] for field in page.named("input") if field["name"] == "alpha"]
        seen = brick.get("/models/1/preview", alpha=alpha)
        assert [bar["class"] for bar in page.named("rect")].count("ng") <= len(seen["counts"])
        rates.append(float(alpha))
        rejected.append(len(page.named("a")))
        assert rejected[-1] == len(seen["missed"])
    assert rates[0] == 0.5
    assert rates[2] == pytest.approx(brick.get("/models/1/preview")["alpha_min"])
    assert rejected == sorted(rejected)


@pytest.mark.parametrize("state", ["running", "failed", "cancelled", "done"])
def test_jobs_are_shown_in_every_state(brick: Served, state: str) -> None:
    problem = "labels: no defect is labelled; label one" if state == "failed" else None
    with brick.station.database.writing() as session:
        progress = {"stage": "features", "step": 3, "total": 8}
        session.add(Job(model_id=1, kind="refit", state=state, progress=progress, error=problem))
    page = shown(brick, "/models/1/versions")
    assert ("/jobs/1/cancel" in page.forms) == (state == "running")
    bars = [(bar["value"], bar["max"]) for bar in page.named("progress")]
    assert bars == ([("3", "8")] if state == "running" else [])
    assert (problem in page.texts) == (state == "failed")


def test_a_comparison_shows_which_verdicts_change(brick: Served, shop: Shop) -> None:
    found = brick.inspect(*shop.good[:2], *shop.defects[:2])
    brick.post(f"/inspections/{found[2]['id']}/labels", {"verdict": "defect"}, status=201)
    rows = [[row["id"], row["score"], 0.5, False, row["anomalous"] or row is found[2]] for row in found]
    with brick.station.database.writing() as session:
        result = {"rows": rows, "changed": 1}
        session.add(Job(model_id=1, kind="rescore", state="done", params={"version": 1}, result=result))
    page = shown(brick, "/models/1/comparisons/1")
    changed = [row[0] for row in rows if row[4]]
    pictures = [image["src"] for image in page.named("img") if "/inspections/" in image["src"]]
    assert sorted(pictures) == [f"/api/v1/inspections/{number}/picture.png?width=160" for number in changed]
    links = [link["href"] for link in shown(brick, "/models/1/versions").named("a")]
    assert "/models/1/comparisons/1" in links
    shown(brick, "/models/1/comparisons/2", status=404)


def test_a_batch_is_judged_on_its_page(brick: Served, shop: Shop) -> None:
    found = brick.inspect(*shop.good, *shop.defects)
    body = {"inspections": [row["id"] for row in found], "fdr": 0.3}
    rejected = brick.post("/models/1/batch", body)["rejected"]
    page = shown(brick, "/models/1/batch?n=50&fdr=0.3")
    pictures = [image["src"] for image in page.named("img") if "/inspections/" in image["src"]]
    assert sorted(pictures) == sorted(f"/api/v1/inspections/{number}/picture.png?width=240" for number in rejected)
    shown(brick, "/models/1/batch?fdr=2", status=404)


def test_a_product_takes_a_second_model(brick: Served) -> None:
    assert "/products/1/models" in shown(brick, "/").forms
