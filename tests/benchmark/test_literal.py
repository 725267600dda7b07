"""Recipes of the paper suite against what the papers state, setting by setting."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from anomem.benchmark.protocols.registry import new_protocol
from anomem.benchmark.suites import SUITES
from anomem.benchmark.unit import Variant, plain
from anomem.detectors import get

PLUME: dict[str, Any] = {
    "backbone": "resnet50",
    "weights": "tv_in1k",
    "output_dim": 3072,
    "normalise": "batch",
    "size": 224,
    "perturbation": "linear",
    "map_scale": None,
    "cooperative": True,
    "identity_start": False,
    "likelihood": False,
    "constraint": "code",
    "constraint_sum": False,
    "constraint_weight": 5.0,
    "divergence_weight": 1.0,
    "contrast": "full",
    "contrast_weight": 1.0,
    "temperature": 0.5,
    "joint": False,
    "hidden": (1024, 512),
    "perturbator_width": None,
    "training.epochs": 100,
    "training.steps": None,
    "training.batch": 32,
    "training.lr": None,
    "aspect": "square",
}
"""Sec. 4.3, and the authors' code where the equations differ from it."""

FYD: dict[str, Any] = {
    "backbone": "resnet18",
    "weights": "tv_in1k",
    "stages": (1, 2, 3),
    "size": 224,
    "aspect": "square",
    "image_aligner.keep": "on",
    "image_aligner.angle": "number",
    "image_aligner.steps": 0,
    "zooms": 0.0,
    "image_aligner.joint": True,
    "image_aligner.lr": 0.01,
    "image_aligner.weight": 1.0,
    "image_aligner.turns": 0.0,
    "feature_aligner.keep": "on",
    "feature_aligner.behind": None,
    "feature_aligner.bounded": False,
    "feature_aligner.lr": 1e-4,
    "training.lr": 1e-4,
    "training.head_lr": 1e-4,
    "training.weight": 1.0,
    "training.train_backbone": "all",
    "training.batch_norm": "batch",
    "training.reduction": "sum",
    "training.steps": 400,
    "training.width": 256,
    "centred": False,
    "common_frame": False,
    "train_batch": 32,
    "optimiser": "sgd",
    "weight_decay": 1e-5,
    "n_channels": 100,
    "ridge": 0.01,
    "smoothing": 4.0,
}
"""Supplement, "Implementation Details of Training"."""

PMB: dict[str, Any] = {
    "size": 128,
    "levels": 5,
    "memory_levels": 4,
    "partitions": (16, 16, 16, 8, 8),
    "memory": "partition",
    "items": (150, 200, 200, 200, 200),
    "widths": (64, 128, 256, 512, 512),
    "memory_channels": None,
    "activation": "relu",
    "seeding": "random",
    "temperature": 1.0,
    "renormalise": False,
    "error": "absolute",
    "error_share": 0.5,
    "loss": "mse+ssim",
    "ssim_weight": 0.1,
    "lr": 0.002,
    "train_batch": 20,
    "train_steps": 20_000,
    "aspect": "square",
}
"""Sec. IV; widths and steps are not stated."""

DIGITS = {"levels": 3, "memory_levels": 3, "partitions": (1,), "items": (10,), "train_batch": 64}
OCT = {"levels": 4, "memory_levels": 3, "partitions": (2,), "items": (10,)}
PRESETS = {"digits": DIGITS, "medical": OCT}

ANOMEM: dict[str, Any] = {
    "size": 32,
    "aspect": "square",
    "backbone": "resnet50",
    "weights": None,
    "stages": (3, 4),
    "embedding": False,
    "neighbourhood": (1,),
    "memory": "hopfield",
    "memory_size": (512, 256),
    "memory_share": 1,
    "beta": 2.0,
    "seeding": "random",
    "normalise": "layernorm-both",
    "association": "scaled",
    "retrieval_steps": 1,
    "scale_weights": (1.0, 2.0),
    "standardise": "none",
    "reduction": "l2",
    "stage_one.batch": 1024,
    "stage_one.train_backbone": "all",
    "stage_one.geometry": "independent",
    "stage_one.contrast.base": "simclr",
    "stage_one.contrast.temperature": 0.1,
    "stage_one.contrast.variance": "sample",
    "stage_one.contrast.unit": False,
    "stage_one.contrast.variance_weight": 0.05,
    "stage_one.contrast.ratios": (0.3, 1.0),
    "stage_two.learner": "distance",
    "stage_two.margin": 2.0,
    "stage_two.recipe": "paper",
}
"""Sec. 3 and 4.1; `layernorm-both` and `scaled` are the public Hopfield layer's."""

LITERAL = {"anomem": ANOMEM, "plume": PLUME, "fyd": FYD, "pmb": PMB}

CHANGES: dict[str, set[str]] = {
    "anomem": {"size", *("stages", "memory_size", "scale_weights", "stage_one.contrast.ratios", "memory")},
    "plume": {"perturbation", "contrast", "backbone", "weights"},
    "fyd": {"image_aligner", "feature_aligner", "feature_aligner.behind", "backbone", "n_channels"},
    "pmb": {"partitions", "memory", "memory_levels", "levels", "loss", "error_share"},
}
"""What ablations and further settings of the papers' tables may change."""


def variants() -> Iterator[Variant]:
    for part in SUITES["paper"]:
        for variant, _ in new_protocol(part.protocol, part.options).expanded(part.variants):
            if variant.method in LITERAL:
                yield variant


def test_every_recipe_is_the_papers_but_for_what_its_table_varies() -> None:
    seen = set()
    for variant in variants():
        wanted = LITERAL[variant.method] | PRESETS.get(variant.params["preset"], {})
        swept = {str(variant.sweep["parameter"])} if variant.sweep else set()
        named = {*variant.params, *swept} & (CHANGES[variant.method] | swept)
        resolved = get(variant.method)(**variant.params).resolve()
        off = {name for name in named if resolved[name] is None}
        for name, value in wanted.items():
            if name not in named and name.partition(".")[0] not in off:
                assert plain(resolved[name]) == plain(value), f"{variant.label} {variant.sweep}: {name}"
        seen.add(variant.method)
    assert seen == LITERAL.keys()


def labels_of(method: str, data: str, protocol: str) -> set[str]:
    parts = [p for p in SUITES["paper"] if p.protocol == protocol and data in p.data]
    return {v.label or v.method for part in parts for v in part.variants if v.method == method}


def test_every_row_of_the_papers_tables_is_there() -> None:
    assert len(labels_of("plume", "cifar10", "one-vs-rest")) == 7, "Table 1c"
    assert len(labels_of("plume", "spark:cropped", "localisation")) == 3, "Table 2"
    assert labels_of("plad", "spark:cropped", "localisation")
    rows = labels_of("fyd", "mvtec_ad", "localisation")
    assert {"FYD, no aligner", "FYD, ICA alone", "FYD, FCA alone", "FYD, ResNet-18"} <= rows, "Tables 4 and 5"
    assert {f"FYD, FCA behind layer{i}" for i in (1, 2, 3)} <= rows, "Table 6"
    assert "FYD, no aligner" in labels_of("fyd", "mvtec_ad", "disturbed"), "Table 3"
    for data in ("mvtec_ad/bottle", "mvtec_ad/tile"):
        found = labels_of("pmb", data, "localisation")
        assert {"AE-SSIM", "AE-L2", "AE+skip", "DAAD, without adversary"} <= found, "Table V"
        assert len([name for name in found if name.startswith("PMB, setting")]) == 5, "Fig. 9"
        assert labels_of("memae", data, "localisation") == {"MemAE"}


@pytest.mark.parametrize("method", ["plume", "fyd", "knn"])
def test_runs_with_random_parts_have_five_seeds(method: str) -> None:
    for part in SUITES["paper"]:
        if any(variant.method == method for variant in part.variants):
            assert part.seeds == (0, 1, 2, 3, 4)


def test_textures_have_their_own_partitions() -> None:
    for part in SUITES["paper"]:
        textures = [name for name in part.data if name in ("mvtec_ad/tile", "mvtec_ad/wood")]
        varied = part.options.get("of") == "k"
        for variant in part.variants if textures and not varied else ():
            if variant.method == "pmb" and variant.label.startswith("PMB"):
                assert variant.params["partitions"][:4] == (32, 16, 16, 8)
