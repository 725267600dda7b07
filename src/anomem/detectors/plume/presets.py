"""PLUME's training parameters, presets and former names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from anomem.detectors.baselines._pooled import Pretrained
from anomem.params import Parameters, Range, param, parameter_group

POSITIVE = Range(0.0, low_open=True)


@parameter_group
class Training(Parameters):
    """Training of PLUME's classifier and perturbator by AdamW along one cycle."""

    steps: int | None = param(
        1000,
        Range(1, integer=True),
        doc="Maximum number of optimiser steps; none: as many as the epochs take.",
        optional=True,
        preset=True,
    )
    epochs: int = param(100, Range(1, integer=True), doc="Maximum number of passes over the images.")
    batch: int = param(32, Range(2, integer=True), doc="Normals per step, N.")
    lr: float | None = param(
        1e-3,
        POSITIVE,
        doc="Peak learning rate; none: from a range test on the training images.",
        optional=True,
        preset=True,
    )
    weight_decay: float = param(0.01, Range(0.0), doc="Decoupled weight decay.")
    cache_mb: int = param(
        1024, Range(0, integer=True), doc="Memory for features, MB; beyond it a temporary file is used."
    )


MOVED = {
    "steps": "training.steps",
    "epochs": "training.epochs",
    "train_batch": "training.batch",
    "lr": "training.lr",
    "weight_decay": "training.weight_decay",
    "cache_mb": "training.cache_mb",
}
"""Map from former names to names within their group."""

_LITERAL: dict[str, Any] = {
    "size": 224,
    "aspect": "square",
    "backbone": "resnet50",
    "weights": "tv_in1k",
    "output_dim": 3072,
    "normalise": "batch",
    "map_scale": None,
    "cooperative": True,
    "identity_start": False,
    "likelihood": False,
    "perturbator_width": None,
    "training.steps": None,
    "training.lr": None,
}
PRESETS: dict[str, Mapping[str, Any]] = {
    **Pretrained.presets,
    "paper": _LITERAL | {"constraint": "paper", "constraint_sum": True},
    "code": _LITERAL | {"joint": False},
}
