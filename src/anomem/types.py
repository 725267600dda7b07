"""Names for the shapes of data that travel between the rooms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

UInt8Image: TypeAlias = npt.NDArray[np.uint8]
"""One decoded image: (H, W, 3), RGB, values 0 to 255."""

FloatArray: TypeAlias = npt.NDArray[np.float32]
IntArray: TypeAlias = npt.NDArray[np.intp]
BoolArray: TypeAlias = npt.NDArray[np.bool_]

ImagesLike: TypeAlias = object
"""Images as users give them: a folder or file, paths, uint8 arrays, tensors, Pillow images, bytes, samples, a source.

Too many kinds for a type; opening them checks, and names what cannot be used."""

LabelsLike: TypeAlias = object
"""Labelled images beside a data set: a table's path, or samples."""

NORMAL = 0
ANOMALOUS = 1
UNKNOWN = -1
"""Labels everywhere in anomem. (The AnoMem and PLUME papers write 1 for normal.)"""


class Box(NamedTuple):
    """A rectangle in an image's own frame, in pixels."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True)
class Record:
    """One line of a fit's history.

    Parameters
    ----------
    stage : str
        What is being done, in words a user reads ("features", "stage 1", "calibrate").
    step, total : int
        How far it is; ``step`` counts from 1.
    facts : mapping
        Figures of this step: ``loss``, ``lr``, ``effective_items``, ``seconds`` and the like.
    """

    stage: str
    step: int
    total: int
    facts: Mapping[str, Any] = field(default_factory=dict)
