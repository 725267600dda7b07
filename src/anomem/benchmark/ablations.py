"""Ablations of methods, sized for a CPU: variants of the suites ``cpu-long`` and ``memory``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from anomem.benchmark.unit import Variant

__all__ = [
    "FROM_SCRATCH",
    "FYD_ARMS",
    "FYD_PLAIN",
    "MEMORY_ARMS",
    "PLUME_ARMS",
    "PMB_ARMS",
    "PMB_OBJECT",
    "STAGE_ONE",
    "STAGE_ONE_OBJECT",
]


def _arms(method: str, shared: Mapping[str, Any], arms: Mapping[str, Mapping[str, Any]]) -> tuple[Variant, ...]:
    return tuple(Variant(method, {**shared, **changes}, label) for label, changes in arms.items())


_FROZEN = {"image_aligner": None, "feature_aligner": None, "training": None}

FYD_ARMS = _arms(
    "fyd",
    {},
    {
        "FYD, frozen Gaussian": _FROZEN,
        "FYD, training alone": {"image_aligner": None, "feature_aligner": None},
        "FYD, FCA alone": {"image_aligner": None, "feature_aligner.keep": "on"},
        "FYD, ICA alone": {"image_aligner.keep": "on", "feature_aligner": None},
        "FYD, both": {"image_aligner.keep": "on", "feature_aligner.keep": "on"},
        "FYD, both, each where it helps": {},
    },
)
"""Arms of FYD's Table 4, and the default, whose aligners take part where they help."""

FYD_PLAIN = (FYD_ARMS[0], FYD_ARMS[-1])

PLUME_ARMS = _arms(
    "plume",
    {"preset": "object", "training.steps": 2000},
    {
        "PLUME, LinearMap": {},
        "PLUME, LinearMap, mean contrast": {"contrast": "mean"},
        "PLUME, LinearMap, no contrast": {"contrast": "none"},
        "PLUME, AddMult": {"perturbation": "addmult"},
        "PLUME, AddMult, no contrast": {"perturbation": "addmult", "contrast": "none"},
        "PLUME, Gaussian": {"perturbation": "gaussian"},
        "PLUME, Gaussian, no contrast": {"perturbation": "gaussian", "contrast": "none"},
    },
)
"""Rows of PLUME's Table 1c, on the default backbone."""

_LIVING: dict[str, Any] = {"widths": (16, 32, 64), "activation": "leaky", "error": "squared", "loss": "mse"}
PMB_ARMS = _arms(
    "pmb",
    {"preset": "digits"},
    {
        "PMB": {},
        "PMB, no memory": {"memory": "none"},
        "PMB, skips for memories": {"memory": "skip"},
        "PMB, memory of positions": {"memory": "position"},
        "PMB, to the letter": {"temperature": 1.0, "renormalise": False},
        "PMB, narrow memories": {
            **_LIVING,
            "memory_channels": (4,),
            "seeding": "features",
            "temperature": 0.1,
        },
        "PMB, narrow memory of positions": {**_LIVING, "memory": "position", "memory_channels": (4,)},
        "PMB, no memory, wide": {**_LIVING, "memory": "none"},
        "PMB, skips for memories, wide": {**_LIVING, "memory": "skip"},
    },
)
"""Memories and their rivals as narrow as version 0.1's, and with encoder and decoder wide enough to reconstruct."""

PMB_OBJECT = (Variant("pmb", {"preset": "object"}, "PMB, object"),)

_TRAINED = {"stage_one.steps": 100, "stage_one.batch": 32, "stage_one.lr": 0.003}
_STAGES = {
    "memory trained": {"stage_one.train_backbone": "none"},
    "memory and last stages": {"stage_one.train_backbone": "last"},
}

STAGE_ONE = _arms("anomem", _TRAINED, _STAGES)
STAGE_ONE_OBJECT = _arms("anomem", {"preset": "object", **_TRAINED}, _STAGES)

MEMORY_ARMS = _arms(
    "anomem",
    {},
    {
        "AnoMem": {},
        "AnoMem, 2048 items": {"memory_size": (2048,)},
        "AnoMem, unit norm on all scales": {"unit_norm": (True,)},
        "AnoMem, unit norm on none": {"unit_norm": (False,)},
        "AnoMem, places do not count": {"place_weight": (0.0,)},
        "AnoMem, places count on all scales": {"place_weight": (3.0,)},
        "AnoMem, one map for both": {"map_weights": None},
        "AnoMem, maps standardised per position": {"map_standardise": "position"},
        "AnoMem, maps smoothed": {"smoothing": 4.0},
        "AnoMem, maps with neighbourhood": {"map_weights": (0.5, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0)},
        "AnoMem, early scales first": {"scale_weights": (1.0, 0.0, 1.0, 0.0, 0.5, 0.5, 0.25, 0.25)},
        "AnoMem, version 0.1": {
            "stages": (1, 2, 3, 3, "blocks.5", "blocks.5"),
            "neighbourhood": (3, 3, 3, 1, 3, 1),
            "memory_size": (2048,),
            "scale_weights": (1.0, 1.0, 0.5, 0.5, 0.25, 0.25),
            "smoothing": 4.0,
        },
    },
)
"""AnoMem's surface preset, one setting at a time, and as it was in version 0.1."""

# Two scales, memories, sampling, weights and beta are the paper's; the pooled output is a third scale, as Sec. 3.1
# contrasts it too; hue and grey are SimCLR's. Tried on CIFAR-10's classes 7 and 8, which are not reported.
_SCRATCH: dict[str, Any] = {
    "preset": "object",
    "backbone": "resnet18",
    "weights": None,
    "width": 0.25,
    "size": 32,
    "stages": (3, 4, 4),
    "embedding": False,
    "max_grid": (28, 28, 1),
    "normalise": "layernorm",
    "beta": 2.0,
    "memory_size": (512, 256, 256),
    "memory_share": 8,
    "scale_weights": (1.0, 2.0, 4.0),
}
_SCRATCH_TRAINING: dict[str, Any] = {
    "stage_one.steps": 150,
    "stage_one.batch": 128,
    "stage_one.lr": 0.06,
    "stage_one.contrast.ratios": (0.3, 1.0, 1.0),
    "stage_one.views.hue": 0.1,
    "stage_one.views.grey": 0.2,
}
FROM_SCRATCH = _arms(
    "anomem",
    _SCRATCH,
    {
        "AnoMem, random encoder": {"stage_one": None},
        "AnoMem, from scratch": _SCRATCH_TRAINING,
    },
)
"""Quarter-width ResNet-18 at 32 px; trains within minutes on a CPU."""
