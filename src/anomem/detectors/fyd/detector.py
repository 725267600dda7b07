"""FYD: focus your distribution, coarse-to-fine non-contrastive learning."""

from __future__ import annotations

import warnings
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from anomem.data.imageset import ImageSet
from anomem.detector import Detector, Supervision
from anomem.detectors.fyd.scorer import FYDScorer, empty_scorer
from anomem.detectors.fyd.training import align_features, align_images, learn_gaussians
from anomem.errors import AnomemWarning
from anomem.fitting import Labelled, Run
from anomem.nn.backbones import DEFAULT_BACKBONE
from anomem.nn.scorer import Scorer
from anomem.params import FLAG, Each, Either, OneOf, Range, Text, param
from anomem.types import Record

POSITIVE = Range(0.0, low_open=True)

FROZEN: Mapping[str, Any] = {"image_alignment": "off", "feature_alignment": False, "train_steps": 0}
"""Parameters with which nothing is trained or aligned: the paper's baseline, PaDiM."""

PAPER: Mapping[str, Any] = {
    "backbone": "resnet18",
    "image_alignment": "on",
    "angle": "number",
    "image_steps": 0,
    "joint": True,
    "bounded": False,
    "centred": False,
    "common_frame": False,
    "train_batch": 32,
    "optimiser": "sgd",
    "train_backbone": "all",
    "batch_norm": "batch",
    "lr": 1e-4,
    "head_lr": 1e-4,
    "feature_lr": 1e-4,
    "image_lr": 0.01,
    "turns": 0.0,
    "zooms": 0.0,
}
"""Parameters of the paper's literal form; ``train_steps`` is 50 epochs' worth of batches of 32."""


@dataclass(kw_only=True, repr=False, eq=False)
class FYD(Detector):
    """FYD: images and feature maps are aligned, then a Gaussian at each position says what is normal there.

    An image aligner (ICA) turns every image by one angle; behind each stage of the backbone a feature aligner (FCA)
    warps the map by six affine numbers. The feature aligners, and the backbone with them, learn by dense
    non-contrastive learning: at each position, images of a batch are to predict each other's features (Eq. 3 and 4). In
    the aligned frame the mean and covariance of normal images are estimated at each position (Eq. 6); the map is the
    Mahalanobis distance (Eq. 7), warped back to the image's own frame and smoothed, and the score is its maximum.

    Parameters
    ----------
    preset : {"surface", "object"}
        Input size: 224 or 160 pixels.
    backbone, weights, stages
        As for :func:`~anomem.nn.backbones.load_backbone`; stages in order. The default ones have strides 4, 8 and 16.
    image_alignment : {"auto", "on", "off"}
        ICA. "auto": kept where it brings normals that it has not learnt from at least 5 % nearer to each other, pixel
        by pixel; where objects lie alike already, and on textures, it does not.
    feature_alignment : bool
        FCA behind each stage; takes part where `train_steps` is above 0.
    angle : {"direction", "number"}
        What ICA's last layer gives: a direction, which can follow an object all the way round, or the angle itself (the
        paper), which cannot.
    max_angle : float
        Largest rotation of ICA either way, degrees.
    bounded : bool
        Whether rotation, scale, shear and shift of FCA are bounded (30 degrees, 20 %, 0.2, a tenth of the image).
    centred : bool
        Whether FCA's numbers are taken relative to their mean: what all images share in a warp aligns nothing, but
        would drift.
    common_frame : bool
        Whether all stages' maps are brought to the frame of the last aligner before they are stacked.
    padding : {"reflection", "border"}
        What lies beyond the edge of an image or map. Such positions count in no map or score.
    image_steps : int
        Steps in which ICA learns alone, by pixels (Eq. 2), before anything else; they are cheap.
    joint : bool
        Whether ICA goes on learning with everything else, by both losses (Eq. 5).
    train_steps : int
        Steps of dense non-contrastive learning; 0: backbone as it is, no FCA.
    train_batch : int
        Images a step.
    train_backbone : {"none", "late", "all"}
        What learns of the backbone: nothing, all behind the first of the stages, or all.
    batch_norm : {"pretrained", "batch"}
        Statistics of the backbone's batch normalisation while it learns: those it was pretrained with, or the batch's
        and, for scoring, their running mean.
    lr, head_lr, feature_lr, image_lr : float
        Peak rates of the backbone, of f and g, of FCA and of ICA; SGD with momentum 0.9, half a cosine.
    weight_decay : float
        L2, of everything.
    image_weight, feature_weight : float
        lambda_1 and lambda_2 of Eq. 5.
    turns, zooms : float
        Random poses of training images, so that the aligners meet more of them than there are images: largest rotation
        (degrees; only where ICA learns) and logarithm of the magnification, either way. 0: the paper.
    width : int
        Of f and g.
    hidden : int
        Between the fully-connected layers of the aligners.
    n_channels : int or None
        Channels that are drawn of the stacked maps; None: all. Memory and file grow with the square of it.
    ridge : float
        Added to the diagonal of every covariance.
    smoothing : float
        Standard deviation of the Gaussian on the map, in pixels of the model's input.
    cache_mb : int
        Prepared images are kept in memory up to this while training.

    References
    ----------
    Zheng, Wang, Deng, Bao, Zhao, Wu, "Focus your distribution: coarse-to-fine non-contrastive learning for anomaly
    detection and localization", 2022. :data:`PAPER` holds its literal form, :data:`FROZEN` its baseline.
    """

    name: ClassVar[str] = "fyd"
    supervision: ClassVar[Supervision] = "none"
    localizes: ClassVar[bool] = True
    paper: ClassVar[str] = "Zheng et al., Focus Your Distribution, 2022"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"surface": {"size": 224}, "object": {"size": 160}}
    test_params: ClassVar[dict[str, Any]] = {
        "size": 64,
        "n_channels": 40,
        "image_alignment": "on",
        "image_steps": 1,
        "train_steps": 1,
        "train_batch": 4,
        "width": 16,
        "hidden": 8,
    }

    size: int | None = param(None, Range(16, 4096, integer=True), doc="Input side, pixels.", preset=True)
    preset: str = param("surface", OneOf(("surface", "object")), doc="Named set of parameters.")
    backbone: str = param(DEFAULT_BACKBONE, Text("a timm model's name"), doc="A timm model.")
    weights: str | None = param("default", Text("default, a file, a timm tag"), doc="Its weights.", optional=True)
    stages: tuple[int | str, ...] = param(
        (1, 2, 3), Each(Either((Range(-8, 8, integer=True), Text("a layer")))), doc="Feature maps, in order."
    )
    image_alignment: str = param("auto", OneOf(("auto", "on", "off")), doc="ICA: kept where it helps, always, never.")
    feature_alignment: bool = param(True, FLAG, doc="FCA behind each stage.")
    angle: str = param("direction", OneOf(("direction", "number")), doc="What ICA's last layer gives.")
    max_angle: float = param(180.0, Range(0.0, 180.0, low_open=True), doc="Largest rotation of ICA, degrees.")
    bounded: bool = param(True, FLAG, doc="Bound the warps of FCA.")
    centred: bool = param(True, FLAG, doc="Take out of FCA's warps what all images share.")
    common_frame: bool = param(True, FLAG, doc="Bring all stages to the frame of the last one.")
    padding: str = param("reflection", OneOf(("reflection", "border")), doc="What lies beyond the edge.")
    image_steps: int = param(200, Range(0, integer=True), doc="Steps in which ICA learns alone.")
    joint: bool = param(False, FLAG, doc="ICA goes on learning with everything else.")
    train_steps: int = param(60, Range(0, integer=True), doc="Steps of dense non-contrastive learning.")
    train_batch: int = param(16, Range(2, integer=True), doc="Images a step.")
    train_backbone: str = param("late", OneOf(("none", "late", "all")), doc="What learns of the backbone.")
    batch_norm: str = param("pretrained", OneOf(("pretrained", "batch")), doc="Statistics while it learns.")
    optimiser: str = param("adamw", OneOf(("adamw", "sgd")), doc="SGD has momentum 0.9.")
    lr: float = param(1e-5, POSITIVE, doc="Peak rate of the backbone.")
    head_lr: float = param(5e-3, POSITIVE, doc="Peak rate of f and g.")
    feature_lr: float = param(2e-3, POSITIVE, doc="Peak rate of FCA.")
    image_lr: float = param(3e-3, POSITIVE, doc="Peak rate of ICA.")
    weight_decay: float = param(1e-5, Range(0.0), doc="Weight decay.")
    image_weight: float = param(1.0, Range(0.0), doc="lambda_1 of Eq. 5.")
    feature_weight: float = param(1.0, Range(0.0), doc="lambda_2 of Eq. 5.")
    turns: float = param(180.0, Range(0.0, 180.0), doc="Largest random rotation of training images, degrees.")
    zooms: float = param(0.2, Range(0.0, 1.0), doc="Largest log-magnification of training images.")
    width: int = param(256, Range(1, integer=True), doc="Width of f and g.")
    hidden: int = param(128, Range(1, integer=True), doc="Width between the aligners' dense layers.")
    n_channels: int | None = param(
        100, Range(1, integer=True), doc="Channels drawn from the maps; None: all.", optional=True
    )
    ridge: float = param(0.01, POSITIVE, doc="Added to the diagonal of every covariance.")
    smoothing: float = param(4.0, Range(0.0, 64.0), doc="Deviation of the Gaussian on the map, input pixels.")
    cache_mb: int = param(1024, Range(1, integer=True), doc="Memory for prepared images, MB.")

    def _fit(
        self, learn: ImageSet, tune: ImageSet, labelled: Labelled | None, run: Run
    ) -> Generator[Record, None, Scorer]:
        alone = len(learn) < 2
        if alone:
            line = "one image to learn from: nothing can be aligned with it; give more normals"
            warnings.warn(line, AnomemWarning, stacklevel=2)
        scorer = empty_scorer(run.params, run.rng, alone=alone).to(run.device).eval()
        if not alone:
            yield from align_images(scorer, learn, tune, run)
            yield from align_features(scorer, learn, run)
        scorer.requires_grad_(False)
        # Nothing is tuned on the tune normals any more: a covariance needs every image it can get.
        yield from learn_gaussians(scorer, [learn, tune], run)
        return scorer.requires_grad_(False)

    @classmethod
    def _build(cls, config: dict[str, Any]) -> Scorer:
        return FYDScorer(config)
