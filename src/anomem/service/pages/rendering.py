"""Rendering of pages: templates, escaped, with the texts of the reader's language."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from anomem.runtime.neutral import plain_only
from anomem.runtime.text import number, percent, rate
from anomem.service.access.users import Caller
from anomem.service.pages.texts import LANGUAGES, language_of, texts

__all__ = ["STATIC", "is_fragment", "page"]

_HERE = Path(__file__).parent
STATIC = _HERE / "static"
"""Folder of style sheets and scripts."""

LANGUAGE_COOKIE = "anomem_language"
THEME_COOKIE = "anomem_theme"
THEMES = ("auto", "light", "dark")

_TEMPLATES = Environment(
    loader=FileSystemLoader(_HERE / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    finalize=plain_only,
    trim_blocks=True,
    lstrip_blocks=True,
)


def page(request: Request, name: str, caller: Caller | None, *, status: int = 200, **content: Any) -> HTMLResponse:
    """Return a page from a template in `templates/`.

    Parameters
    ----------
    request : Request
        Gives language and theme, by the reader's cookies or the browser's header.
    name : str
        Template; it finds the texts as `t`.
    caller : Caller or None
        Reader; the template's `reader`, since `caller` has a meaning of its own in macros.
    status : int
        HTTP status.
    **content
        Variables of the template. `place`: model that the page is about, None without.
    """
    chosen = request.cookies.get(LANGUAGE_COOKIE, "")
    language = chosen if chosen in LANGUAGES else language_of(request.headers.get("accept-language", ""))
    theme = request.cookies.get(THEME_COOKIE, "auto")
    content.setdefault("place", None)
    shown = _TEMPLATES.get_template(name).render(
        t=texts(language),
        language=language,
        languages={code: texts(code)["language_name"] for code in LANGUAGES},
        theme=theme if theme in THEMES else "auto",
        themes=THEMES,
        reader=caller,
        path=request.url.path,
        **content,
    )
    return HTMLResponse(shown, status, {"cache-control": "no-store"})


def is_fragment(request: Request) -> bool:
    """Return True if a script asks for a part of the page that it shows already."""
    return "hx-request" in request.headers and "hx-history-restore-request" not in request.headers


def _moment(value: datetime) -> str:
    """Return a point in time, UTC; a script shows it in the reader's own time zone."""
    return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M")


def _whole(value: int) -> str:
    return f"{value:,}"


_TEMPLATES.globals |= {"rate": rate, "percent": percent, "number": number, "whole": _whole, "moment": _moment}
