"""Scorer of FYD: aligned features, then one Gaussian per position."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from anomem.detectors.fyd.aligned_backbone import Aligned, AlignedBackbone
from anomem.detectors.fyd.alignment import in_frame, invert, warp
from anomem.errors import ParameterError
from anomem.nn.backbones import Backbone, load_backbone
from anomem.nn.deviation import MapFusion, smooth
from anomem.nn.families import own_stages
from anomem.nn.gaussian import PositionGaussian, choose_channels, concatenate_maps, split_channels
from anomem.nn.precision import without_autocast
from anomem.nn.scorer import Output, Scorer, frame_config, input_hw

if TYPE_CHECKING:
    from anomem.detectors.fyd.detector import FYD, FeatureAlignment, ImageAlignment

STAGES = (1, 2, 3)
"""Maps of the default backbone, and of residual networks, that are aligned: strides 4, 8 and 16."""


class FYDScorer(Scorer):
    """Mahalanobis distance per position in the common frame, warped back to the images' frame.

    Parameters
    ----------
    config : dict
        ``backbone`` (keyword arguments of :class:`~anomem.nn.backbones.Backbone`), ``aligned`` (those of
        :class:`~anomem.detectors.fyd.aligned_backbone.AlignedBackbone`), ``size`` and ``input_hw``, ``hw``
        of the finest stage, ``counts`` (channels that are kept of each stage), ``smoothing``, ``edges`` (files of
        version 0.1 have none, and mean "even").
    backbone : Backbone or None
        Backbone with its weights; None: an empty one is built.
    """

    continuous: ClassVar[bool] = False  # A position counts where the common frame covers more than half of it.

    channels: Tensor

    def __init__(self, config: dict[str, Any], backbone: Backbone | None = None) -> None:
        super().__init__(config)
        self.hw = (int(config["hw"][0]), int(config["hw"][1]))
        found = Backbone(**config["backbone"]) if backbone is None else backbone
        self.backbone = AlignedBackbone(found, input_hw(config), **config["aligned"])
        # Positions among the channels of their own stage, one stage after the other.
        self.register_buffer("channels", torch.zeros(sum(config["counts"]), dtype=torch.int64))
        self.gaussian = PositionGaussian(sum(config["counts"]), self.hw)
        self.edges = str(config.get("edges", "even"))
        options: dict[str, Any] = {"reduction": "max", "top": 1.0, "standardise": "none"}
        self.fusion = MapFusion([self.hw], [1.0], input_hw=input_hw(config), smoothing=config["smoothing"], **options)

    @property
    def grid_hw(self) -> tuple[int, int] | None:
        """Positions of the Gaussians, height and width."""
        return self.hw

    def embed(self, found: Aligned) -> Tensor:
        """Return the drawn channels of all stages on the finest grid, (B, C, h, w) float32, in the common frame."""
        return concatenate_maps([m.float() for m in found.maps], self.channels.split(self.config["counts"]))

    def forward(self, images: Tensor) -> Output:
        """Score prepared images (B, 3, S, S).

        Returns
        -------
        Output
            The score is the maximum of the map. The map (B, g, g) is in the images' own frame, 0 where the common frame
            shows nothing of them; see :meth:`covered`.
        """
        found = self.backbone(images)
        with without_autocast(images.device):
            distances = self.gaussian(self.embed(found))
            if not self.backbone.aligns:
                return Output(*self.fusion([distances]))
            maps = self._warped_back(distances, found)
            return Output(maps.amax(dim=(1, 2)), maps)

    def covered(self, images: Tensor) -> Tensor:
        """Return a mask, (B, g, g) bool, of the map's positions that lie within the common frame."""
        return self._cover(self.backbone(images))[:, 0] > 0.5

    def _cover(self, found: Aligned) -> Tensor:
        """Return the share of each map position that the common frame shows, (B, 1, g, g)."""
        return self._back(found.seen(self.hw), found)

    def _back(self, values: Tensor, found: Aligned) -> Tensor:
        """Warp values of the common frame (B, h, w) to the images' own, 0 outside of it: (B, 1, g, g)."""
        back, hw = invert(found.theta()), self.fusion.map_hw
        return warp(values[:, None], back, padding="border", hw=hw) * in_frame(back, hw)[:, None]

    def _warped_back(self, distances: Tensor, found: Aligned) -> Tensor:
        """Warp distances to the images' frame and smooth them; padded positions count as 0, or with even edges not."""
        cover, kernel = self._cover(found), self.fusion.kernel
        there = smooth(self._back(distances * found.seen(self.hw), found), kernel)
        if self.edges == "even":
            there = there / smooth(cover, kernel).clamp_min(1e-6)
        return torch.where(cover > 0.5, there, torch.zeros_like(there))[:, 0]


def empty_scorer(p: FYD, hw: tuple[int, int], rng: torch.Generator, *, alone: bool) -> FYDScorer:
    """Return a scorer with a pretrained backbone, identity aligners, and its channels drawn.

    Parameters
    ----------
    p : FYD
        Resolved hyperparameters.
    hw : (int, int)
        Height and width of the inputs, pixels.
    rng : torch.Generator
        Generator of the channels.
    alone : bool
        True for a single image, which cannot be aligned with another.
    """
    training = None if alone else p.training
    images, features = (None, None) if alone else (p.image_aligner, p.feature_aligner)
    # With its pretrained statistics a normalisation is one affine map; folded, it costs nothing.
    options: dict[str, Any] = {
        "name": p.backbone,
        "stages": own_stages(p.backbone, p.stages, STAGES),
        "folded": training is None or training.batch_norm == "pretrained" or training.train_backbone == "none",
    }
    backbone = load_backbone(**options, weights=p.weights).eval()
    maps = backbone.describe(hw)
    counts = [m.channels for m in maps]
    if p.n_channels is not None and p.n_channels > sum(counts):
        raise ParameterError(
            f"n_channels={p.n_channels} is not allowed: the stages have {sum(counts)} channels; None takes all"
        )
    channels = split_channels(choose_channels(sum(counts), p.n_channels, rng), counts)
    config = {
        "backbone": options,
        "aligned": {
            "image": images and _image_options(images, p),
            "feature": features and training and _feature_options(features, p),
            "padding": p.padding,
            "common_frame": p.common_frame,
        },
        **frame_config(hw, p.size),
        "hw": list(max(maps, key=lambda m: m.hw[0] * m.hw[1]).hw),
        "counts": [len(c) for c in channels],
        "smoothing": p.smoothing,
        "edges": p.edges,
    }
    scorer = FYDScorer(config, backbone)
    scorer.channels.copy_(torch.cat(channels))
    return scorer


def _image_options(images: ImageAlignment, p: FYD) -> dict[str, Any]:
    return {
        "max_angle": math.radians(images.max_angle),
        "vector": images.angle == "direction",
        "hidden": p.hidden,
    }


def _feature_options(features: FeatureAlignment, p: FYD) -> dict[str, Any]:
    options: dict[str, Any] = {"centred": p.centred, "hidden": p.hidden}
    if not features.bounded:
        options["bounds"] = None
    if features.behind is not None:
        absent = [stage for stage in features.behind if stage not in p.stages]
        if absent:
            raise ParameterError(f"feature_aligner.behind: {absent[0]!r} is none of the stages {p.stages}; name some")
        options["behind"] = [p.stages.index(stage) for stage in features.behind]
    return options
