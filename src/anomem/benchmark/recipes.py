"""Recipes of the papers and their ablations: variants of the ``paper`` suite.

The settings come from the methods' ``paper`` presets.
"""

from __future__ import annotations

from typing import Any

from anomem.benchmark.unit import Variant

__all__ = [
    "ANOMEM_32",
    "ANOMEM_224",
    "ANOMEM_ABLATIONS",
    "ANOMEM_ENCODERS",
    "AUTOENCODERS",
    "FYD",
    "FYD_BASELINE",
    "FYD_WIDE",
    "PLUME",
    "PLUME_ABLATIONS",
    "PMB_DIGITS",
    "PMB_OBJECTS",
    "PMB_OCT",
    "PMB_TEXTURES",
    "RIVALS",
]


_ONE_SCALE = {
    "stages": (4,),
    "memory_size": (256,),
    "scale_weights": (1.0,),
    "stage_one.contrast.ratios": (1.0,),
}

ANOMEM_32 = Variant("anomem", {"preset": "paper"}, "AnoMem, as printed")
ANOMEM_224 = Variant("anomem", {"preset": "paper", "size": 224}, "AnoMem, as printed")
# Without memory in stage 1, Mem(z) = z at the same positions; the nearest centre of the trained features afterwards.
ANOMEM_ABLATIONS = (
    Variant("anomem", {**ANOMEM_32.params, **_ONE_SCALE, "memory": "identity"}, "k-means, one scale"),
    Variant("anomem", {**ANOMEM_32.params, **_ONE_SCALE}, "memory, one scale"),
    Variant("anomem", {**ANOMEM_32.params, "memory": "identity"}, "k-means, two scales"),
)
ANOMEM_ENCODERS = (
    Variant("anomem", ANOMEM_ABLATIONS[0].params, "no memory"),
    ANOMEM_ABLATIONS[1],
    ANOMEM_32,
)
RIVALS = (
    Variant("deepsad", {"preset": "paper"}),
    Variant("supervised", {"preset": "paper"}),
)

# Where the authors' code and the equations differ, the published figures come from the code.
PLUME = Variant("plume", {"preset": "code"}, "PLUME, as its code")
PLUME_ABLATIONS = (
    Variant("plume", {**PLUME.params, "contrast": "none"}, "PLUME, no contrast"),
    Variant("plume", {**PLUME.params, "contrast": "mean"}, "PLUME, contrast with means"),
    Variant("plume", {**PLUME.params, "perturbation": "gaussian"}, "PLUME, Gaussian"),
    Variant("plume", {**PLUME.params, "perturbation": "addmult"}, "PLUME, AddMult"),
)

FYD = Variant("fyd", {"preset": "paper"}, "FYD, ResNet-18")
FYD_WIDE = Variant("fyd", {"preset": "paper", "backbone": "wide_resnet50_2", "n_channels": 550}, "FYD, WideResNet-50")
FYD_BASELINE = Variant("padim", {"backbone": "resnet18", "n_channels": 100}, "frozen Gaussian, ResNet-18")

PMB_OBJECTS = Variant("pmb", {"preset": "paper"}, "PMB")
PMB_TEXTURES = Variant("pmb", {"preset": "paper", "partitions": (32, 16, 16, 8, 8)}, "PMB")
_WIDE: dict[str, Any] = {"widths": (64, 128, 256, 512, 512), "train_steps": 20_000, "renormalise": False}
PMB_DIGITS = Variant("pmb", {"preset": "digits", "size": 128, **_WIDE}, "PMB")
PMB_OCT = Variant("pmb", {"preset": "medical", **_WIDE}, "PMB")
AUTOENCODERS = (
    Variant("pmb", {"preset": "paper", "memory": "none", "memory_levels": 5}, "autoencoder"),
    Variant("pmb", {"preset": "paper", "memory": "skip"}, "autoencoder with skips"),
    Variant("pmb", {"preset": "paper", "memory": "position"}, "memory of positions"),
    Variant("pmb", {"preset": "paper", "memory": "block"}, "memory of blocks"),
)
