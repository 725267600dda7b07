"""Interrupted fits on the command line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from anomem.cli.session import Session, note


@contextmanager
def resumable(checkpoint: Path, resume: bool, session: Session) -> Iterator[None]:
    """Note a checkpoint that is there at the start, and one that an interrupt leaves."""
    if checkpoint.exists() and not resume:
        note(f"{checkpoint}: holds an interrupted fit, which --resume continues; this fit starts anew")
    elif resume and not checkpoint.exists():
        note(f"{checkpoint}: there is none; this fit starts anew")
    try:
        yield
    finally:
        if checkpoint.exists():
            session.left = f"{checkpoint} holds the training so far: continue with --resume"
