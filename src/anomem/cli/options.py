"""Options shared by several commands."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from anomem.runtime.limits import MAX_PIXELS

F = TypeVar("F", bound=Callable[..., Any])


class _Path(click.Path):
    """Path that is not empty: an unset variable of a shell script must not mean the current folder."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("is empty; name a file or folder, '.' for this one", param, ctx)
        return super().convert(value, param, ctx)


class _Source(_Path):
    """Path, or a URL, which stays text: a path would merge its slashes."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return value if isinstance(value, str) and "://" in value else super().convert(value, param, ctx)


PATH = _Path(path_type=Path)
SOURCE = _Source(path_type=Path)
ALPHA = click.FloatRange(0, 1, min_open=True, max_open=True)

as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
normal = click.option("--normal", metavar="CLASS", help="Normal class, if DATA has one folder per class.")
group_by = click.option(
    "--group-by",
    metavar="near|folder|REGEX",
    help="Images that count once (same part, lot or burst): near-duplicates, folders, or the match of REGEX in "
    "the path.",
)
calibrate_by = click.option(
    "--calibrate-by",
    "strata",
    metavar="COLUMN|folder|REGEX",
    help="Strata (camera, product, shift), each with a calibration of its own: a column of the table, the image's "
    "folder, or the match of REGEX in the path.",
)
fdr = click.option(
    "--fdr",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    metavar="Q",
    help="Judge the images together, too: on average over batches at most the share Q of the rejected is normal.",
)
every = click.option(
    "--every",
    type=click.IntRange(1),
    default=10,
    show_default=True,
    metavar="N",
    help="Use every Nth frame of a video.",
)
skip_bad = click.option("--skip-bad", is_flag=True, help="Leave out unreadable images and list them.")

max_pixels = click.option(
    "--max-pixels",
    type=click.IntRange(1),
    metavar="N",
    help="Maximum number of pixels (width times height) per image or video frame; larger ones are refused.  "
    f"[default: {MAX_PIXELS}]",
)


def alpha(text: str, *, required: bool = False) -> Callable[[F], F]:
    """Return the option ``--alpha`` with the given help text."""
    return click.option("--alpha", type=ALPHA, help=text, required=required)


def running(command: F) -> F:
    """Add the options that affect speed but not results."""
    options = (
        click.option("--batch-size", type=click.IntRange(1), default=16, show_default=True, help="Images per batch."),
        click.option("--workers", type=click.IntRange(0), help="Number of decoding threads.  [default: one per core]"),
        click.option("--device", default="auto", show_default=True, help="Device: cpu, cuda, cuda:1, ..."),
    )
    for option in reversed(options):
        command = option(command)
    return command
