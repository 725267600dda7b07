"""Calibration of a model file: scores, groups and strata as tensors."""

from __future__ import annotations

from typing import TypedDict

import numpy as np
import torch
from torch import Tensor

from anomem.errors import ModelFileError
from anomem.fitting import Fitted
from anomem.runtime.calibration import Calibration
from anomem.runtime.manifest import Manifest
from anomem.runtime.strata import Strata, numbered
from anomem.types import IntArray

__all__ = ["Remembered", "calibration_tensors", "read_calibration", "remembered"]

_AS_REMEMBERED = "_as_remembered"


class Remembered(TypedDict):
    """Group and stratum of each calibration image, in a two-stage scorer's order."""

    calibration_groups: tuple[int, ...] | None
    calibration_strata: tuple[str, ...] | None


def calibration_tensors(state: Fitted) -> dict[str, Tensor]:
    """Return scores, groups and strata of a calibration by name, in the order of the scores and as remembered."""
    calibration = state.calibration
    tensors = {"calibration.scores": torch.from_numpy(calibration.scores.copy())}
    if calibration.groups is not None and state.calibration_groups is not None:
        tensors["calibration.groups"] = _whole(calibration.groups)
        tensors["calibration.groups" + _AS_REMEMBERED] = torch.tensor(state.calibration_groups, dtype=torch.int64)
    if calibration.strata is not None and state.calibration_strata is not None:
        tensors["calibration.strata"] = _whole(calibration.strata.numbers)
        tensors["calibration.strata" + _AS_REMEMBERED] = _whole(numbered(state.calibration_strata).numbers)
    return tensors


def read_calibration(tensors: dict[str, Tensor], manifest: Manifest) -> Calibration:
    """Return the calibration of a file; raises nearly everything on damaged ones."""
    facts = manifest.calibration
    return Calibration(
        tensors["calibration.scores"].numpy(),
        float(facts["alpha"]),
        str(facts["precision"]),
        _groups(tensors, "calibration.groups", manifest),
        str(facts.get("kind", "split")),
        int(facts.get("folds", 0)),
        _strata(tensors, "calibration.strata", manifest),
        int(facts.get("blended", 0)),
    )


def remembered(tensors: dict[str, Tensor], manifest: Manifest) -> Remembered:
    """Return groups and strata as remembered.

    Raises
    ------
    ModelFileError
        Another number of images than scores.
    """
    groups = _groups(tensors, "calibration.groups" + _AS_REMEMBERED, manifest)
    strata = _strata(tensors, "calibration.strata" + _AS_REMEMBERED, manifest)
    for name, numbers in (("groups", groups), ("strata", None if strata is None else strata.numbers)):
        if numbers is not None and len(numbers) != len(tensors["calibration.scores"]):
            raise ModelFileError(f"calibration.{name}{_AS_REMEMBERED}: another number of images than scores")
    return {
        "calibration_groups": None if groups is None else tuple(groups.tolist()),
        "calibration_strata": None if strata is None else tuple(strata.names[i] for i in strata.numbers),
    }


def _whole(numbers: IntArray) -> Tensor:
    return torch.from_numpy(numbers.astype(np.int64))


def _groups(tensors: dict[str, Tensor], name: str, manifest: Manifest) -> IntArray | None:
    """Read group numbers; required where the manifest counts groups."""
    if "groups" not in manifest.calibration:
        return None
    groups = tensors[name].numpy().astype(np.intp)
    if len(set(groups.tolist())) != manifest.calibration["groups"]:
        raise ModelFileError(f"{name}: another number of groups than the manifest's")
    return groups


def _strata(tensors: dict[str, Tensor], name: str, manifest: Manifest) -> Strata | None:
    """Read stratum numbers; required where the manifest names strata."""
    return Strata.stored(manifest.calibration, tensors[name].numpy() if name in tensors else None)
