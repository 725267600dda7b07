"""Interrupted fits on the command line."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from anomem.cli.session import Session, note

__all__ = ["forget", "resumable"]


@contextmanager
def resumable(out: Path, minutes: float, resume: bool, session: Session) -> Iterator[dict[str, Any]]:
    """Note a checkpoint that is there at the start, and one that an interrupt leaves.

    Yields
    ------
    dict
        Arguments of a fit.
    """
    checkpoint = _checkpoint_of(out)
    if checkpoint.exists() and not resume:
        note(f"{checkpoint}: holds an interrupted fit, which --resume continues; this fit starts anew")
    elif resume and not checkpoint.exists():
        note(f"{checkpoint}: there is none; this fit starts anew")
    try:
        yield {"checkpoint": checkpoint, "checkpoint_minutes": minutes, "resume": resume}
        if int(os.environ.get("RANK", "0")):
            raise click.exceptions.Exit(0)  # the first rank of torchrun writes the model
    finally:
        if checkpoint.exists():
            session.left = f"{checkpoint} holds the training so far: continue with --resume"


def forget(out: Path) -> None:
    """Remove the checkpoint of a model that is written."""
    from anomem.checkpoints import remove_checkpoint

    remove_checkpoint(_checkpoint_of(out))


def _checkpoint_of(out: Path) -> Path:
    return Path(f"{out}.checkpoint")
