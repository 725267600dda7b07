"""Pages in Chromium: from an empty station to a promoted model and back; accessibility."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
from playwright.sync_api import Page, expect

from anomem.runtime.text import rate
from tests.service.browser import browser_page, violations
from tests.service.conftest import Shop
from tests.service.pages import PAGES
from tests.service.served import Served
from tests.service.test_loop import finished

pytestmark = pytest.mark.slow

_FILES = "[data-upload] input[type=file]:not([webkitdirectory])"
_QUICK = """for (const place of [20, 60, 200]) {
  const slider = document.getElementById("position");
  slider.value = place;
  slider.dispatchEvent(new Event("input", { bubbles: true }));
}"""
_SHORT_MS = 60_000
_LONG_MS = 300_000


def test_from_an_empty_station_by_mouse_and_keyboard(empty: Served, shop: Shop, tmp_path: Path) -> None:
    expect.set_options(timeout=_SHORT_MS)
    with browser_page(empty.url) as page:
        _fit(page, shop)
        page.goto("/models/1")
        page.set_input_files(_FILES, [*shop.good, *shop.defects])
        page.wait_for_selector("text=of the latest 10 rejected")
        _label(page, empty, {path.name for path in shop.defects})
        _refit_and_return(page, empty)
        page.goto("/models/1/history")
        with page.expect_download() as download:
            page.click("#csv")
        download.value.save_as(tmp_path / "history.csv")
    with (tmp_path / "history.csv").open(encoding="utf-8") as stream:
        assert len(list(csv.DictReader(stream))) == 10


def _fit(page: Page, shop: Shop) -> None:
    page.goto("/")
    page.fill("#create [name=name]", "bricks")
    page.select_option("#create [name=alpha]", "0.1")
    page.click("#create button")
    page.wait_for_url("**/models/1/parts")
    page.set_input_files(_FILES, shop.normals)
    page.wait_for_selector("#fit")
    assert "30 of 30 images sent." in page.inner_text(".drop .said")
    page.select_option("#fit [name=set]", "size=64")
    page.click("#fit button")
    page.wait_for_selector("text=Findings of the fit", timeout=_LONG_MS)


def _label(page: Page, station: Served, defects: set[str]) -> None:
    """Label all ten by keyboard, the first with a mask; take the last one back, and call it unsure."""
    page.goto("/models/1/review")
    expect(page.locator("#alike img")).to_have_count(4)
    _draw_a_polygon(page)
    marks = page.locator(".film .label")
    for done in range(10):
        row = station.get(f"/inspections/{_id(page)}")
        assert row["label"] is None
        page.keyboard.press("d" if row["anomalous"] or row["name"] in defects else "n")
        expect(marks).to_have_count(done + 1)
    page.keyboard.press("z")
    expect(marks).to_have_count(9)
    for key in ("ArrowLeft", "ArrowRight", "u"):
        page.keyboard.press(key)
    expect(marks).to_have_count(10)
    labels = station.get("/models/1/labels")
    assert [row["verdict"] for row in labels].count("unsure") == 1
    assert sum(row["mask_sha256"] is not None for row in labels) == 1


def _refit_and_return(page: Page, station: Served) -> None:
    page.goto("/models/1/versions")
    page.click("#refit button")
    page.wait_for_selector("#promote", timeout=_LONG_MS)
    page.click("#promote button")
    page.wait_for_selector("tr.current th:text-is('2')")
    assert _states(station) == ["current", "retired"]
    page.click("#rollback button")
    page.wait_for_selector("tr.current th:text-is('1')")
    assert _states(station) == ["retired", "current"]


def _id(page: Page) -> int:
    return int(page.get_attribute(".film [aria-current]", "data-id"))


def _states(station: Served) -> list[str]:
    return [version["state"] for version in station.get("/models/1/versions")]


def _draw_a_polygon(page: Page) -> None:
    page.click("[data-tool=polygon]")
    box = page.locator("#mask").bounding_box()
    for x, y in ((0.2, 0.2), (0.6, 0.2), (0.6, 0.6), (0.2, 0.2)):
        page.mouse.click(box["x"] + x * box["width"], box["y"] + y * box["height"])
    page.click("[data-tool=move]")


def test_the_threshold_is_dragged_by_keyboard_and_mouse(brick: Served, shop: Shop) -> None:
    brick.inspect(*shop.good, *shop.defects)
    with browser_page(brick.url) as page:
        page.goto("/models/1/threshold")
        before = page.inner_text("#alpha button")
        page.focus("#position")
        page.keyboard.press("Home")
        page.wait_for_selector("#alpha button:text-is('Use 50 %')")
        assert before != "Use 50 %"
        least = rate(brick.get("/models/1/preview")["alpha_min"])
        page.evaluate(_QUICK)
        page.wait_for_selector(f"#alpha button:text-is('Use {least}')")
        page.keyboard.press("Home")
        page.wait_for_selector("#alpha button:text-is('Use 50 %')")
        chart = page.locator(".chart").bounding_box()
        page.mouse.move(chart["x"] + 5, chart["y"] + 50)
        page.mouse.down()
        page.mouse.move(chart["x"] + chart["width"] - 5, chart["y"] + 50)
        page.mouse.up()
        page.wait_for_selector(f"#alpha button:text-is('Use {least}')")
        page.click("#alpha button")
        expect(page.locator("#alpha button")).to_be_disabled()
    assert brick.get("/models/1")["alpha"] == brick.get("/models/1/preview")["alpha_min"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_on_any_page(brick: Served, shop: Shop, scheme: str) -> None:
    found = brick.inspect(*shop.good, *shop.defects)
    for row, verdict in zip(found[-3:], ("defect", "normal", "unsure"), strict=True):
        brick.post(f"/inspections/{row['id']}/labels", {"verdict": verdict}, status=201)
    brick.post("/tokens", {"name": "camera", "role": "operator"}, status=201)
    brick.post("/products/1/sinks", {"kind": "webhook", "target": "http://127.0.0.1:9/"}, status=201)
    job = finished(brick, brick.post("/models/1/rescore", {"version": 1}, status=202))
    with browser_page(brick.url, color_scheme=scheme) as page:
        for path in ("/login", *PAGES, f"/models/1/comparisons/{job['id']}"):
            page.goto(path)
            page.wait_for_load_state("load")
            assert violations(page) == [], path


def test_pages_fit_on_a_tablet_and_at_200_percent(brick: Served, shop: Shop) -> None:
    brick.inspect(*shop.good, *shop.defects)
    for width in (820, 640):
        with browser_page(brick.url, viewport={"width": width, "height": 600}) as page:
            for path in PAGES:
                page.goto(path)
                assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (width, path)
