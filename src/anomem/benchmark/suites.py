"""Suites: tables of protocols, image sets and methods."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from anomem.benchmark.ablations import (
    FROM_SCRATCH,
    FYD_ARMS,
    FYD_PLAIN,
    MEMORY_ARMS,
    PAPER_SMALL,
    PLUME_ARMS,
    PLUME_LITERAL,
    PMB_ARMS,
    PMB_OBJECT,
    STAGE_ONE,
    STAGE_ONE_OBJECT,
)
from anomem.benchmark.image_sets import TEXTURED
from anomem.benchmark.recipes import (
    ANOMEM_32,
    ANOMEM_224,
    ANOMEM_ABLATIONS,
    ANOMEM_ENCODERS,
    FYD,
    FYD_BASELINE,
    FYD_DISTURBED,
    FYD_INSERTIONS,
    FYD_ROWS,
    FYD_WIDE,
    NEIGHBOURS,
    PLAD,
    PLUME,
    PLUME_BACKBONES,
    PLUME_ROWS,
    PMB_DIGITS,
    PMB_LEVELS_OBJECTS,
    PMB_LEVELS_TEXTURES,
    PMB_OBJECTS,
    PMB_OCT,
    PMB_RIVALS,
    PMB_TEXTURES,
    RIVALS,
)
from anomem.benchmark.unit import Variant
from anomem.data.catalog import CATALOG

__all__ = ["SUITES", "Part"]


@dataclass(frozen=True)
class Part:
    """Part of a suite: one protocol, some image sets, some methods.

    Parameters
    ----------
    protocol : str
        A key of `anomem.benchmark.protocols.registry.PROTOCOLS`.
    data : tuple of str
        Names as in `anomem.benchmark.image_sets`; absent ones are left out.
    variants : tuple of Variant
    options : mapping
        Options of the protocol.
    seeds : tuple of int
        Seeds of the fits; empty: the protocol's defaults.
    """

    protocol: str
    data: tuple[str, ...]
    variants: tuple[Variant, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    seeds: tuple[int, ...] = ()


def _all(*methods: str, **params: Any) -> tuple[Variant, ...]:
    return tuple(Variant(method, params) for method in methods)


_TINY = {"size": 64}
_TINY_ANOMEM = Variant("anomem", {"size": 64, "memory_size": (16,), "memory_share": 1})
_TINY_SWEEP = Variant("anomem", {"size": 64, "memory_share": 1})

_SMOKE = (
    Part("localisation", ("textures/brick",), (_TINY_ANOMEM, *_all("padim", "knn", **_TINY))),
    Part("few-labels", ("textures/brick",), (_TINY_ANOMEM,), {"k": (0, 1, 3, 10), "draws": 2}),
    Part("cross-type", ("textures/brick",), (_TINY_ANOMEM,)),
    Part("promise", ("textures/brick",), (_TINY_ANOMEM,), {"redraws": 5}, (0,)),
    Part("batches", ("textures/brick",), (_TINY_ANOMEM,), {"redraws": 5}, (0,)),
    Part("shift", ("textures/brick",), (_TINY_ANOMEM,), {"kinds": ("brighter",), "fresh": (10,), "redraws": 2}, (0,)),
    Part("distance-variance", ("textures/brick",), _all("padim", **_TINY), {"most": 24}),
    Part("disturbed", ("textures/gravel",), _all("padim", **_TINY)),
    Part("sweep", ("textures/grass",), (_TINY_SWEEP,), {"of": "memory-size"}),
    Part(
        "one-vs-rest",
        ("textures",),
        (_TINY_ANOMEM, *_all("knn", **_TINY)),
        {"gammas": (0.0, 0.1), "draws": 2, "classes": ("brick", "grass")},
    ),
    Part("out-of-distribution", ("textures/brick",), _all("knn", **_TINY), {"against": ("textures/gravel",)}),
    Part("linear-evaluation", ("textures",), _all("knn", **_TINY)),
)

_TILE, _BRUSH, _BOTTLE = "magnetic_tile", "mvtec_ad/toothbrush", "mvtec_ad/bottle"
_CAPSULES, _SCREW = "visa/capsules", "mvtec_ad/screw"
_INDUSTRIAL = (_TILE, _BRUSH, _BOTTLE, _CAPSULES, _SCREW)
_THREE = ("anomem", "padim", "knn")
_QUICK = ("kmeans", "ocsvm", "iforest", "plume", "deepsad")
_SLOW = ("fyd", "pmb", "memae", "simclr", "plad")
_LEARNERS = _all("anomem", "deepsad", "supervised")
_MLP = Variant("supervised", {"head": "mlp"}, "supervised, mlp")
_OBJECT = {"preset": "object"}
_COSINE = Variant("knn", {**_OBJECT, "metric": "cosine"}, "knn, cosine")
_COSINE_SURFACE = Variant("knn", {"metric": "cosine"}, "knn, cosine")

_ONE_CLASS = {"gammas": (0.0,)}
_ALIKE = {"k": (0, 10), "draws": 1, "maps": True}
_THREE_CLASSES = ("automobile", "cat", "dog")
_TWO_CLASSES = ("automobile", "dog")
_SCRATCH_CLASSES = ("airplane", "automobile", "dog")

_CPU = (
    Part("few-labels", (_BRUSH, _TILE, _CAPSULES), (*_LEARNERS, _MLP)),
    Part("few-labels", (_BRUSH, _TILE, _CAPSULES), _all("anomem"), {"k": (0, 10), "draws": 1, "maps": True}),
    Part(
        "few-labels",
        (_BRUSH, _TILE, _CAPSULES),
        _all("anomem"),
        {"k": (10,), "draws": 1, "maps": True, "masks": True},
    ),
    Part("cross-type", (_TILE,), _LEARNERS, {"k": (0, 10, 30, "all"), "draws": 3}),
    Part("cross-type", (_TILE,), _LEARNERS, {"labelled": "one", "k": (0, 10, 30), "draws": 3}),
    Part("cross-type", (_BOTTLE,), _LEARNERS, {"k": (0, 10, 30, "all"), "draws": 3}),
    Part("promise", _INDUSTRIAL, _all("anomem")),
    Part("shift", (_TILE, "aitex_tiles"), _all("anomem")),
    Part("batches", (_TILE, "aitex_tiles"), _all("anomem")),
    Part("localisation", _INDUSTRIAL, (_COSINE_SURFACE, *_all(*_THREE, *_QUICK)), seeds=(0, 1, 2)),
    Part("distance-variance", _INDUSTRIAL, _all("padim", "fyd")),
    Part("disturbed", (_BRUSH, _BOTTLE), _all("padim", "anomem", "fyd")),
    Part("sweep", (_BRUSH, _TILE), _all("anomem"), {"of": "memory-size"}),
    Part("sweep", (_BRUSH, _TILE), _all("anomem"), {"of": "memory-ratio"}),
    Part("sweep", (_BRUSH, _TILE), _all("anomem"), {"of": "beta"}),
    Part("sweep", ("pneumonia_mnist",), _all("anomem", **_OBJECT), {"of": "gamma"}),
    Part("one-vs-rest", ("pneumonia_mnist",), _all("anomem", "deepsad", "supervised", **_OBJECT), {"draws": 3}),
    Part(
        "one-vs-rest", ("pneumonia_mnist",), (_COSINE, *_all("knn", "ocsvm", "iforest", "plume", **_OBJECT)), _ONE_CLASS
    ),
    Part("one-vs-rest", ("mnist",), (_COSINE, *_all("anomem", "knn", **_OBJECT)), _ONE_CLASS),
    Part("out-of-distribution", ("cifar100",), _all("anomem", "knn", **_OBJECT), {"against": ("cifar10",)}),
    Part("linear-evaluation", ("cifar100:coarse",), _all("anomem", **_OBJECT)),
    Part("one-vs-rest", ("cifar10",), _all("anomem", **_OBJECT), {"draws": 1}),
    Part("one-vs-rest", ("cifar10",), (_COSINE, *_all("knn", **_OBJECT)), _ONE_CLASS),
)

_CPU_LONG = (
    Part("localisation", _INDUSTRIAL, _all(*_SLOW), seeds=(0, 1, 2)),
    Part("localisation", _INDUSTRIAL[:4], STAGE_ONE),
    Part("cross-type", (_SCREW,), _LEARNERS, {"k": (0, 10, 30, "all"), "draws": 3}),
    Part("disturbed", (_CAPSULES, _SCREW), _all("padim", "fyd", "anomem")),
    Part("sweep", (_BRUSH,), _all("anomem"), {"of": "sampling-ratio"}),
    Part("sweep", (_BRUSH, _TILE), PMB_OBJECT, {"of": "delta-h"}, (0, 1, 2)),
    Part("sweep", (_BRUSH, _TILE), PMB_OBJECT, {"of": "p"}, (0, 1, 2)),
    Part("sweep", (_BRUSH,), PMB_OBJECT, {"of": "k"}),
    Part("one-vs-rest", ("pneumonia_mnist",), _all("simclr", **_OBJECT), {"gammas": (0.0,)}),
    Part("one-vs-rest", ("pneumonia_mnist",), _all("pmb", preset="medical"), {"gammas": (0.0,)}),
    Part("one-vs-rest", ("cifar100:coarse",), _all("anomem", **_OBJECT), {"draws": 1}),
    Part("one-vs-rest", ("cifar100:coarse",), (_COSINE, *_all("knn", "plume", **_OBJECT)), {"gammas": (0.0,)}),
    Part("one-vs-rest", ("cifar100:coarse",), STAGE_ONE_OBJECT, {"gammas": (0.0,)}),
    Part("one-vs-rest", ("mnist",), (PMB_ARMS[0], PMB_ARMS[4]), _ONE_CLASS, (0, 1, 2)),
    Part("one-vs-rest", ("cifar10",), _all("deepsad", "supervised", **_OBJECT), {"draws": 1}),
    Part("one-vs-rest", ("cifar10",), _all("ocsvm", "plume", **_OBJECT), {"gammas": (0.0,)}),
    Part("one-vs-rest", ("cifar10",), _all("anomem", **_OBJECT), {"draws": 1, "anomalies": "one"}),
    Part("sweep", ("cifar100:coarse",), _all("plume", **_OBJECT), {"of": "constraint"}),
    Part("out-of-distribution", ("cifar10",), _all("anomem", "knn", "plume", **_OBJECT)),
    Part("linear-evaluation", ("cifar100:coarse",), STAGE_ONE_OBJECT),
    # Every method on the same test images; ten defects are reserved for methods that need labels.
    Part("few-labels", _INDUSTRIAL, _all(*_THREE, *_QUICK, *_SLOW, "supervised"), _ALIKE),
    Part("disturbed", (_BRUSH, _BOTTLE, _CAPSULES), FYD_ARMS, {"kinds": ("spatial",), "draws": 3}),
    Part("localisation", _INDUSTRIAL, FYD_PLAIN, seeds=(0, 1, 2)),
    Part("one-vs-rest", ("cifar10",), PLUME_ARMS, {"gammas": (0.0,), "classes": _THREE_CLASSES}, (0, 1, 2)),
    Part("one-vs-rest", ("cifar10",), PLUME_LITERAL, {"gammas": (0.0,), "classes": _THREE_CLASSES}),
    Part("one-vs-rest", ("cifar10",), FROM_SCRATCH, {"gammas": (0.0,), "classes": _SCRATCH_CLASSES}, (0, 1, 2)),
    Part(
        "one-vs-rest",
        ("cifar10",),
        PAPER_SMALL,
        {"gammas": (0.0, 0.1), "draws": 1, "labels": "anew", "classes": _TWO_CLASSES},
        (0, 1, 2),
    ),
    Part("one-vs-rest", ("mnist",), PMB_ARMS, {"gammas": (0.0,), "classes": ("0", "2", "5")}, (0, 1, 2)),
)

_CIFAR = ("cifar10", "cifar100")
_MVTEC = ("mvtec_ad",)
_TEXTURES = tuple(f"mvtec_ad/{name}" for name in TEXTURED["mvtec_ad"])
_OBJECTS = tuple(f"mvtec_ad/{name}" for name in CATALOG["mvtec_ad"].categories if name not in TEXTURED["mvtec_ad"])
_FIVE = (0, 1, 2, 3, 4)

_PAPER = (
    # AnoMem: Table 1, one-vs-rest with anomalies drawn ten times.
    Part("one-vs-rest", _CIFAR, (ANOMEM_32, *RIVALS), {"labels": "anew"}),
    Part("one-vs-rest", ("cub200",), (ANOMEM_224,), {"labels": "anew"}),
    # Table 2, out-of-distribution.
    Part("out-of-distribution", ("cifar10",), (ANOMEM_32,)),
    # Table 3, presentation attacks: all types at once, then each unseen.
    Part("localisation", ("wmca",), (ANOMEM_224,)),
    Part("cross-type", ("wmca",), (ANOMEM_224,), {"labels": "anew"}),
    # Table 4: linear evaluation, and ablations of memory and scales.
    Part("linear-evaluation", _CIFAR, ANOMEM_ENCODERS),
    Part("one-vs-rest", _CIFAR, ANOMEM_ABLATIONS, _ONE_CLASS),
    # Figures 3 and 4.
    Part("sweep", ("cifar10",), (ANOMEM_32,), {"of": "paper-memory-size"}),
    Part("sweep", ("cifar10",), (ANOMEM_32,), {"of": "paper-memory-ratio"}),
    Part("sweep", ("cifar10",), (ANOMEM_32,), {"of": "paper-sampling-ratio"}),
    Part("sweep", ("cifar10",), (ANOMEM_32,), {"of": "separability"}),
    # PLUME: Tables 1a and 1c, 1b and 2, and the values of lambda.
    Part("one-vs-rest", ("cifar10",), (*PLUME_ROWS, PLAD, NEIGHBOURS), _ONE_CLASS, _FIVE),
    Part("one-vs-rest", ("cifar100:coarse",), (PLUME, PLAD, NEIGHBOURS), _ONE_CLASS, _FIVE),
    Part("localisation", ("spark:cropped",), (*PLUME_BACKBONES, PLAD, NEIGHBOURS), seeds=_FIVE),
    Part("sweep", ("cifar10",), (PLUME,), {"of": "constraint"}, _FIVE),
    # FYD: Tables 1, 4, 5 and 7; 2; 8; 6; 3; compactness, and its limit.
    Part("localisation", ("mvtec_ad",), (*FYD_ROWS, FYD_WIDE), seeds=_FIVE),
    Part("localisation", ("btad",), (FYD_BASELINE, FYD, FYD_WIDE), seeds=_FIVE),
    Part("localisation", ("shanghaitech:every_fifth",), (FYD,), seeds=_FIVE),
    Part("localisation", _MVTEC, FYD_INSERTIONS, seeds=_FIVE),
    Part("disturbed", _MVTEC, FYD_DISTURBED, seeds=_FIVE),
    Part("distance-variance", _MVTEC, (FYD_BASELINE, FYD), seeds=_FIVE),
    Part("one-vs-rest", ("cifar10",), (FYD,), _ONE_CLASS, _FIVE),
    # PMB: Tables I, IV and V; digits and OCT; Table VI; Fig. 9; Tables VII and VIII.
    Part("localisation", _OBJECTS, (PMB_OBJECTS, *PMB_RIVALS)),
    Part("localisation", _TEXTURES, (PMB_TEXTURES, *PMB_RIVALS)),
    Part("one-vs-rest", ("mnist",), (PMB_DIGITS,), _ONE_CLASS),
    Part("localisation", ("octid", "kermany"), (PMB_OCT,)),
    Part("sweep", _OBJECTS, (PMB_OBJECTS,), {"of": "delta-h"}),
    Part("sweep", _TEXTURES, (PMB_TEXTURES,), {"of": "delta-h"}),
    Part("localisation", _OBJECTS, PMB_LEVELS_OBJECTS),
    Part("localisation", _TEXTURES, PMB_LEVELS_TEXTURES),
    Part("sweep", _MVTEC, (PMB_OBJECTS,), {"of": "k"}),
    Part("sweep", ("mnist",), (PMB_DIGITS,), {"of": "digits-k"}),
    Part("sweep", ("octid", "kermany"), (PMB_OCT,), {"of": "oct-k"}),
)

_FIVE_SETS = (_BRUSH, "mvtec_ad/pill", "aitex_tiles", "fabric_stain", _TILE)
_MEMORY = (Part("localisation", _FIVE_SETS, (*MEMORY_ARMS, *_all("padim")), seeds=(0, 1, 2)),)

_DEFAULTS = _all("anomem", "padim")
_DEVELOPMENT = (Part("localisation", _FIVE_SETS, _DEFAULTS, {"calibration": "cross"}, _FIVE),)
_REPORT = (Part("localisation", (_BOTTLE, _CAPSULES, _SCREW), _DEFAULTS, {"calibration": "cross"}, _FIVE),)

SUITES: dict[str, tuple[Part, ...]] = {
    "smoke": _SMOKE,
    "cpu": _CPU,
    "cpu-long": _CPU_LONG,
    "development": _DEVELOPMENT,
    "memory": _MEMORY,
    "paper": _PAPER,
    "report": _REPORT,
}
"""Suite by name.

``smoke``: every protocol once, on images shipped with anomem. ``cpu``: the published figures, on small sets, hours on a
CPU. ``cpu-long``: long trainings and sets of many classes, one or two days on a CPU. ``development``: the defaults,
cross-fitted, on development sets, an hour on a CPU. ``memory``: AnoMem's settings one at a time and those of version
0.1, split, on development sets, hours on a CPU. ``paper``: the papers' recipes at full scale, for a GPU. ``report``: as
``development``, on sets on which nothing was chosen.
"""
