"""k-means prototypes on frozen feature maps: the memory without contrast, whitening or retrieval."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from anomem.data.imageset import ImageSet
from anomem.detector import Supervision
from anomem.detectors.anomem.seeding import STATISTICS_LIMIT
from anomem.detectors.baselines._pooled import STAGE, Pretrained
from anomem.fitting import Labelled, Run
from anomem.nn.backbones import Backbone, load_backbone
from anomem.nn.deviation import MapFusion, ScaleMemory
from anomem.nn.families import own_stages
from anomem.nn.hopfield import HopfieldMemory
from anomem.nn.inference import feature_batches
from anomem.nn.sampling import VectorSample
from anomem.nn.scorer import Output, Scorer
from anomem.params import Range, param, parameters
from anomem.types import Record

SAMPLE_LIMIT = 32_768
STAGES = (2, 3)
"""Maps of the default backbone that carry centres: strides 8 and 16."""


class KMeansScorer(Scorer):
    """Distance of every position's unit feature to its nearest centre, over one or more maps.

    Parameters
    ----------
    config : dict
        ``backbone`` (name and stages), ``size``, and per scale ``channels``, ``hw``, ``n_items``.
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
                max_grid=28,
                beta=1.0,
                hard=True,
            )
            for scale in config["scales"]
        )
        self.fusion = MapFusion(
            [memory.hw for memory in self.memories()],
            [1.0] * len(self.scales),
            size=config["size"],
            reduction="max",
            top=1.0,
            smoothing=4.0,
            standardise="scale",
        )

    def memories(self) -> list[ScaleMemory]:
        """Return the memories, one per scale, early scales first."""
        return [scale for scale in self.scales if isinstance(scale, ScaleMemory)]

    def norms(self, features: list[Tensor]) -> list[Tensor]:
        """Return distances at every position of every scale, [(B, h_s, w_s)] float32."""
        with torch.autocast(features[0].device.type, enabled=False):
            return [memory.norms(f) for memory, f in zip(self.memories(), features, strict=True)]

    def forward(self, images: Tensor) -> Output:
        """Score prepared images (B, 3, S, S)."""
        return Output(*self.fusion(self.norms(self.backbone(images))))


@parameters
class KMeans(Pretrained):
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
        p = run.params
        stages = own_stages(p.backbone, p.stages, STAGES)
        backbone = load_backbone(p.backbone, stages, weights=p.weights, folded=True).eval().to(run.device)
        scales = [{"channels": m.channels, "hw": list(m.hw), "n_items": 1} for m in backbone.describe(p.size)]
        options = {"name": p.backbone, "stages": stages, "folded": True}
        scorer = KMeansScorer({"backbone": options, "size": p.size, "scales": scales}, backbone).eval().to(run.device)
        memories = scorer.memories()
        samples = [VectorSample(SAMPLE_LIMIT, run.rng) for _ in memories]
        done = 0
        for features in feature_batches(backbone, learn, precision=run.fit_precision, batch_size=run.batch_size):
            for scale, sample, f in zip(memories, samples, features, strict=True):
                sample.add(scale.embed(f))
            done += len(features[0])
            yield Record("features", done, max(done, len(learn)))
        for s, (scale, sample) in enumerate(zip(memories, samples, strict=True)):
            vectors = sample.result()[0]
            scale.memory = HopfieldMemory(min(p.n_prototypes, len(vectors)), vectors.shape[1], beta=1.0, hard=True)
            scale.memory.seed(vectors, run.rng)
            scale.memory.to(run.device)
            scales[s]["n_items"] = scale.memory.n_items
        norms: list[list[Tensor]] = []
        for features in feature_batches(backbone, tune, precision=p.precision, batch_size=run.batch_size):
            with torch.inference_mode():
                norms.append([n.cpu() for n in scorer.norms(features)])
            if sum(len(scale_norms[0]) for scale_norms in norms) >= STATISTICS_LIMIT:
                break
        tune_norms = [torch.cat(scale_norms) for scale_norms in zip(*norms, strict=True)]
        scorer.fusion.standardise_on(tune_norms, tune_norms)
        yield Record("tune", len(tune), len(tune))
        return scorer.requires_grad_(False)

    @classmethod
    def _build(cls, config: dict[str, Any]) -> Scorer:
        return KMeansScorer(config)
