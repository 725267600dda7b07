"""FYD: focus your distribution, coarse-to-fine non-contrastive learning."""

from __future__ import annotations

import warnings
from collections.abc import Generator, Mapping
from typing import Any, ClassVar, Self

from anomem.data.imageset import ImageSet
from anomem.detector import Supervision
from anomem.detectors.baselines._pooled import MODEL, PRESET_DOC, STAGE, WEIGHTS, Pretrained
from anomem.detectors.fyd.alignment import Padding
from anomem.detectors.fyd.scorer import STAGES, FYDScorer, empty_scorer
from anomem.detectors.fyd.training import align_features, align_images, gate, learn_gaussians
from anomem.errors import AnomemWarning
from anomem.fitting import Labelled, Run
from anomem.nn.backbones import DEFAULT_BACKBONE
from anomem.nn.scorer import Scorer
from anomem.params import FLAG, OneOf, Parameters, Range, group, param, parameter_group, parameters
from anomem.types import Record

POSITIVE = Range(0.0, low_open=True)


@parameter_group
class ImageAlignment(Parameters):
    """Alignment of images by one rotation (ICA)."""

    keep: str = param(
        "auto",
        OneOf(("auto", "on")),
        doc="Keep the aligner always, or (auto) only where defects planted in tune normals stand out 5 % more with it.",
        preset=True,
    )
    angle: str = param(
        "direction",
        OneOf(("direction", "number")),
        doc="Output of the last layer: a direction, which follows an object all the way round, or the angle itself.",
        preset=True,
    )
    max_angle: float = param(180.0, Range(0.0, 180.0, low_open=True), doc="Largest rotation either way, degrees.")
    steps: int = param(
        200,
        Range(0, integer=True),
        doc="Steps of training on pixels alone (Eq. 2), before all other training.",
        preset=True,
    )
    joint: bool = param(False, FLAG, doc="Continue training with all other parts, on both losses (Eq. 5).", preset=True)
    lr: float = param(3e-3, POSITIVE, doc="Peak learning rate of ICA.", preset=True, when="steps or joint")
    weight: float = param(1.0, Range(0.0), doc="Weight lambda_1 of the image loss (Eq. 5).", when="joint")
    turns: float = param(
        180.0,
        Range(0.0, 180.0),
        doc="Largest random rotation of training images, degrees.",
        preset=True,
        when="steps or joint",
    )


@parameter_group
class FeatureAlignment(Parameters):
    """Alignment of feature maps by six affine numbers (FCA)."""

    keep: str = param(
        "auto",
        OneOf(("auto", "on")),
        doc="Keep the aligners always, or (auto) only where defects planted in tune normals stand out 5 % more "
        "with them.",
        preset=True,
    )
    behind: tuple[int | str, ...] | None = param(
        None, STAGE, doc="Those of the stages that have an aligner behind them; none: all.", optional=True
    )
    bounded: bool = param(
        True,
        FLAG,
        doc="Bound rotation, scale, shear and shift (30 degrees, 20 %, 0.2, a tenth of the image).",
        preset=True,
    )
    lr: float = param(2e-3, POSITIVE, doc="Peak learning rate of FCA.", preset=True)


@parameter_group
class Training(Parameters):
    """Dense non-contrastive learning (Eq. 3 and 4)."""

    steps: int = param(60, Range(1, integer=True), doc="Optimiser steps.", preset=True)
    train_backbone: str = param(
        "late",
        OneOf(("none", "late", "all")),
        doc="Trained layers of the backbone: none, those behind the first of the stages, or all.",
        preset=True,
    )
    batch_norm: str = param(
        "pretrained",
        OneOf(("pretrained", "batch")),
        doc="Statistics of batch normalisation while the backbone learns: pretrained, or the batch's.",
        preset=True,
        when="train_backbone=late|all",
    )
    lr: float = param(
        1e-5, POSITIVE, doc="Peak learning rate of the backbone.", preset=True, when="train_backbone=late|all"
    )
    head_lr: float = param(5e-3, POSITIVE, doc="Peak learning rate of f and g.", preset=True)
    weight: float = param(1.0, Range(0.0), doc="Weight lambda_2 of the feature loss (Eq. 5).")
    reduction: str = param(
        "mean",
        OneOf(("mean", "sum")),
        doc="Eq. 4 over positions: mean, as in Algorithm 1, or sum, as printed; with SGD a factor of the rate.",
        preset=True,
    )
    width: int = param(256, Range(1, integer=True), doc="Width of f and g.")


FROZEN: Mapping[str, Any] = {"image_aligner": None, "feature_aligner": None, "training": None}
"""Parameters that disable all training and alignment: the paper's baseline, PaDiM."""

MOVED = {
    "image_alignment": "image_aligner.keep",
    "angle": "image_aligner.angle",
    "max_angle": "image_aligner.max_angle",
    "image_steps": "image_aligner.steps",
    "joint": "image_aligner.joint",
    "image_lr": "image_aligner.lr",
    "image_weight": "image_aligner.weight",
    "turns": "image_aligner.turns",
    "feature_alignment": "feature_aligner",
    "bounded": "feature_aligner.bounded",
    "feature_lr": "feature_aligner.lr",
    "train_steps": "training.steps",
    "train_backbone": "training.train_backbone",
    "batch_norm": "training.batch_norm",
    "lr": "training.lr",
    "head_lr": "training.head_lr",
    "feature_weight": "training.weight",
    "width": "training.width",
}
"""Map from former names to names within their group."""

PRESETS: dict[str, Mapping[str, Any]] = {
    **Pretrained.presets,
    "paper": {
        "size": 224,
        "aspect": "square",
        "backbone": "resnet18",
        # Not stated: torchvision's, as those of its baseline.
        "weights": "tv_in1k",
        "image_aligner.keep": "on",
        "image_aligner.angle": "number",
        "image_aligner.steps": 0,
        "image_aligner.joint": True,
        "image_aligner.lr": 0.01,
        "image_aligner.turns": 0.0,
        "feature_aligner.keep": "on",
        "feature_aligner.bounded": False,
        "feature_aligner.lr": 1e-4,
        # 50 epochs of some 150 to 250 normals in batches of 32.
        "training.steps": 400,
        "training.train_backbone": "all",
        "training.batch_norm": "batch",
        "training.lr": 1e-4,
        "training.head_lr": 1e-4,
        "training.reduction": "sum",
        "centred": False,
        "common_frame": False,
        "train_batch": 32,
        "optimiser": "sgd",
        "zooms": 0.0,
    },
}


@parameters
class FYD(Pretrained):
    """FYD: aligns images and feature maps, then fits one Gaussian per position to normals.

    An image aligner (ICA) turns every image by one angle; behind each stage of the backbone a feature aligner (FCA)
    warps the map by six affine numbers. The feature aligners, and the backbone with them, learn by dense
    non-contrastive learning: at each position, images of a batch predict each other's features (Eq. 3 and 4). In
    the aligned frame the mean and covariance of normal images are estimated at each position (Eq. 6); the map is the
    Mahalanobis distance (Eq. 7), warped back to the image's own frame and smoothed, and the score is its maximum.

    References
    ----------
    Zheng, Wang, Deng, Bao, Zhao, Wu, "Focus your distribution: coarse-to-fine non-contrastive learning for anomaly
    detection and localization", 2022. The preset ``paper`` is its literal form, :data:`FROZEN` its baseline.
    """

    name: ClassVar[str] = "fyd"
    supervision: ClassVar[Supervision] = "none"
    localizes: ClassVar[bool] = True
    paper: ClassVar[str] = "Zheng et al., Focus Your Distribution, 2022"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = PRESETS
    moved: ClassVar[Mapping[str, str]] = MOVED
    test_params: ClassVar[dict[str, Any]] = {
        "size": 64,
        "n_channels": 40,
        "train_batch": 4,
        "hidden": 8,
        "image_aligner.keep": "on",
        "image_aligner.steps": 1,
        "training.steps": 1,
        "training.width": 16,
    }

    preset: str = param("surface", OneOf(tuple(PRESETS)), doc=f"{PRESET_DOC}; paper: the publication's literal form.")
    backbone: str = param(DEFAULT_BACKBONE, MODEL, doc="Backbone, a timm model.", preset=True)
    weights: str | None = param(
        "default", WEIGHTS, doc="Weights of the backbone; none: random ones.", optional=True, preset=True
    )
    stages: tuple[int | str, ...] = param(
        STAGES, STAGE, doc="Feature maps of the backbone, in order, as timm's out_indices, or by name or stride."
    )
    image_aligner: ImageAlignment | None = group(
        ImageAlignment, doc="Alignment of images (ICA); none: off.", optional=True, off=("image_alignment", "off")
    )
    feature_aligner: FeatureAlignment | None = group(
        FeatureAlignment,
        doc="Alignment of feature maps (FCA) behind each stage, learnt by the training; none: off.",
        optional=True,
        off=("feature_alignment", False),
        when="training",
    )
    training: Training | None = group(
        Training,
        doc="Dense non-contrastive learning; none: the backbone is not trained, without FCA.",
        optional=True,
        off=("train_steps", 0),
    )
    centred: bool = param(
        True,
        FLAG,
        doc="Subtract the common part of a batch from all warps.",
        preset=True,
        when="image_aligner or feature_aligner",
    )
    common_frame: bool = param(
        True,
        FLAG,
        doc="Bring all stages to the frame of the last aligner before they are stacked.",
        preset=True,
        when="feature_aligner",
    )
    padding: Padding = param(
        "reflection",
        OneOf(("reflection", "border")),
        doc="Content beyond the edge of an image or map; such positions count in no map or score.",
        when="image_aligner or feature_aligner",
    )
    hidden: int = param(
        128,
        Range(1, integer=True),
        doc="Width between the dense layers of the aligners.",
        when="image_aligner or feature_aligner",
    )
    train_batch: int = param(16, Range(2, integer=True), doc="Images per step.", preset=True)
    optimiser: str = param("adamw", OneOf(("adamw", "sgd")), doc="Optimiser; SGD has momentum 0.9.", preset=True)
    weight_decay: float = param(1e-5, Range(0.0), doc="Weight decay.")
    zooms: float = param(
        0.2, Range(0.0, 1.0), doc="Largest log-magnification of training images, either way.", preset=True
    )
    n_channels: int | None = param(
        100,
        Range(1, integer=True),
        doc="Number of channels drawn from the stacked maps; none: all. Memory and file grow with its square.",
        optional=True,
    )
    ridge: float = param(0.01, POSITIVE, doc="Ridge added to the diagonal of every covariance.")
    smoothing: float = param(
        4.0, Range(0.0, 64.0), doc="Standard deviation of the Gaussian blur of the map, input pixels."
    )
    edges: str = param(
        "faded",
        OneOf(("faded", "even")),
        doc="Map near the edge of the common frame: faded by the blur, or even, divided by the blurred share in frame.",
        when="image_aligner or feature_aligner",
    )
    cache_mb: int = param(1024, Range(1, integer=True), doc="Memory for prepared images, MB.")

    def input_strides(self) -> tuple[int, int] | None:
        """Return the backbone's stride; None with an image aligner, which turns square images about their centre."""
        return super().input_strides() if self.image_aligner is None else None

    def _fit(
        self, learn: ImageSet, tune: ImageSet, labelled: Labelled | None, run: Run[Self]
    ) -> Generator[Record, None, Scorer]:
        alone = len(learn) < 2
        if alone:
            line = "images: a single one cannot be aligned; give more normals"
            warnings.warn(line, AnomemWarning, stacklevel=2)
        scorer = empty_scorer(run.params, learn.preprocessing.hw, run.rng, alone=alone).to(run.device).eval()
        if not alone:
            yield from align_images(scorer, learn, tune, run)
            yield from align_features(scorer, learn, run)
            yield from gate(scorer, "feature", learn, tune, run)
        scorer.requires_grad_(False)
        # Nothing is tuned on the tune normals any more: a covariance gains from every image.
        yield from learn_gaussians(scorer, [learn, tune], run)
        return scorer.requires_grad_(False)

    @classmethod
    def _build(cls, config: dict[str, Any]) -> Scorer:
        return FYDScorer(config)
