"""Texts of the pages: all in the catalogues, the same in every language."""

from __future__ import annotations

import re
import string
from pathlib import Path

import pytest

from anomem.service.pages.rendering import STATIC
from anomem.service.pages.texts import LANGUAGES, language_of, texts
from tests.service.conftest import Shop
from tests.service.pages import Page, shown
from tests.service.served import Served

TEMPLATES = sorted((STATIC.parent / "templates").rglob("*.html"))
READ = ("alt", "title", "aria-label", "placeholder")
"""Attributes that readers see or hear."""

UNIVERSAL = {"CSV", "Parquet", "AUROC", "p =", "anomem", "anomem serve  --backup station.tar", "N", "D", "U", "Z"}
"""Texts that are the same in every language."""


def fields(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_catalogue_has_the_same_keys_and_fields(language: str) -> None:
    english, other = texts("en"), texts(language)
    assert other.keys() == english.keys()
    for key, text in other.items():
        assert fields(text) == fields(english[key]), key
        assert text.strip()


def test_shipped_languages() -> None:
    assert LANGUAGES == ("de", "en", "zh")
    differing = [key for key, text in texts("de").items() if text != texts("zh")[key]]
    assert len(differing) > 200
    assert [language_of(accepted) for accepted in ("zh-CN,zh;q=0.9", "fr, de;q=0.8", "")] == ["zh", "de", "en"]


def test_keys_are_no_names_of_methods() -> None:
    """A template would find the method of the dictionary first."""
    assert not [key for key in texts("en") if hasattr(dict, key)]


def test_keys_are_used() -> None:
    content = " ".join(path.read_text("utf-8") for path in TEMPLATES)
    whole = set(re.findall(r"\bt\.(\w+)", content)) | {"language_name"}
    starts = tuple(re.findall(r"t\[['\"](\w+_)['\"] ~", content) + re.findall(r"known\(\"(\w+_)\"", content))
    assert not [key for key in texts("en") if key not in whole and not key.startswith(starts)]


@pytest.mark.parametrize("path", TEMPLATES, ids=str)
def test_no_text_outside_the_catalogue(path: Path) -> None:
    content = path.read_text("utf-8")
    plain = re.sub(r"{#.*?#}|{%.*?%}|{{.*?}}", "", content, flags=re.DOTALL)
    page = Page(plain)
    found = [text for text in page.texts if re.search(r"[^\W\d_]", text) and text not in UNIVERSAL]
    found += [
        value for _, attributes in page.tags for name in READ if re.search(r"\w\w", value := attributes.get(name, ""))
    ]
    assert found == []


def test_scripts_hold_no_sentences() -> None:
    for path in STATIC.glob("*.js"):
        code = re.sub(r"//.*", "", path.read_text("utf-8"))
        assert not re.findall(r"[\"'`][A-Z][a-z]+ [a-z]+", code), path.name


def test_language_by_cookie_and_by_browser(brick: Served, shop: Shop) -> None:
    brick.inspect(shop.good[0])
    assert "Verlauf" in shown(brick, "/models/1/history", **{"accept-language": "de-CH"}).texts
    page = shown(brick, "/models/1/history", cookie="anomem_language=zh; anomem_theme=dark")
    assert "历史" in page.texts
    assert page.named("html") == [{"lang": "zh", "data-theme": "dark"}]
    wrong = shown(brick, "/", cookie='anomem_language=../x; anomem_theme="><b>')
    assert wrong.named("html") == [{"lang": "en", "data-theme": "auto"}]
