"""k-means prototypes on frozen feature maps: the memory without contrast, whitening or retrieval."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from anomem.cross_fitting import ClosedForm
from anomem.data.imageset import ImageSet
from anomem.detector import Supervision
from anomem.detectors.anomem.seeding import STATISTICS_LIMIT
from anomem.detectors.baselines._pooled import STAGE, Pretrained, own
from anomem.fitting import Labelled, Run
from anomem.nn.backbones import Backbone, FeatureInfo, load_backbone
from anomem.nn.deviation import MapFusion, ScaleMemory, fitted_limit
from anomem.nn.families import own_stages
from anomem.nn.hopfield import HopfieldMemory
from anomem.nn.inference import feature_batches
from anomem.nn.precision import without_autocast
from anomem.nn.sampling import VectorSample
from anomem.nn.scorer import Deviation, MapScorer, Output, Scorer, frame_config, input_hw
from anomem.params import Range, param, parameters
from anomem.types import Record

SAMPLE_LIMIT = 32_768
STAGES = (2, 3)
"""Maps of the default backbone that carry centres: strides 8 and 16."""
MAX_GRID = 28
"""Maximum positions per side of a square input's maps; finer maps are averaged."""


class KMeansScorer(MapScorer):
    """Distance of every position's unit feature to its nearest centre, over one or more maps.

    Parameters
    ----------
    config : dict
        ``backbone`` (name and stages), ``size`` and ``input_hw``, and per scale ``channels``, ``hw``, ``n_items`` and,
        for rectangular inputs, ``max_grid``.
    """

    def __init__(self, config: dict[str, Any], backbone: Backbone | None = None) -> None:
        super().__init__(config)
        self.backbone = backbone or Backbone(**config["backbone"])
        self.scales = nn.ModuleList(
            ScaleMemory(
                scale["channels"],
                tuple(scale["hw"]),
                n_items=scale["n_items"],
                neighbourhood=3,
                normalise="unit",
                position_mean=False,
                max_grid=scale.get("max_grid", MAX_GRID),
                beta=1.0,
                hard=True,
            )
            for scale in config["scales"]
        )
        self.fusion = MapFusion(
            [memory.hw for memory in self.memories()],
            [1.0] * len(self.scales),
            input_hw=input_hw(config),
            reduction="max",
            top=1.0,
            smoothing=4.0,
            standardise="scale",
        )

    @property
    def grid_hw(self) -> tuple[int, int] | None:
        """Positions of the finest map, height and width."""
        return self.fusion.grid_hw

    def memories(self) -> list[ScaleMemory]:
        """Return the memories, one per scale, early scales first."""
        return [scale for scale in self.scales if isinstance(scale, ScaleMemory)]

    def norms(self, features: list[Tensor]) -> list[Tensor]:
        """Return distances at every position of every scale, [(B, h_s, w_s)] float32."""
        with without_autocast(features[0].device):
            return [memory.norms(f) for memory, f in zip(self.memories(), features, strict=True)]

    def forward(self, images: Tensor) -> Output:
        """Score prepared images (B, 3, S, S)."""
        return self.fuse(self.norms(self.backbone(images)))

    def deviation_of(self, maps: list[Tensor]) -> Deviation:
        """Return the distances at every position."""
        return Deviation(self.norms(maps))

    def fuse(self, norms: Sequence[Tensor]) -> Output:
        """Return the maximum of the fused map, and this."""
        return Output(*self.fusion(norms))

    def standardise_on(self, norms: Sequence[Tensor]) -> None:
        """Learn mean and deviation of the distances per scale."""
        self.fusion.standardise_on(norms, norms)


@parameters
class KMeans(Pretrained, ClosedForm):
    """k-means prototypes on frozen feature maps.

    Every position's unit feature is compared with the nearest of k centres of its scale; the score is the maximum of
    the map fused over scales.

    References
    ----------
    The second row of Table 3 in Jezequel et al., 2022, without its learnt encoder.
    """

    name: ClassVar[str] = "kmeans"
    supervision: ClassVar[Supervision] = "none"
    localizes: ClassVar[bool] = True
    paper: ClassVar[str] = "Baseline of Jezequel et al., 2022, Table 3: k-means centroids as prototypes"
    test_params: ClassVar[dict[str, Any]] = {"size": 64, "n_prototypes": 32}

    stages: tuple[int | str, ...] = param(
        STAGES, STAGE, doc="Feature maps of the backbone, as timm's out_indices, or by name or stride."
    )
    n_prototypes: int = param(256, Range(1, 65536, integer=True), doc="Number of k-means centres per scale.")

    def _fit(
        self, learn: ImageSet, tune: ImageSet, labelled: Labelled | None, run: Run[Self]
    ) -> Generator[Record, None, Scorer]:
        p, scorer = run.params, self._empty(run, learn.preprocessing.hw)
        yield from self._memorise(scorer, learn, run)
        norms: list[list[Tensor]] = []
        for features in feature_batches(scorer.backbone, tune, precision=p.precision, batch_size=run.batch_size):
            with torch.inference_mode():
                norms.append([n.cpu() for n in scorer.norms(features)])
            if sum(len(scale_norms[0]) for scale_norms in norms) >= STATISTICS_LIMIT:
                break
        scorer.standardise_on([torch.cat(scale_norms) for scale_norms in zip(*norms, strict=True)])
        yield Record("tune", len(tune), len(tune))
        return scorer.requires_grad_(False)

    def _empty(self, run: Run[Self], hw: tuple[int, int], backbone: Backbone | None = None) -> KMeansScorer:
        p = run.params
        stages = own_stages(p.backbone, p.stages, STAGES)
        if backbone is None:
            backbone = load_backbone(p.backbone, stages, weights=p.weights, folded=True).eval().to(run.device)
        scales = [_scale(found, hw, p.size) for found in backbone.describe(hw)]
        options = {"name": p.backbone, "stages": stages, "folded": True}
        config = {"backbone": options, **frame_config(hw, p.size), "scales": scales}
        return KMeansScorer(config, backbone).eval().to(run.device)

    def _memorise(self, scorer: MapScorer, learn: ImageSet, run: Run[Self]) -> Generator[Record, None, None]:
        p, scorer = run.params, own(scorer, KMeansScorer)
        memories = scorer.memories()
        samples = [VectorSample(SAMPLE_LIMIT, run.rng) for _ in memories]
        done = 0
        for features in feature_batches(scorer.backbone, learn, precision=run.fit_precision, batch_size=run.batch_size):
            for scale, sample, f in zip(memories, samples, features, strict=True):
                sample.add(scale.embed(f))
            done += len(features[0])
            yield Record("features", done, max(done, len(learn)))
        for s, (scale, sample) in enumerate(zip(memories, samples, strict=True)):
            vectors = sample.result()[0]
            scale.memory = HopfieldMemory(min(p.n_prototypes, len(vectors)), vectors.shape[1], beta=1.0, hard=True)
            scale.memory.seed(vectors, run.rng)
            scale.memory.to(run.device)
            scorer.config["scales"][s]["n_items"] = scale.memory.n_items
        scorer.requires_grad_(False)

    @classmethod
    def _build(cls, config: dict[str, Any]) -> Scorer:
        return KMeansScorer(config)


def _scale(found: FeatureInfo, hw: tuple[int, int], size: int) -> dict[str, Any]:
    limit = fitted_limit(found.hw, hw, size, MAX_GRID)
    facts = {"channels": found.channels, "hw": list(found.hw), "n_items": 1}
    return facts if limit == MAX_GRID else {**facts, "max_grid": limit}
