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
    "PAPER_SMALL",
    "PLUME_ARMS",
    "PLUME_LITERAL",
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

_SMALL_DIVERGENCE = {"divergence_weight": 1 / 1280}
_SCALED = {"map_scale": 3.0, "normalise": "scale"}
PLUME_LITERAL = _arms(
    "plume",
    {"backbone": "tf_efficientnet_lite0", "weights": "default", "output_dim": 1280, "size": 160},
    {
        "PLUME, as printed": {"preset": "paper"},
        "PLUME, authors' code": {"preset": "code"},
        "PLUME, authors' code, divergence as a mean": {"preset": "code", **_SMALL_DIVERGENCE},
        "PLUME, authors' code, scaled": {"preset": "code", **_SCALED},
        "PLUME, authors' code, both": {"preset": "code", **_SMALL_DIVERGENCE, **_SCALED},
    },
)
"""PLUME's literal forms on the default backbone, and mends of a posterior that collapses and of a sum around 0."""

_STARVED: dict[str, Any] = {"widths": (2, 4, 8), "activation": "relu", "error": "absolute", "loss": "mse+ssim"}
_STARVED_MEMORY: dict[str, Any] = {**_STARVED, "memory_channels": None, "seeding": "random", "temperature": 1.0}
PMB_ARMS = _arms(
    "pmb",
    {"preset": "digits"},
    {
        "PMB, narrow memories": {},
        "PMB, narrow memory of positions": {"memory": "position"},
        "PMB, no memory, wide": {"memory": "none"},
        "PMB, skips for memories, wide": {"memory": "skip"},
        "PMB, narrow": _STARVED_MEMORY,
        "PMB, narrow, no memory": {**_STARVED, "memory": "none"},
        "PMB, narrow, skips for memories": {**_STARVED, "memory": "skip"},
        "PMB, narrow, memory of positions": {**_STARVED_MEMORY, "memory": "position"},
        "PMB, narrow, to the letter": {**_STARVED_MEMORY, "renormalise": False},
    },
)
"""Memories and their rivals with encoder and decoder wide enough to reconstruct, and as narrow as version 0.1's."""

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
        "AnoMem, one map for both": {"fusion.map_weights": None},
        "AnoMem, maps standardised per position": {"fusion.map_standardise": "position"},
        "AnoMem, maps smoothed": {"smoothing": 4.0},
        "AnoMem, maps with neighbourhood": {"fusion.map_weights": (0.5, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0)},
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

_PAPER_SMALL: dict[str, Any] = {
    "preset": "paper",
    "backbone": "resnet18",
    "width": 0.25,
    "stage_one.epochs": None,
    "stage_one.steps": 600,
    "stage_one.batch": 128,
    "stage_one.lr": 0.06,
    "stage_one.weight_decay": 5e-4,
}
PAPER_SMALL = _arms(
    "anomem",
    _PAPER_SMALL,
    {"AnoMem, quarter width": {}, "AnoMem, quarter width, no memory in stage 1": {"memory": "identity"}},
)
"""The paper's method at quarter width and 600 steps, and its control, scored by k-means centres (Table 4)."""
