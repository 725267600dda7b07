"""Escaping of external text, such as file names, for terminals, web pages and spreadsheets."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

__all__ = ["cell", "csv_text", "path_cell", "plain_only", "printable"]

_CONTROLS = (*range(0x20), *range(0x7F, 0xA0), 0x61C, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A))
"""Control characters, line and paragraph separators, and marks that change the text direction."""

_ESCAPES = {code: f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" for code in _CONTROLS}
_ESCAPES |= {0x09: "\\t", 0x0A: "\\n", 0x0D: "\\r"}
_ESCAPES |= {0xDC00 + code: f"\\x{code:02x}" for code in range(0x80, 0xA0)}  # undecodable bytes

_CELL_ESCAPES = {code: text for code, text in _ESCAPES.items() if code < 0xA0 and chr(code) not in "\t\n\r"}
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
_QUOTED = frozenset(',;"\t\r\n')


def printable(text: str, *, keep: str = "") -> str:
    r"""Return a text with escaped control characters, for a terminal or a page.

    Parameters
    ----------
    text : str
        Any text, such as a file name; undecodable bytes are lone surrogates, as from `os.fsdecode`.
    keep : str
        Control characters left unescaped.

    Examples
    --------
    >>> print(printable("a\x1b]0;title\x07.png"))
    a\x1b]0;title\x07.png
    """
    table = {code: escape for code, escape in _ESCAPES.items() if chr(code) not in keep} if keep else _ESCAPES
    return text.translate(table)


def plain_only(value: object) -> object:
    """Escape plain text like `printable` and return other values unchanged, for a template's ``finalize``."""
    return printable(value, keep="\n\t") if type(value) is str else value


def cell(text: str) -> str:
    """Return a text that spreadsheets do not read as a formula, without terminal codes."""
    harmless = text.translate(_CELL_ESCAPES)
    return f"'{harmless}" if harmless.lstrip(" ").startswith(_FORMULA) else harmless


def path_cell(path: str) -> str:
    """Return a path like `cell`, with "./" before an apparent formula, so that it still opens."""
    harmless = path.translate(_CELL_ESCAPES)
    return f".{os.sep}{harmless}" if harmless.lstrip(" ").startswith(_FORMULA) else harmless


def csv_text(rows: Iterable[Sequence[object]]) -> str:
    """Return rows as CSV: one line per row, None empty, texts as :func:`cell` gives them.

    Examples
    --------
    >>> csv_text([("name", "score"), ("=1+1", -0.5), ("a,b", None)]).splitlines()
    ['name,score', "'=1+1,-0.5", '"a,b",']
    """
    return "".join(",".join(map(_field, row)) + "\n" for row in rows)


def _field(value: object) -> str:
    if value is None:
        return ""
    # An escaped path is unchanged.
    text = cell(value) if isinstance(value, str) else str(value)
    return '"' + text.replace('"', '""') + '"' if _QUOTED & set(text) else text
