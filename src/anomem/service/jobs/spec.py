"""Input and output of a job's process: files in its folder, and lines of progress."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from anomem.data.samples import Sample
from anomem.runtime.atomic import atomic_path
from anomem.runtime.plain import plain
from anomem.types import ANOMALOUS, NORMAL

__all__ = ["ImageRow", "Spec", "read_result", "read_spec", "write_result", "write_spec"]

_SPEC, _RESULT = "spec.json", "result.json"


@dataclass(frozen=True)
class ImageRow:
    """Image file of a job.

    Parameters
    ----------
    path : str
        File in the image store.
    name : str
        Name given by the sender.
    id : int
        Inspection or normal image.
    sha256 : str
    defect : bool
    group, stratum, type, mask : str or None
        Group and stratum; type and mask file of a defect.
    anomalous : bool
        Verdict so far.
    label : str or None
        Latest label of an inspection.
    """

    path: str
    name: str
    id: int
    sha256: str
    defect: bool = False
    group: str | None = None
    stratum: str | None = None
    type: str | None = None
    mask: str | None = None
    anomalous: bool = False
    label: str | None = None

    def sample(self) -> Sample:
        """Return the image as a sample of a fit."""
        mask = None if self.mask is None else Path(self.mask)
        return Sample(Path(self.path), ANOMALOUS if self.defect else NORMAL, mask, self.type, self.group)

    @property
    def digest(self) -> int:
        """Content hash as in model files."""
        return int(self.sha256[:16], 16)


@dataclass(frozen=True)
class Spec:
    """Task of a job's process.

    Parameters
    ----------
    kind : {"fit", "refit", "calibrate", "rescore"}
    out : str
        Folder for the new version's files.
    alpha : float
        Promised false-alarm rate.
    max_pixels : int
        Size limit per image.
    method, assignments : str, tuple of str
        Of a fit; hyperparameters as ``key=value``.
    base : str or None
        Model file that is refitted, calibrated or scores.
    export : str or None
        Format that the new version is exported to.
    normals, labels, history, unselected : tuple of ImageRow
        Normals of a fit or calibration; labelled images; recent inspections; parts drawn whatever their score.
    out_of_fold : dict
        P-value by image hash of labelled images, from fits without them: those of the base.
    """

    kind: str
    out: str
    alpha: float
    max_pixels: int
    method: str = "anomem"
    assignments: tuple[str, ...] = ()
    base: str | None = None
    export: str | None = None
    normals: tuple[ImageRow, ...] = ()
    labels: tuple[ImageRow, ...] = ()
    history: tuple[ImageRow, ...] = ()
    unselected: tuple[ImageRow, ...] = ()
    out_of_fold: dict[str, float] = field(default_factory=dict)


def write_spec(folder: Path, spec: Spec) -> None:
    """Write the task of a job."""
    with atomic_path(folder / _SPEC) as part:
        part.write_text(json.dumps(plain(asdict(spec))), encoding="utf-8")


def read_spec(folder: Path) -> Spec:
    """Read the task of a job."""
    content = json.loads((folder / _SPEC).read_text(encoding="utf-8"))
    content["assignments"] = tuple(content["assignments"])
    for name in ("normals", "labels", "history", "unselected"):
        content[name] = tuple(ImageRow(**row) for row in content[name])
    return Spec(**content)


def write_result(folder: Path, result: Mapping[str, object]) -> None:
    """Write the result of a job; its presence says that the job is done."""
    with atomic_path(folder / _RESULT) as part:
        part.write_text(json.dumps(plain(result), allow_nan=False), encoding="utf-8")


def read_result(folder: Path) -> dict[str, Any] | None:
    """Read the result of a job; None if it has none."""
    try:
        content: dict[str, Any] = json.loads((folder / _RESULT).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return content
