"""PaDiM: one Gaussian per position of frozen feature maps."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from anomem.cross_fitting import ClosedForm
from anomem.data.imageset import ImageSet
from anomem.detector import Supervision
from anomem.detectors.baselines._pooled import STAGE, Pretrained, own
from anomem.errors import ParameterError
from anomem.fitting import Labelled, Run
from anomem.nn.backbones import Backbone, load_backbone
from anomem.nn.deviation import MapFusion
from anomem.nn.families import own_stages
from anomem.nn.gaussian import GaussianMoments, PositionGaussian, choose_channels, concatenate_maps, split_channels
from anomem.nn.inference import feature_batches
from anomem.nn.precision import without_autocast
from anomem.nn.scorer import Deviation, MapScorer, Output, Scorer, frame_config, input_hw
from anomem.params import Range, param, parameters
from anomem.types import Record

STAGES = (1, 2, 3)
"""Maps of the default backbone that are stacked: strides 4, 8 and 16."""


class PaDiMScorer(MapScorer):
    """Mahalanobis distance of every position's features to the normal ones at that position.

    Parameters
    ----------
    config : dict
        ``backbone`` (keyword arguments of :class:`~anomem.nn.backbones.Backbone`), ``size`` and
        ``input_hw``, ``hw`` of the finest stage, ``counts`` (channels kept per stage), ``smoothing``.
    backbone : Backbone or None
        Backbone with its weights; None: an empty one is built.
    """

    channels: Tensor

    def __init__(self, config: dict[str, Any], backbone: Backbone | None = None) -> None:
        super().__init__(config)
        hw = (int(config["hw"][0]), int(config["hw"][1]))
        self.backbone = backbone or Backbone(**config["backbone"])
        # Positions among the channels of their own stage, one stage after the other.
        self.register_buffer("channels", torch.zeros(sum(config["counts"]), dtype=torch.int64))
        self.gaussian = PositionGaussian(sum(config["counts"]), hw)
        self.fusion = MapFusion(
            [hw],
            [1.0],
            input_hw=input_hw(config),
            reduction="max",
            top=1.0,
            smoothing=config["smoothing"],
            standardise="none",
        )

    @property
    def grid_hw(self) -> tuple[int, int] | None:
        """Positions of the finest map, height and width."""
        return self.fusion.grid_hw

    def embed(self, features: Sequence[Tensor]) -> Tensor:
        """Return one map of the drawn channels on the finest grid, (B, C, h, w) float32, from the backbone's maps."""
        return concatenate_maps([f.float() for f in features], self.channels.split(self.config["counts"]))

    def score_features(self, features: Sequence[Tensor]) -> Output:
        """Score from the backbone's maps."""
        return self.fuse(self.deviation_of(list(features)).norms)

    def deviation_of(self, maps: list[Tensor]) -> Deviation:
        """Return the Mahalanobis distance at every position."""
        with without_autocast(maps[0].device):
            return Deviation([self.gaussian(self.embed(maps))])

    def fuse(self, norms: Sequence[Tensor]) -> Output:
        """Return the maximum of the smoothed distances, and these."""
        with without_autocast(norms[0].device):
            return Output(*self.fusion(norms))

    def forward(self, images: Tensor) -> Output:
        """Score prepared images (B, 3, S, S)."""
        return self.score_features(self.backbone(images))


@parameters
class PaDiM(Pretrained, ClosedForm):
    """PaDiM: one Gaussian per position of frozen feature maps.

    Maps of several stages are brought to the finest grid and stacked; of their channels some are drawn by seed. At each
    position the mean and covariance of normal images are estimated (Eq. 1), in one pass and in memory that does not
    depend on their number. The map is the Mahalanobis distance (Eq. 2), smoothed; the score is its maximum.

    Notes
    -----
    Features are extracted in the precision used for scoring, whatever ``fit_precision`` is: rounding moves
    features by a multiple of the root of the ridge, and much the same way on every image.

    References
    ----------
    Defard, Setkov, Loesch, Audigier, "PaDiM: a patch distribution modeling framework for anomaly detection and
    localization", 2021. Also the frozen baseline of Zheng et al., "Focus your distribution", 2022, Table 4.
    """

    name: ClassVar[str] = "padim"
    supervision: ClassVar[Supervision] = "none"
    localizes: ClassVar[bool] = True
    paper: ClassVar[str] = "Defard et al., PaDiM: a patch distribution modeling framework, 2021"
    test_params: ClassVar[dict[str, Any]] = {"size": 64, "n_channels": 40}

    stages: tuple[int | str, ...] = param(
        STAGES, STAGE, doc="Feature maps that are stacked, as timm's out_indices, or by name or stride."
    )
    n_channels: int | None = param(
        100,
        Range(1, integer=True),
        doc="Number of channels drawn from the stacked maps; none: all. Memory and file grow with its square.",
        optional=True,
    )
    ridge: float = param(0.01, Range(0.0, low_open=True), doc="Ridge added to the diagonal of every covariance.")
    smoothing: float = param(
        4.0, Range(0.0, 64.0), doc="Standard deviation of the Gaussian blur of the map, input pixels."
    )

    def _fit(
        self, learn: ImageSet, tune: ImageSet, labelled: Labelled | None, run: Run[Self]
    ) -> Generator[Record, None, Scorer]:
        scorer = self._empty(run, learn.preprocessing.hw)
        # Nothing is tuned here, so tune normals join the training: a covariance gains from every image.
        yield from _learn(scorer, (learn, tune), run)
        return scorer

    def _empty(self, run: Run[Self], hw: tuple[int, int], backbone: Backbone | None = None) -> PaDiMScorer:
        return _empty_scorer(_load(run.params).to(run.device) if backbone is None else backbone, hw, run)

    def _memorise(self, scorer: MapScorer, learn: ImageSet, run: Run[Self]) -> Generator[Record, None, None]:
        yield from _learn(scorer, (learn,), run)

    @classmethod
    def _build(cls, config: dict[str, Any]) -> Scorer:
        return PaDiMScorer(config)


def _load(p: PaDiM) -> Backbone:
    stages = own_stages(p.backbone, p.stages, STAGES)
    return load_backbone(p.backbone, stages, weights=p.weights, folded=True).eval()


def _learn(scorer: MapScorer, parts: Sequence[ImageSet], run: Run[PaDiM]) -> Generator[Record, None, None]:
    """Estimate the Gaussians from several sets of normals."""
    p, scorer = run.params, own(scorer, PaDiMScorer)
    moments = GaussianMoments(scorer.gaussian.channels, scorer.gaussian.hw)
    done, total = 0, sum(map(len, parts))
    for images in parts:
        # Precision of scoring: with a covariance narrower than the rounding error, that
        # error, which is much the same on every image, would look like an anomaly.
        for features in feature_batches(scorer.backbone, images, precision=p.precision, batch_size=run.batch_size):
            moments.update(scorer.embed(features))
            done += len(features[0])
            yield Record("features", done, max(done, total))
    yield Record("covariances", 1, 1)
    moments.fill(scorer.gaussian, p.ridge)
    scorer.requires_grad_(False)


def _empty_scorer(backbone: Backbone, hw: tuple[int, int], run: Run[PaDiM]) -> PaDiMScorer:
    """Return a scorer with its channels drawn, without Gaussians."""
    p, maps = run.params, backbone.describe(hw)
    n_stages = [m.channels for m in maps]
    if p.n_channels is not None and p.n_channels > sum(n_stages):
        raise ParameterError(
            f"n_channels={p.n_channels} is not allowed: the stages have {sum(n_stages)} channels; None takes all"
        )
    channels = split_channels(choose_channels(sum(n_stages), p.n_channels, run.rng), n_stages)
    config = {
        "backbone": {"name": p.backbone, "stages": backbone.stages, "folded": True},
        **frame_config(hw, p.size),
        "hw": list(max(maps, key=lambda m: m.hw[0] * m.hw[1]).hw),
        "counts": [len(c) for c in channels],
        "smoothing": p.smoothing,
    }
    scorer = PaDiMScorer(config, backbone)
    scorer.channels.copy_(torch.cat(channels))
    return scorer.eval().to(run.device)
