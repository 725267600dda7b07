"""The papers' recipes at their own scale: hyperparameters of the ``paper`` suite.

What a paper does not state (rates, budgets) is taken from the public code of the works it builds on, and said here.
Every other hyperparameter is the paper's.
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
    "without",
]


def without(variant: Variant, *names: str) -> Variant:
    """A variant that leaves some hyperparameters to whoever varies them.

    Examples
    --------
    >>> without(Variant("knn", {"k": 3, "size": 64}), "k").params
    {'size': 64}
    """
    return Variant(variant.method, {k: v for k, v in variant.params.items() if k not in names}, variant.label)


# 1,500 steps of 1,024 images are some 470 epochs of the 3,250 normals of a CIFAR class that are learnt from; rate and
# decay as in the public code of SimCLR and SSD for CIFAR, whose rate of 0.5 is for batches of 512.
_SCRATCH: dict[str, Any] = {
    "preset": "object",
    "backbone": "resnet50",
    "weights": None,
    "train_backbone": "all",
    "train_batch": 1024,
    "train_steps": 1500,
    "lr": 1.0,
    "weight_decay": 1e-4,
}
_ANOMEM: dict[str, Any] = {
    **_SCRATCH,
    "stages": (3, 4),
    "embedding": False,
    "neighbourhood": (1,),
    "max_grid": (64,),
    "memory_size": (512, 256),
    "memory_share": 1,
    "seeding": "random",
    "normalise": "raw",
    "association": "dot",
    "beta": 2.0,
    "retrieval_steps": None,
    "scale_weights": (1.0, 2.0),
    "standardise": "none",
    "reduction": "l2",
    "variance": "sample",
    "variance_weight": 0.05,
    "temperature": 0.1,
    "sampling_ratio": (0.3, 1.0),
    "geometry": "independent",
    "label_head": "distance",
    "margin": 2.0,
}
_ONE_SCALE = {"stages": (4,), "memory_size": (256,), "scale_weights": (1.0,), "sampling_ratio": (1.0,)}

ANOMEM_32 = Variant("anomem", {**_ANOMEM, "size": 32}, "AnoMem, as printed")
ANOMEM_224 = Variant("anomem", {**_ANOMEM, "size": 224}, "AnoMem, as printed")
ANOMEM_ABLATIONS = (
    Variant("anomem", {**ANOMEM_32.params, **_ONE_SCALE, "memory": "kmeans"}, "k-means, one scale"),
    Variant("anomem", {**ANOMEM_32.params, **_ONE_SCALE}, "memory, one scale"),
    Variant("anomem", {**ANOMEM_32.params, "memory": "kmeans"}, "k-means, two scales"),
)
ANOMEM_ENCODERS = (
    Variant("simclr", {**_SCRATCH, "size": 32}, "no memory"),
    ANOMEM_ABLATIONS[1],
    ANOMEM_32,
)
RIVALS = (
    Variant("deepsad", {"preset": "object", "size": 32, "encoder": "lenet", "rep_dim": 128, "train_steps": 20_000}),
    Variant("supervised", {**_SCRATCH, "size": 32, "train_batch": 256, "lr": 1e-3}),
)

# The published figures are those of the authors' code, where it and the equations differ.
_PLUME: dict[str, Any] = {
    "preset": "object",
    "size": 224,
    "backbone": "resnet50",
    "output_dim": 3072,
    "normalise": "batch",
    "map_scale": None,
    "cooperative": True,
    "joint": False,
    "steps": None,
    "epochs": 100,
    "train_batch": 32,
    "lr": None,
}
PLUME = Variant("plume", _PLUME, "PLUME, as its code")
PLUME_ABLATIONS = (
    Variant("plume", {**PLUME.params, "contrast": "none"}, "PLUME, no contrast"),
    Variant("plume", {**PLUME.params, "contrast": "mean"}, "PLUME, contrast with means"),
    Variant("plume", {**PLUME.params, "perturbation": "gaussian"}, "PLUME, Gaussian"),
    Variant("plume", {**PLUME.params, "perturbation": "addmult"}, "PLUME, AddMult"),
)

# 50 epochs of some 150 normals in batches of 32.
_FYD: dict[str, Any] = {"train_steps": 400, "image_steps": 400, "train_batch": 32, "lr": 1e-4, "image_lr": 0.01}
FYD = Variant("fyd", {**_FYD, "backbone": "resnet18", "n_channels": 100}, "FYD, ResNet-18")
FYD_WIDE = Variant("fyd", {**_FYD, "backbone": "wide_resnet50_2", "n_channels": 550}, "FYD, WideResNet-50")
FYD_BASELINE = Variant("padim", {"backbone": "resnet18", "n_channels": 100}, "frozen Gaussian, ResNet-18")

# The paper states a rate of 0.002 and batches of 20, and no budget.
_PMB: dict[str, Any] = {"widths": (64, 128, 256, 512, 512), "train_steps": 20_000, "lr": 0.002}
PMB_OBJECTS = Variant("pmb", {**_PMB, "preset": "object"}, "PMB")
PMB_TEXTURES = Variant("pmb", {**_PMB, "preset": "surface"}, "PMB")
PMB_DIGITS = Variant("pmb", {**_PMB, "preset": "digits", "size": 128}, "PMB")
PMB_OCT = Variant("pmb", {**_PMB, "preset": "medical"}, "PMB")
AUTOENCODERS = (
    Variant("pmb", {**_PMB, "preset": "object", "memory": "none", "memory_levels": 5}, "autoencoder"),
    Variant("pmb", {**_PMB, "preset": "object", "memory": "skip"}, "autoencoder with skips"),
    Variant("pmb", {**_PMB, "preset": "object", "memory": "position"}, "memory of positions"),
    Variant("pmb", {**_PMB, "preset": "object", "memory": "block"}, "memory of blocks"),
)
