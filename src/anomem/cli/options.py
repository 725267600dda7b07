"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from anomem.runtime.limits import MAX_PIXELS

F = TypeVar("F", bound=Callable[..., Any])

PATH = click.Path(path_type=Path)
ALPHA = click.FloatRange(0, 1, min_open=True, max_open=True)

as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
normal = click.option("--normal", metavar="CLASS", help="The class that is normal, where DATA has one folder a class.")
group_by = click.option(
    "--group-by",
    metavar="near|folder|REGEX",
    help="Images of one part, lot or burst, which count once: near-duplicates, one folder each, or what REGEX finds in "
    "the path.",
)
skip_bad = click.option("--skip-bad", is_flag=True, help="List unreadable images and leave them out.")

max_pixels = click.option(
    "--max-pixels",
    type=click.IntRange(1),
    default=MAX_PIXELS,
    show_default=True,
    metavar="N",
    help="Refuse images of more pixels (width times height) before they are decoded.",
)


def alpha(text: str, **options: Any) -> Callable[[F], F]:
    """Option ``--alpha`` with a help text of its own."""
    return click.option("--alpha", type=ALPHA, help=text, **options)


def running(command: F) -> F:
    """Options that change how fast a command runs, not what it finds."""
    options = (
        click.option("--batch-size", type=click.IntRange(1), default=16, show_default=True, help="Images at a time."),
        click.option("--workers", type=click.IntRange(0), help="Threads that decode images.  [default: one a core]"),
        click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, ..."),
    )
    for option in reversed(options):
        command = option(command)
    return command
