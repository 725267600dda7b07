"""AnoMem's parameter groups, presets and former names."""

from __future__ import annotations

from typing import Any

from anomem.detectors.anomem.heads import BLOCKS
from anomem.detectors.anomem.loss import Base, VarianceKind
from anomem.nn.views import MOVED_VIEWS, Views
from anomem.params import FLAG, Each, OneOf, Parameters, Range, group, param, parameter_group

POSITIVE = Range(0.0, low_open=True)
SHARE = Range(0.0, 1.0, low_open=True)


@parameter_group
class Contrast(Parameters):
    """Parameters of :func:`~anomem.detectors.anomem.loss.multi_scale_contrasted_memory_loss`, under its names."""

    base: Base = param("simclr", OneOf(("simclr", "barlow")), doc="Contrastive loss: NT-Xent or cross-correlation.")
    temperature: float = param(0.1, POSITIVE, doc="Temperature tau of Eq. 5.", when="base=simclr")
    variance: VarianceKind = param(
        "batch",
        OneOf(("batch", "sample")),
        doc="Reading of Eq. 6: deviation over the batch per dimension, or within each retrieved vector, as printed.",
        preset=True,
        when="variance_weight",
    )
    hinge: bool = param(
        False, FLAG, doc="Take max(0, 1 - deviation) instead of -deviation in Eq. 6.", when="variance_weight"
    )
    unit: bool | None = param(
        None,
        FLAG,
        doc="Scale retrievals to unit norm before Eq. 6; none: unless hinge is set. Printed: false.",
        optional=True,
        preset=True,
        when="variance_weight",
    )
    variance_weight: float = param(0.05, Range(0.0), doc="Weight lambda_V of the variance term (Eq. 6).")
    ratios: tuple[float, ...] = param(
        (0.3, 1.0),
        Each(SHARE),
        doc="Sampling ratio r of each scale, from the last backwards; earlier scales take the first value.",
    )


@parameter_group
class StageOne(Parameters):
    """Training of memories and backbone by the contrasted memory loss."""

    steps: int | None = param(
        1500,
        Range(1, integer=True),
        doc="Maximum number of optimiser steps; none: as many as the epochs take.",
        optional=True,
        preset=True,
    )
    epochs: int | None = param(
        None,
        Range(1, integer=True),
        doc="Maximum number of passes over the normals that are learnt; none: as many as the steps take.",
        optional=True,
        preset=True,
    )
    warmup: int = param(
        0,
        Range(0, integer=True),
        doc="Steps without memory, Mem(z) = z; after them the memory is seeded from the views' features.",
        preset=True,
    )
    items: str = param(
        "learnt",
        OneOf(("learnt", "centres")),
        doc="Items after training: as learnt, or k-means centres of the trained features, newly normalised.",
        preset=True,
    )
    train_backbone: str = param(
        "none",
        OneOf(("none", "last", "all")),
        doc="Layers of the backbone trained with the memories; from scratch, all of them.",
        preset=True,
    )
    batch: int = param(64, Range(2, integer=True), doc="Images per step (two views each), B.", preset=True)
    lr: float = param(
        0.03, POSITIVE, doc="Peak learning rate of SGD with Nesterov momentum and one cosine.", preset=True
    )
    weight_decay: float = param(5e-4, Range(0.0), doc="Weight decay (L2).", preset=True)
    contrast: Contrast = group(Contrast, doc="Contrasted memory loss, Eq. 3 to 7.")
    projection_dim: int | None = param(
        None, Range(1, integer=True), doc="Width of a projection head per scale; none: no head.", optional=True
    )
    geometry: str = param(
        "auto",
        OneOf(("auto", "shared", "independent")),
        doc="Crop and flip of the two views: alike or independent; auto: independent from scratch, else shared.",
        preset=True,
    )
    views: Views = group(Views, doc="Strengths of the views.")
    cache_mb: int = param(1024, Range(1, integer=True), doc="Memory for cached images and views, MB.")


@parameter_group
class Fusion(Parameters):
    """Fusion of the scales' deviations into a map that is shown and one that is scored."""

    map_weights: tuple[float, ...] | None = param(
        None,
        Each(Range(0.0)),
        doc="Weight of each scale in the map; none: scale_weights, one map for both.",
        optional=True,
        preset=True,
    )
    map_standardise: str | None = param(
        None,
        OneOf(("position", "scale", "none")),
        doc="Standardisation of a map with weights of its own; none: as standardise.",
        optional=True,
        preset=True,
    )
    position_prior: float = param(
        200.0,
        Range(0.0),
        doc="Weight of the prior that all positions are alike, for standardisation per position, images.",
        preset=True,
    )


@parameter_group
class StageTwo(Parameters):
    """Use of labelled images in AnoMem's second stage."""

    weight: float | None = param(
        None,
        Range(0.0, 1.0),
        doc="Labels' share w of the score; none: derived from their number and cross-validated gain.",
        optional=True,
        when="learner=kernel",
    )
    cap: float = param(
        None,
        Range(0.0, 1.0),
        doc="Maximum weight of labels of fewer than two known types.",
        preset=True,
        when="learner=kernel",
    )
    heads: tuple[str, ...] = param(
        None,
        Each(OneOf(tuple(BLOCKS))),
        doc="Summaries of the deviations, each with one kernel ridge head.",
        preset=True,
        when="learner=kernel",
    )
    learner: str = param(
        "kernel",
        OneOf(("kernel", "distance")),
        doc="Score of labelled images: kernel ridge heads, or the paper's g (Eq. 10 to 13), then with w = 1.",
        preset=True,
    )
    margin: float = param(2.0, Range(1.0), doc="Margin M of Eq. 11.", when="learner=distance")
    recipe: str = param(
        "brief",
        OneOf(("brief", "paper")),
        doc="Training of g: brief, by AdamW on averages and single positions of tune normals; paper, by SGD with "
        "Nesterov momentum and a cosine on averages of the normals of stage 1.",
        preset=True,
        when="learner=distance",
    )


MOVED = {
    "train_steps": "stage_one.steps",
    "train_backbone": "stage_one.train_backbone",
    "train_batch": "stage_one.batch",
    "lr": "stage_one.lr",
    "weight_decay": "stage_one.weight_decay",
    "contrast": "stage_one.contrast.base",
    "temperature": "stage_one.contrast.temperature",
    "variance": "stage_one.contrast.variance",
    "variance_hinge": "stage_one.contrast.hinge",
    "variance_weight": "stage_one.contrast.variance_weight",
    "sampling_ratio": "stage_one.contrast.ratios",
    "projection_dim": "stage_one.projection_dim",
    "geometry": "stage_one.geometry",
    **{name: f"stage_one.views.{member}" for name, member in MOVED_VIEWS.items()},
    "cache_mb": "stage_one.cache_mb",
    "label_weight": "stage_two.weight",
    "label_cap": "stage_two.cap",
    "heads": "stage_two.heads",
    "label_head": "stage_two.learner",
    "margin": "stage_two.margin",
}
"""Map from former names to names within their group."""

PRESETS: dict[str, dict[str, Any]] = {
    "surface": {
        "size": 224,
        "stages": (1, 1, 2, 2, 3, 3, "blocks.5", "blocks.5"),
        "embedding": False,
        "neighbourhood": (3, 1, 3, 1, 3, 1, 3, 1),
        "memory_size": (1024,),
        "memory_share": 8,
        "seeding": "farthest",
        "normalise": "whiten",
        "whitening": 1.0,
        "shrinkage": 0.03,
        "unit_norm": (False, False, False, False, True, False, True, True),
        "position_mean": True,
        "place_weight": (3.0, 0.0, 3.0, 0.0, 3.0, 1.0, 3.0, 3.0),
        "max_grid": (28,),
        "beta": "hard",
        "scale_weights": (1.0, 0.0, 1.0, 0.0, 0.75, 0.75, 0.5, 0.5),
        "fusion.map_weights": (0.0, 0.5, 0.0, 1.0, 0.0, 0.75, 0.0, 0.0),
        "smoothing": 0.0,
        "reduction": "top",
        "standardise": "position",
        "fusion.position_prior": 50.0,
        "fusion.map_standardise": "scale",
        "stage_two.heads": ("spread", "signed", "top", "peak"),
        "stage_two.cap": 0.8,
    },
    "object": {
        "size": 160,
        "stages": (4, 4),
        "embedding": True,
        "neighbourhood": (1,),
        "memory_size": (256,),
        "memory_share": 1,
        "seeding": "kmeans",
        "normalise": "whiten",
        "whitening": 0.5,
        "shrinkage": 0.3,
        "position_mean": False,
        "max_grid": (28, 1, 1),
        "beta": 16.0,
        "scale_weights": (1.0,),
        "fusion.map_weights": None,
        "fusion.map_standardise": None,
        "reduction": "l2",
        "standardise": "scale",
        "stage_two.heads": ("pooled",),
        "stage_two.cap": 0.4,
    },
}
# The paper names a modern Hopfield layer. Its public implementation layer-normalises queries and stored patterns, takes
# one update, and divides the inverse temperature by the root of the width: items drawn from N(0, 0.02) differ only
# then, and pass gradients (benchmarks/results/variants/anomem-readings.jsonl has the other readings). Rates and epochs
# are not stated: those of the public code of SimCLR and SSD for CIFAR, whose rate of 0.5 is for batches of 512.
PRESETS["paper"] = PRESETS["object"] | {
    "size": 32,
    "aspect": "square",
    "backbone": "resnet50",
    "weights": None,
    "stages": (3, 4),
    "embedding": False,
    "neighbourhood": (1,),
    "max_grid": (64,),
    "memory_size": (512, 256),
    "memory_share": 1,
    "seeding": "random",
    "normalise": "layernorm-both",
    "association": "scaled",
    "beta": 2.0,
    "retrieval_steps": 1,
    "scale_weights": (1.0, 2.0),
    "standardise": "none",
    "reduction": "l2",
    "stage_one": StageOne(),
    "stage_one.steps": None,
    "stage_one.epochs": 500,
    "stage_one.train_backbone": "all",
    "stage_one.batch": 1024,
    "stage_one.lr": 1.0,
    "stage_one.weight_decay": 1e-4,
    "stage_one.contrast.variance": "sample",
    "stage_one.contrast.unit": False,
    "stage_one.geometry": "independent",
    "stage_two.learner": "distance",
    "stage_two.recipe": "paper",
}
