"""Texts of the pages: one catalogue per language, a JSON file in `catalogues/`."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

__all__ = ["LANGUAGES", "language_of", "texts"]

_CATALOGUES = Path(__file__).parent / "catalogues"

LANGUAGES = tuple(sorted(path.stem for path in _CATALOGUES.glob("*.json")))
"""Languages with a catalogue; English is complete, others fall back to it."""


@cache
def texts(language: str) -> dict[str, str]:
    """Return the texts of a language by key."""
    found: dict[str, str] = json.loads((_CATALOGUES / "en.json").read_text(encoding="utf-8"))
    if language != "en" and language in LANGUAGES:
        found = found | json.loads((_CATALOGUES / f"{language}.json").read_text(encoding="utf-8"))
    return found


def language_of(accepted: str) -> str:
    """Return the first language of an Accept-Language header that has a catalogue; English by default.

    Examples
    --------
    >>> language_of("fr-CH, en;q=0.9"), language_of("")
    ('en', 'en')
    """
    for entry in accepted.split(","):
        language = entry.partition(";")[0].strip().lower()[:2]
        if language in LANGUAGES:
            return language
    return "en"
