"""External text is neutralised in terminals, pages and spreadsheets."""

from __future__ import annotations

import csv
import io
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import Environment
from markupsafe import Markup

from anomem.runtime.neutral import cell, csv_text, path_cell, plain_only, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a.png", "a.png"),
        ("検査 é.png", "検査 é.png"),
        ("a\x1b]0;title\x07", "a\\x1b]0;title\\x07"),
        ("a\nb\tc\rd", "a\\nb\\tc\\rd"),
        ("a\x9bm\x7f", "a\\x9bm\\x7f"),
        ("gpj\u202egnp.exe", "gpj\\u202egnp.exe"),
        (os.fsdecode(b"a\x9b\xe9"), os.fsdecode(b"a\\x9b\xe9")),
    ],
)
def test_control_characters_are_written_out(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_columns_stay_apart() -> None:
    assert printable("a\tb\n", keep="\t") == "a\tb\\n"


@given(st.text())
def test_nothing_that_a_terminal_obeys_is_left(text: str) -> None:
    assert all(character >= " " and not "\x7f" <= character <= "\x9f" for character in printable(text))


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", " =", "＝"])
def test_no_cell_begins_as_a_formula(start: str) -> None:
    assert cell(f"{start}1+1") == f"'{start}1+1"
    assert path_cell(f"{start}1.png") == f"./{start}1.png"


def test_numbers_are_no_formulas() -> None:
    assert csv_text([(-1.5, None, "-1.5")]) == "-1.5,,'-1.5\n"


@given(st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"], include_characters='\r\n\t,;"')), min_size=2))
def test_rows_read_back(names: list[str]) -> None:
    rows = list(csv.reader(io.StringIO(csv_text([[path_cell(f"x{name}") for name in names]]), newline="")))
    assert rows == [[f"x{name}" for name in names]]


def test_pages_show_plain_text_only() -> None:
    environment = Environment(autoescape=True, finalize=plain_only)
    page = environment.from_string("{{ name }} {{ mark }} {{ n }}").render(
        name="<b>\u202e\x1b", mark=Markup("<i>"), n=3
    )
    assert page == "&lt;b&gt;\\u202e\\x1b <i> 3"
