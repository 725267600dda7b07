"""Scoring in shards: options of `score`, and the call."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from anomem.cli.output import Output, check_folder
from anomem.cli.progress import bars
from anomem.cli.promising import above_threshold, threshold_facts
from anomem.cli.session import Session
from anomem.errors import InputError, MissingExtraError
from anomem.runtime.neutral import printable
from anomem.runtime.text import count

F = TypeVar("F", bound=Callable[..., Any])

SHARDED = ("processes", "ray")
"""Engines that score in shards."""

_TOGETHER = {"fdr": "--fdr", "group_by": "--group-by"}
"""Options that judge all images together."""


def sharding(command: F) -> F:
    """Add the options of engines that score in shards."""
    found = (
        click.option("--address", metavar="A", help="Ray cluster, for --engine ray.  [default: this machine]"),
        click.option("--shard-images", type=click.IntRange(1), metavar="N", help="Images per shard.  [default: 1000]"),
    )
    for option in reversed(found):
        command = option(command)
    return command


def on_disk(images: Sequence[Path | str], address: str | None, shard_images: int | None) -> list[Path]:
    """Return paths; InputError for a URL, a tar or an option of the engines that score in shards."""
    for name, value in (("--address", address), ("--shard-images", shard_images)):
        if value is not None:
            raise InputError(f"{name}: is for --engine processes or ray, which score in shards; name one of them")
    for image in images:
        if isinstance(image, str):
            raise InputError(f"{image}: is a URL; read it with --engine processes or ray, and a folder as --out")
        if image.suffix.lower() == ".tar":
            raise InputError(f"{image}: is a tar; read it with --engine processes or ray, and a folder as --out")
    return [Path(image) for image in images]


def score_in_shards(
    session: Session,
    model: Path,
    images: Sequence[Path | str],
    out: Path | None,
    engine: str,
    address: str | None,
    shard_images: int | None,
    output: Output,
    wanted: dict[str, Any],
) -> None:
    """Score in shards and print the counts."""
    if out is None:
        raise InputError(f"--engine {engine}: results are a folder of shards; name it as --out")
    for name, option in _TOGETHER.items():
        if wanted.pop(name) is not None:
            raise InputError(f"{option}: judges all images together, which shards do not; read the shards to do so")
    if address is not None and engine != "ray":
        raise InputError("--address: is of a Ray cluster; add --engine ray")
    if importlib.util.find_spec("pyarrow") is None:
        raise MissingExtraError("pyarrow", "tables")
    check_folder(out)
    session.reads(model, *(image for image in images if isinstance(image, Path)))
    session.left = f"{out} holds the finished shards: run the command again to continue"
    wanted.pop("skip_bad")
    from anomem.loading import load
    from anomem.scale import score_shards
    from anomem.scale.scoring import SHARD_IMAGES

    with bars(session, quiet=output.as_json) as progress:
        found = score_shards(
            model,
            [str(image) for image in images],
            out,
            engine="ray" if engine == "ray" else "processes",
            address=address,
            shard_images=shard_images or SHARD_IMAGES,
            progress=progress,
            **(wanted | {"device": "cpu" if wanted["device"] == "auto" else wanted["device"]}),
        )
    calibration = load(model).set_alpha(found.alpha).calibration_
    threshold = threshold_facts(calibration)
    output.line(
        printable(
            f"{count(found.n, 'image')}: {found.anomalous:,} anomalous at alpha {found.alpha:.3g} "
            f"({above_threshold(calibration)}), {found.errors:,} unreadable; {count(found.shards, 'shard')} in {out}, "
            f"{found.computed:,} of them computed now"
        )
    )
    facts = {"n": found.n, "errors": found.errors, "anomalous": found.anomalous, "shards": found.shards}
    output.result({"model": model, "out": out, **facts, "computed": found.computed, **threshold})
