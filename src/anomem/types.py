"""Shared data types: images, arrays, labels, boxes, progress records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

UInt8Image: TypeAlias = npt.NDArray[np.uint8]
"""Decoded image: (H, W, 3), RGB, values 0 to 255."""

FloatArray: TypeAlias = npt.NDArray[np.float32]
RealArray: TypeAlias = npt.NDArray[np.floating[Any]]
"""Floats of any precision."""

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
"""Label values. (The AnoMem and PLUME papers write 1 for normal.)"""


class Box(NamedTuple):
    """Rectangle in an image's own frame, in pixels."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True)
class Record:
    """Progress record of a fit.

    Parameters
    ----------
    stage : str
        Name of the current stage, shown to users ("features", "stage 1", "calibrate").
    step, total : int
        Current step, counted from 1, and number of steps.
    facts : mapping
        Measurements of this step: ``loss``, ``lr``, ``effective_items``, ``seconds`` and similar.
    """

    stage: str
    step: int
    total: int
    facts: Mapping[str, Any] = field(default_factory=dict)
