"""Chromium for tests of pages; skips with the reason where it is missing."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Page

AXE = Path(__file__).parent / "axe" / "axe.min.js"
_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
_CHROMIUM = shutil.which("chromium")


@contextmanager
def browser_page(url: str, **options: Any) -> Iterator[Page]:
    """Open Chromium on an empty page; errors of scripts fail the test."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if _CHROMIUM is None:
        pytest.skip("no chromium on this machine")
    with playwright.sync_playwright() as run:
        browser = run.chromium.launch(executable_path=_CHROMIUM, args=list(_FLAGS))
        try:
            page = browser.new_page(base_url=url, **options)
            page.set_default_timeout(60_000)
            problems: list[str] = []
            page.on("pageerror", lambda error: problems.append(str(error)))
            yield page
        finally:
            browser.close()
    assert problems == []


def violations(page: Page) -> list[str]:
    """Return the findings of axe-core on the page shown, one line each."""
    page.evaluate(AXE.read_text("utf-8"))  # not a script element: the page allows none of other origin
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [f"{each['id']}: {node['target']}" for each in found["violations"] for node in each["nodes"]]
