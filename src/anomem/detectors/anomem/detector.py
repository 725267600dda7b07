"""AnoMem: anomaly detection via multi-scale contrasted memory."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from anomem.cross_fitting import ClosedForm
from anomem.data.imageset import ImageSet
from anomem.detector import Detector, Supervision
from anomem.detectors.anomem.presets import MOVED, PRESETS, Fusion, StageOne, StageTwo
from anomem.detectors.anomem.scorer import MultiScaleScorer, each, empty_scorer
from anomem.detectors.anomem.seeding import (
    learn_prototype_pictures,
    learn_statistics,
    look_again,
    pool_again,
    remember_deviations,
    seed_memories,
)
from anomem.detectors.anomem.stage_one import train_stage_one
from anomem.detectors.anomem.stage_two import fit_second_stage
from anomem.fitting import Labelled, Run
from anomem.framing import SIZE_DOC
from anomem.nn.backbones import DEFAULT_BACKBONE, Backbone
from anomem.nn.families import stride_of
from anomem.nn.scorer import MapScorer, Scorer, TwoStageScorer
from anomem.params import FLAG, Each, Either, OneOf, Range, Text, group, param, parameters
from anomem.types import FloatArray, ImagesLike, Record, UInt8Image

POSITIVE = Range(0.0, low_open=True)
SHARE = Range(0.0, 1.0, low_open=True)
_RECALL_BATCH = 16


@parameters
class AnoMem(Detector, ClosedForm):
    """Multi-scale memory of normal prototypes, contrasted and recalled by Hopfield retrieval.

    Stage 1 puts a memory of prototypes behind several feature maps of a backbone: seeded from features and, with
    ``stage_one``, trained together with the backbone by the contrasted memory loss (Eq. 3 to 7). Stage 2 scores an
    image by its deviation from the memory's retrieval (Eq. 8, 9, 13); labelled defects refit this stage alone (Eq. 10
    to 12), in seconds.

    References
    ----------
    Jezequel, Vu, Beaudet and Histace, "Anomaly Detection via Multi-Scale Contrasted Memory", 2022.

    Examples
    --------
    >>> AnoMem(preset="object", beta=8.0)
    AnoMem(preset='object', beta=8.0)
    >>> from anomem.detectors.anomem import StageOne, Views
    >>> AnoMem(stage_one=StageOne(steps=500, views=Views(crop=0.5)))
    AnoMem(stage_one=StageOne(steps=500, views=Views(crop=0.5)))
    """

    name: ClassVar[str] = "anomem"
    supervision: ClassVar[Supervision] = "optional"
    localizes: ClassVar[bool] = True
    paper: ClassVar[str] = "Jezequel et al., Anomaly Detection via Multi-Scale Contrasted Memory, 2022"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = PRESETS
    moved: ClassVar[Mapping[str, str]] = MOVED
    test_params: ClassVar[dict[str, Any]] = {"size": 64, "memory_size": (16,), "memory_share": 1}

    size: int = param(None, Range(16, 4096, integer=True), doc=SIZE_DOC, preset=True)
    preset: str = param(
        "surface",
        OneOf(tuple(PRESETS)),
        doc="Named set of parameters: surface for industrial surfaces and parts, where a defect is local; "
        "object for images that are normal or anomalous as a whole; paper for the publication's literal form.",
    )
    backbone: str = param(DEFAULT_BACKBONE, Text("a timm model's name"), doc="Backbone, a timm model.", preset=True)
    weights: str | None = param(
        "default",
        Text("default, a file, a timm tag"),
        doc="Weights of the backbone; none: from scratch.",
        optional=True,
        preset=True,
    )
    width: float = param(1.0, Range(0.05, 4.0), doc="Factor on the channels of a residual backbone.")
    stages: tuple[int | str, ...] = param(
        None,
        Each(Either((Range(-99, 99, integer=True), Text("a layer, stride4 to stride32")))),
        doc="Feature maps that carry a memory, as timm's out_indices, or by name or stride; one may appear twice.",
        preset=True,
    )
    embedding: bool = param(
        None, FLAG, doc="Add the pooled embedding as one more scale, of a single position.", preset=True
    )
    neighbourhood: tuple[int, ...] = param(
        None,
        Each(OneOf((1, 3, 5, 7))),
        doc="Side of the average pooling around each position, per scale; one value for all.",
        preset=True,
    )
    memory: str = param(
        "hopfield",
        OneOf(("hopfield", "kmeans", "identity", "none")),
        doc="Recall by Hopfield retrieval, by the nearest k-means centre, or of the mean alone; identity: stage 1 "
        "without memory, Mem(z) = z, and the nearest k-means centre of its features afterwards.",
    )
    memory_size: tuple[int, ...] = param(
        None,
        Each(Range(1, 65536, integer=True)),
        doc="Maximum number of memory items, per scale; one value for all.",
        preset=True,
        when="memory=hopfield|kmeans|identity",
    )
    memory_share: int = param(
        None,
        Range(1, integer=True),
        doc="Minimum number of training vectors per memory item.",
        preset=True,
        when="memory=hopfield|kmeans|identity",
    )
    seeding: str = param(
        None,
        OneOf(("farthest", "kmeans", "random")),
        doc="Initial items: sampled features that cover all others, centres of k-means, or N(0, 0.02).",
        preset=True,
        when="memory=hopfield|kmeans|identity",
    )
    normalise: str = param(
        None,
        OneOf(("whiten", "unit", "layernorm", "raw", "unit-both", "layernorm-both")),
        doc="Space in which features and items are compared; both: items are normalised too, whenever recalled.",
        preset=True,
    )
    unit_norm: tuple[bool, ...] = param(
        (True,),
        Each(FLAG),
        doc="Scale features to unit norm before whitening, per scale; one value for all. False: their lengths count.",
        preset=True,
        when="normalise=whiten",
    )
    position_mean: bool = param(
        None,
        FLAG,
        doc="Subtract a mean per position when whitening, for aligned objects.",
        preset=True,
        when="normalise=whiten",
    )
    place_weight: tuple[float, ...] = param(
        (0.0,),
        Each(Range(0.0)),
        doc="Weight of a position's coordinates (0 to 1) beside its features in the association, per scale. 0: off.",
        preset=True,
        when="memory=hopfield|kmeans|identity",
    )
    max_grid: tuple[int, ...] = param(
        None,
        Each(Range(1, integer=True)),
        doc="Maximum positions per side, per scale; finer maps are averaged. 1: one average per image.",
        preset=True,
    )
    whitening: float = param(
        None,
        Range(0.0, 1.0),
        doc="Power of the standard deviations that principal axes are divided by when whitening.",
        preset=True,
        when="normalise=whiten",
    )
    shrinkage: float = param(
        None, Range(0.0, 1.0), doc="Shrinkage of the covariance when whitening.", preset=True, when="normalise=whiten"
    )
    beta: float | str = param(
        None,
        Either((POSITIVE, OneOf(("hard",)))),
        doc="Inverse temperature of the retrieval (Eq. 1); hard: the nearest item. Values are not comparable between "
        "normalisations.",
        preset=True,
        when="memory=hopfield",
    )
    retrieval_steps: int | None = param(
        1,
        Range(1, 100, integer=True),
        doc="Updates of Eq. 1; none: until convergence.",
        optional=True,
        preset=True,
        when="memory=hopfield",
    )
    association: str = param(
        "euclidean",
        OneOf(("euclidean", "dot", "scaled")),
        doc="Association softmax(beta (x.z - ||x||^2 / 2)), or Eq. 1's plain product; scaled: the product over the "
        "root of the number of channels, as in attention.",
        preset=True,
        when="memory=hopfield",
    )
    scale_weights: tuple[float, ...] = param(
        None,
        Each(Range(0.0)),
        doc="lambda of each scale in Eq. 13, early scales first; one value: all equal. 0: not in the score.",
        preset=True,
    )
    standardise: str = param(
        None,
        OneOf(("position", "scale", "none")),
        doc="Standardise deviations on tune normals before the fusion, per position or per scale.",
        preset=True,
    )
    reduction: str = param(
        None,
        OneOf(("l2", "max", "top")),
        doc="Image score from the map: Eq. 9's L2 norm per scale, maximum, or mean of the highest share.",
        preset=True,
    )
    top: float = param(0.005, SHARE, doc="Share of the map that reduction=top averages.", when="reduction=top")
    smoothing: float = param(
        4.0,
        Range(0.0, 64.0),
        doc="Standard deviation of the Gaussian blur of the map, input pixels.",
        preset=True,
    )
    fusion: Fusion = group(Fusion, doc="Fusion of scales: the map apart from the score, and trust in positions.")
    stage_one: StageOne | None = group(
        StageOne,
        doc="Training of stage 1 after seeding; none: seeding alone, on frozen features.",
        optional=True,
        off=("train_steps", 0),
        preset=True,
    )
    stage_two: StageTwo = group(StageTwo, doc="Use of labelled images.")

    def input_strides(self) -> tuple[int, int]:
        """Return the stride of the backbone's coarsest map, twice."""
        return (stride_of(self.backbone),) * 2

    def prototypes(self) -> list[tuple[str, UInt8Image]]:
        """Return pictures of the most used items per scale: (caption, (48, 48, 3) uint8)."""
        scorer = self.scorer_
        if not isinstance(scorer, MultiScaleScorer):
            return []
        rows = zip(scorer.prototype_usage.tolist(), scorer.prototype_pictures, strict=True)
        return [(f"scale {int(s) + 1}, {share:.1%} of positions", p.cpu().numpy()) for (s, share), p in rows]

    def recalled(self, images: ImagesLike, *, max_pixels: int | None = None) -> FloatArray:
        """Return how often images recall each memory item, to find images that look alike to the memory.

        Parameters
        ----------
        images
            As for :meth:`score`.
        max_pixels : int, optional
            Size limit per image.

        Returns
        -------
        ndarray, (n, N) float32
            Shares of the positions; over the N items of all scales they sum to the number of scales with a memory.
        """
        scorer, prepared = _own(self.scorer_), self._prepared(images, workers=1, skip_bad=False, max_pixels=max_pixels)
        rows: list[list[Tensor]] = [[] for _ in range(len(prepared))]
        for batch in prepared.batches(_RECALL_BATCH):
            with torch.inference_mode():
                shares = scorer.recalled(batch.images.to(next(scorer.buffers()).device)).cpu()
            for owner, row in zip(batch.owner.tolist(), shares, strict=True):
                rows[owner].append(row)
        return np.stack([torch.stack(tiles).mean(dim=0).numpy() for tiles in rows])

    def _fit(
        self, learn: ImageSet, tune: ImageSet, labelled: Labelled | None, run: Run[Self]
    ) -> Generator[Record, None, Scorer]:
        p = run.params
        scorer = self._empty(run, learn.preprocessing.hw)
        profile = yield from self._seed(scorer, learn, run)
        if p.stage_one is not None:
            yield from train_stage_one(scorer, learn, labelled, p.stage_one, run)
            profile = yield from self._after_training(scorer, learn, run, p.stage_one)
        scorer.eval().requires_grad_(False)
        yield from learn_statistics(
            scorer, tune, profile, precision=p.precision, batch_size=run.batch_size, rng=run.rng
        )
        if p.stage_two.learner == "distance" and p.stage_two.recipe == "paper":
            yield from remember_deviations(scorer, learn, precision=p.precision, batch_size=run.batch_size)
        yield from self._finish(scorer, learn, run)
        return scorer

    def _after_training(
        self, scorer: MultiScaleScorer, learn: ImageSet, run: Run[Self], stage: StageOne
    ) -> Generator[Record, None, list[Tensor]]:
        """Bring up to date what was learnt from features before training; return features of some images."""
        p = run.params
        if stage.items == "centres" or p.memory == "identity":
            return (yield from self._seed(scorer, learn, run, "kmeans"))
        options: dict[str, Any] = {"precision": p.precision, "batch_size": run.batch_size}
        profile = yield from look_again(scorer, learn, **options)
        if p.weights is None or stage.train_backbone != "none":
            yield from pool_again(scorer, learn, **options, rng=run.rng)
        return profile

    def _closed_form(self, params: Self) -> bool:
        return params.stage_one is None

    def _empty(self, run: Run[Self], hw: tuple[int, int], backbone: Backbone | None = None) -> MultiScaleScorer:
        return empty_scorer(run.params, hw, backbone).to(run.device).eval()

    def _memorise(self, scorer: MapScorer, learn: ImageSet, run: Run[Self]) -> Generator[Record, None, None]:
        yield from self._seed(scorer, learn, run)
        scorer.requires_grad_(False)

    def _seed(
        self, scorer: MapScorer, learn: ImageSet, run: Run[Self], seeding: str | None = None
    ) -> Generator[Record, None, list[Tensor]]:
        p, scorer = run.params, _own(scorer)
        return (
            yield from seed_memories(
                scorer,
                learn,
                sizes=each("memory_size", p.memory_size, len(scorer.memories()))
                if p.memory != "none"
                else [0] * len(scorer.scales),
                share=p.memory_share,
                seeding=seeding or p.seeding,
                shrinkage=p.shrinkage,
                whitening=p.whitening,
                rng=run.rng,
                precision=run.fit_precision,
                batch_size=run.batch_size,
            )
        )

    def _finish(self, scorer: MapScorer, learn: ImageSet, run: Run[Self]) -> Generator[Record, None, None]:
        options: dict[str, Any] = {"precision": run.fit_precision, "batch_size": run.batch_size}
        yield from learn_prototype_pictures(_own(scorer), learn, count=12, images=48, **options)

    def _refit(self, scorer: TwoStageScorer, labelled: Labelled, run: Run[Self]) -> Generator[Record, None, None]:
        yield from fit_second_stage(_own(scorer), labelled, run)

    @classmethod
    def _build(cls, config: dict[str, Any]) -> Scorer:
        return MultiScaleScorer(config)


def _own(scorer: Scorer) -> MultiScaleScorer:
    if not isinstance(scorer, MultiScaleScorer):
        raise TypeError("scorer: not one of AnoMem's; refit the detector that made it")
    return scorer
