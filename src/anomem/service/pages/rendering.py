"""Rendering of pages: templates, escaped, with the texts of the reader's language."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from anomem.runtime.neutral import plain_only
from anomem.runtime.text import number, percent, rate
from anomem.service.access.users import Caller
from anomem.service.pages.texts import language_of, texts

__all__ = ["STATIC", "page"]

_HERE = Path(__file__).parent
STATIC = _HERE / "static"
"""Folder of style sheets and scripts."""

_TEMPLATES = Environment(
    loader=FileSystemLoader(_HERE / "templates"), autoescape=True, undefined=StrictUndefined, finalize=plain_only
)
_TEMPLATES.globals |= {"rate": rate, "percent": percent, "number": number}


def page(request: Request, name: str, caller: Caller | None, **content: Any) -> HTMLResponse:
    """Return a page from a template in `templates/`; `t` holds its texts, `caller` the reader."""
    language = language_of(request.headers.get("accept-language", ""))
    shown = _TEMPLATES.get_template(name).render(t=texts(language), language=language, caller=caller, **content)
    return HTMLResponse(shown)
