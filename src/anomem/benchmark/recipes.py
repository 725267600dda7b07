"""Recipes of the papers and their ablations: variants of the ``paper`` suite.

The settings come from the methods' presets ``paper`` and ``code``; a variant names what it changes of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from anomem.benchmark.unit import Variant

__all__ = [
    "ANOMEM_32",
    "ANOMEM_224",
    "ANOMEM_ABLATIONS",
    "ANOMEM_ENCODERS",
    "FYD",
    "FYD_BASELINE",
    "FYD_DISTURBED",
    "FYD_INSERTIONS",
    "FYD_ROWS",
    "FYD_WIDE",
    "NEIGHBOURS",
    "PLAD",
    "PLUME",
    "PLUME_BACKBONES",
    "PLUME_ROWS",
    "PMB_DIGITS",
    "PMB_LEVELS_OBJECTS",
    "PMB_LEVELS_TEXTURES",
    "PMB_OBJECTS",
    "PMB_OCT",
    "PMB_RIVALS",
    "PMB_TEXTURES",
    "RIVALS",
]

TORCHVISION = "tv_in1k"
"""Tag of torchvision's first ImageNet weights in timm, whose default tags are others."""


def _changed(base: Variant, label: str, changes: Mapping[str, Any]) -> Variant:
    return Variant(base.method, {**base.params, **changes}, label)


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
    _changed(ANOMEM_32, "k-means, one scale", {**_ONE_SCALE, "memory": "identity"}),
    _changed(ANOMEM_32, "memory, one scale", _ONE_SCALE),
    _changed(ANOMEM_32, "k-means, two scales", {"memory": "identity"}),
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
PLUME_ROWS = (
    _changed(PLUME, "Gaussian, no contrast", {"perturbation": "gaussian", "contrast": "none"}),
    _changed(PLUME, "Gaussian, contrast", {"perturbation": "gaussian"}),
    _changed(PLUME, "AddMult, no contrast", {"perturbation": "addmult", "contrast": "none"}),
    _changed(PLUME, "AddMult, contrast", {"perturbation": "addmult"}),
    _changed(PLUME, "LinearMap, no contrast", {"contrast": "none"}),
    _changed(PLUME, "LinearMap, contrast with means", {"contrast": "mean"}),
    PLUME,
)
"""Rows of Table 1c, the whole method last."""
PLUME_BACKBONES = (
    PLUME,
    _changed(PLUME, "PLUME, VGG16", {"backbone": "vgg16"}),
    # The size is not stated, and timm has no copy of torchvision's weights; these are the ConvNeXt authors' own.
    _changed(PLUME, "PLUME, ConvNeXt", {"backbone": "convnext_base", "weights": "fb_in1k"}),
)
"""Backbones of Table 2."""
PLAD = Variant("plad", {"preset": "paper"})
NEIGHBOURS = Variant(
    "knn", {"backbone": "resnet50", "weights": TORCHVISION, "metric": "cosine"}, "knn, cosine, ResNet-50"
)
"""Neighbours by the features alone."""

FYD = Variant("fyd", {"preset": "paper"}, "FYD, ResNet-18")
FYD_WIDE = _changed(FYD, "FYD, WideResNet-50", {"backbone": "wide_resnet50_2", "n_channels": 550})
FYD_BASELINE = Variant(
    "padim", {"backbone": "resnet18", "weights": TORCHVISION, "n_channels": 100}, "frozen Gaussian, ResNet-18"
)
_UNALIGNED = _changed(FYD, "FYD, no aligner", {"image_aligner": None, "feature_aligner": None})
_NO_FCA = _changed(FYD, "FYD, ICA alone", {"feature_aligner": None})
FYD_ROWS = (FYD_BASELINE, _UNALIGNED, _NO_FCA, _changed(FYD, "FYD, FCA alone", {"image_aligner": None}), FYD)
"""Rows of Table 4 with either aligner alone; those without and with both are Table 5."""
FYD_INSERTIONS = (
    _NO_FCA,
    *(_changed(FYD, f"FYD, FCA behind layer{i}", {"feature_aligner.behind": (i,)}) for i in (1, 2, 3)),
    FYD,
)
"""Rows of Table 6."""
FYD_DISTURBED = (FYD_BASELINE, _UNALIGNED, FYD)
"""Table 3 has FYD without aligners, says the supplement; the main text has the whole."""

PMB_OBJECTS = Variant("pmb", {"preset": "paper"}, "PMB")
PMB_TEXTURES = Variant("pmb", {"preset": "paper", "partitions": (32, 16, 16, 8, 8)}, "PMB")
_WIDE: dict[str, Any] = {
    "widths": (64, 128, 256, 512, 512),
    "train_steps": 20_000,
    "renormalise": False,
    "aspect": "square",
}
_LITERAL_DIGITS: dict[str, Any] = {
    "size": 128,
    "memory_channels": None,
    "activation": "relu",
    "seeding": "random",
    "temperature": 1.0,
    "items": (10,),
    "error": "absolute",
    "loss": "mse+ssim",
}
PMB_DIGITS = Variant("pmb", {"preset": "digits", **_WIDE, **_LITERAL_DIGITS}, "PMB")
PMB_OCT = Variant("pmb", {"preset": "medical", **_WIDE}, "PMB")
_PLAIN: dict[str, Any] = {"preset": "paper", "error_share": 0.0}
PMB_RIVALS = (
    Variant("pmb", {**_PLAIN, "memory": "none", "memory_levels": 5, "loss": "ssim"}, "AE-SSIM"),
    Variant("pmb", {**_PLAIN, "memory": "none", "memory_levels": 5, "loss": "mse"}, "AE-L2"),
    Variant("pmb", {**_PLAIN, "memory": "skip", "loss": "mse"}, "AE+skip"),
    # A memory of positions in place of the code alone, and one of blocks on every level: neither has a plain skip.
    Variant("memae", {"widths": _WIDE["widths"], "train_steps": _WIDE["train_steps"]}, "MemAE"),
    Variant("pmb", {**_PLAIN, "memory": "block", "memory_levels": 5, "loss": "mse"}, "DAAD, without adversary"),
)
"""Rivals of Table V, without the histogram's error estimation; PMB without it is the first point of Table VI."""
_SETTINGS = {"A": (3, 3), "B": (5, 3), "C": (4, 4), "D": (5, 4), "E": (5, 5)}


def _levels(base: Variant) -> tuple[Variant, ...]:
    return tuple(
        _changed(
            base, f"PMB, setting {name}: L = {levels}, p = {memories}", {"levels": levels, "memory_levels": memories}
        )
        for name, (levels, memories) in _SETTINGS.items()
    )


PMB_LEVELS_OBJECTS, PMB_LEVELS_TEXTURES = _levels(PMB_OBJECTS), _levels(PMB_TEXTURES)
"""Settings of Fig. 9."""
