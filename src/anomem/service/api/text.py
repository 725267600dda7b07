"""Texts of requests: no control characters, nothing that a database refuses."""

from __future__ import annotations

from typing import Annotated, TypeVar

from pydantic import AfterValidator

__all__ = ["Line", "checked"]

T = TypeVar("T")


def checked(value: T) -> T:
    r"""Return a value as it is; ValueError if a text in it holds control characters other than tab and line feed.

    Examples
    --------
    >>> checked({"name": ["caps", 7]})
    {'name': ['caps', 7]}
    >>> checked("a\x00")
    Traceback (most recent call last):
    ValueError: holds control characters
    """
    if isinstance(value, str):
        if any((c < " " and c not in "\t\n") or "\x7f" <= c < "\xa0" or "\ud800" <= c <= "\udfff" for c in value):
            raise ValueError("holds control characters")
    elif isinstance(value, dict):
        for key, member in value.items():
            checked(key)
            checked(member)
    elif isinstance(value, (list, tuple)):
        for member in value:
            checked(member)
    return value


Line = Annotated[str, AfterValidator(checked)]
"""Text of a form or query."""
