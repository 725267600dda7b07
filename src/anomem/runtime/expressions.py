"""Regular expressions that people give: those whose search could take for ever are known beforehand."""

from __future__ import annotations

import re

__all__ = ["MOST_REPEATS", "endless"]

MOST_REPEATS = 8
"""Maximum number of repeats of an expression; the time of a search grows with a power of at most that."""

_TOKEN = re.compile(
    r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\(\?#[^)]*\)"  # escaped, class, comment
    r"|\((?:\?(?:P?<\w+>|<[=!]|[a-zA-Z-]*:|[=!>]))?"  # opening
    r"|\{(?P<fixed>\d+)\}[?+]?|(?P<many>[*+]|\{\d*,\d*\})[?+]?|.",
    re.DOTALL,
)
_VERBOSE = re.compile(r"\(\?[a-zA-Z]*x")


def endless(expression: str) -> bool:
    r"""Return True for a repeat or choice inside a repeat, and for more than `MOST_REPEATS` repeats.

    Their time grows exponentially with the length of a text, or as a high power of it. Others are not refused, though a
    rare one of them is slow too.

    Examples
    --------
    >>> endless(r"([^/]+)_[0-9]+\.png$"), endless("(?:[^/]+/){2}"), endless("(a+)+"), endless("(a|b)*")
    (False, False, True, True)
    """
    if _VERBOSE.search(expression):
        expression = "".join(re.sub(r"(?<!\\)#.*", "", expression).split())
    inside, last, grows = [0], 0, False
    for token in _TOKEN.finditer(expression):
        text = token[0]
        if text.startswith("("):
            if not text.startswith("(?#"):
                inside.append(0)
                last, grows = 0, False
        elif text == ")" and len(inside) > 1:
            last = inside.pop()
            grows = last > 0
            inside[-1] += last
        elif token["fixed"]:
            inside[-1] += last * (min(int(token["fixed"][:4]), 1000) - 1)
            last, grows = 0, False
        elif token["many"] or text == "?":
            if grows and text != "?":
                return True
            inside[-1], last, grows = inside[-1] + 1, 0, False
        else:
            inside[-1] += text == "|" and len(inside) > 1  # a choice counts where something repeats it
            last, grows = 0, False
    return inside[0] > MOST_REPEATS
