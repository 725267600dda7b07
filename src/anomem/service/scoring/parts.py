"""Images on their way to a recorded inspection."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

from anomem.service.images import Stored
from anomem.service.store.tables import Inspection

__all__ = ["Part", "ScoredPart"]


@dataclass(frozen=True)
class Part:
    """Image that waits for its score.

    Parameters
    ----------
    image : Stored
        Image in the store.
    path : Path
        Its file.
    name : str
        Name given by the sender.
    source : str
        "http", "watch", "v2" or "folder".
    key : str or None
        Delivery key: a model inspects each key once.
    stratum, group : str or None
        Camera, product or shift; part, lot or burst.
    done : Future
        Resolved with the recorded inspection.
    """

    image: Stored
    path: Path
    name: str
    source: str = "http"
    key: str | None = None
    stratum: str | None = None
    group: str | None = None
    done: Future[Inspection] = field(default_factory=Future)


@dataclass(frozen=True)
class ScoredPart:
    """Image with its result.

    Parameters
    ----------
    part : Part
    model_id, version_id : int
        Model and version that scored it.
    score, p_value : float or None
        None for an unreadable image.
    anomalous : bool
    alpha : float
        Promised false-alarm rate of the verdict.
    error : str or None
        Reason why the image cannot be read.
    """

    part: Part
    model_id: int
    version_id: int
    score: float | None
    p_value: float | None
    anomalous: bool
    alpha: float
    error: str | None = None
