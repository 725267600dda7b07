"""Pages as a reader gets them: text, forms, attributes."""

from __future__ import annotations

from html.parser import HTMLParser

from tests.service.served import Served

MODEL_PAGES = ("", "/review", "/versions", "/threshold", "/history", "/drift", "/parts", "/settings", "/batch")
PAGES = ("/", "/users", "/audit", "/station", *(f"/models/1{path}" for path in MODEL_PAGES))
"""All pages of a station with one model."""


class Page(HTMLParser):
    """Parsed page.

    Parameters
    ----------
    content : str
        HTML.
    """

    def __init__(self, content: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.feed(content)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep a tag."""
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        """Keep a text."""
        if data.strip():
            self.texts.append(data.strip())

    def named(self, tag: str) -> list[dict[str, str]]:
        """Attributes of all tags of a kind."""
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def forms(self) -> list[str]:
        """Addresses that forms are sent to, without the interface's start."""
        return [form["data-api"].removeprefix("/api/v1") for form in self.named("form") if "data-api" in form]


def shown(station: Served, path: str, *, status: int = 200, **headers: str) -> Page:
    """Return a page, which must come with a status."""
    answer = station.client.get(path, headers=headers)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    return Page(answer.text)
