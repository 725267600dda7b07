"""AnoMem: anomaly detection via multi-scale contrasted memory."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from anomem.data.imageset import ImageSet
from anomem.detector import Detector, Supervision
from anomem.detectors.anomem.heads import BLOCKS
from anomem.detectors.anomem.presets import PRESETS
from anomem.detectors.anomem.scorer import MultiScaleScorer, each, empty_scorer
from anomem.detectors.anomem.seeding import (
    learn_prototype_pictures,
    learn_statistics,
    look_again,
    pool_again,
    seed_memories,
)
from anomem.detectors.anomem.stage_one import train_stage_one
from anomem.detectors.anomem.stage_two import fit_second_stage
from anomem.fitting import Labelled, Run
from anomem.nn.backbones import DEFAULT_BACKBONE
from anomem.nn.scorer import Scorer, TwoStageScorer
from anomem.params import FLAG, Each, Either, OneOf, Range, Text, param
from anomem.types import Record, UInt8Image

POSITIVE = Range(0.0, low_open=True)
SHARE = Range(0.0, 1.0, low_open=True)


@dataclass(kw_only=True, repr=False, eq=False)
class AnoMem(Detector):
    """Multi-scale memory of normal prototypes, contrasted and recalled by Hopfield retrieval.

    Stage 1 puts a memory of prototypes behind several feature maps of a backbone: seeded from features and, where
    ``train_steps`` asks for it, trained together with the backbone by the contrasted memory loss (Eq. 3 to 7). Stage 2
    scores an image by its deviation from what the memory recalls (Eq. 8, 9, 13); labelled defects refit this stage
    alone (Eq. 10 to 12), in seconds.

    Parameters
    ----------
    preset : {"surface", "object"}
        "surface" (default) for industrial surfaces and parts, where a defect is a place on the image. "object" for
        images whose whole content is normal or not. Parameters marked (preset) default to what the preset says.
    backbone, weights
        A timm model and its weights; see :func:`~anomem.nn.backbones.load_backbone`. None: from scratch.
    width : float, default 1.0
        Multiplies the channels of a residual backbone.
    stages : tuple of int (preset)
        Which of the backbone's feature maps carry a memory, as timm's ``out_indices``; a stage may stand twice.
    embedding : bool (preset)
        Whether the pooled embedding is one more scale, of a single position.
    neighbourhood : tuple of int (preset)
        Side of the average pooling that gives each position its surroundings, for each scale; one value: for all.
    memory : {"hopfield", "kmeans", "none"}
        Recall by Hopfield retrieval; by the nearest k-means centre; or the mean alone (the ablations of Table 3).
    memory_size : tuple of int (preset)
        Items of each scale's memory at most; one value: for all.
    memory_share : int (preset)
        At most one item for so many feature vectors.
    seeding : {"farthest", "kmeans", "random"} (preset)
        First items: sampled features that cover all others, centres of k-means on them, or N(0, 0.02).
    normalise : {"whiten", "unit", "layernorm", "raw"} (preset)
        Space in which features and items are compared.
    position_mean : bool (preset)
        Whether whitening subtracts a mean of each position, for aligned objects.
    max_grid : tuple of int (preset)
        Feature maps of more positions a side are averaged down to at most as many; 1: one average for the image.
    whitening : float (preset)
        1: principal axes are divided by their standard deviations; less: by that power of them.
    shrinkage : float (preset)
        Of the covariance when whitening.
    beta : float or "hard" (preset)
        Inverse temperature of the retrieval (Eq. 1); hard: the nearest item. Not comparable between normalisations.
    retrieval_steps : int or None, default 1
        Updates of Eq. 1; None: until convergence.
    association : {"euclidean", "dot"}
        softmax(beta (x.z - ||x||^2 / 2)), or Eq. 1's plain product.
    scale_weights : tuple of float (preset)
        lambda of each scale in Eq. 13, early scales first; one value: all equal.
    standardise : {"position", "scale", "none"} (preset)
        What tune normals say about deviations is taken out before the fusion; "none" is the literal paper.
    reduction : {"l2", "max", "top"} (preset)
        From map to image score: Eq. 9's L2 norm of each scale, maximum, or mean of the highest share of the map.
    top : float, default 0.005
        That share.
    smoothing : float, default 4.0
        Gaussian on the map, pixels of the input.
    train_steps : int, default 0
        Optimiser steps of stage 1; 0: seeding alone.
    train_backbone : {"none", "last", "all"}
        What stage 1 trains beside the memories. A backbone from scratch is always trained whole.
    train_batch : int, default 64
        B: images a step (two views each).
    lr, weight_decay : float
        Of SGD with Nesterov momentum and one cosine.
    contrast : {"simclr", "barlow"}
        Base of the contrasted memory loss.
    temperature : float, default 0.1
        tau of Eq. 5.
    variance : {"batch", "sample"}
        Reading of Eq. 6: deviation over the batch a dimension (default), or within each retrieved vector, as printed.
    variance_hinge : bool, default False
        max(0, 1 - deviation) instead of -deviation.
    variance_weight : float, default 0.05
        lambda_V.
    sampling_ratio : tuple of float, default (0.3, 1.0)
        r of each scale, from the last backwards; earlier scales than given take the first.
    projection_dim : int or None, default None
        Width of a projection head a scale; the paper has none.
    geometry : {"auto", "shared", "independent"}
        Whether both views share crop and flip. Eq. 7 pairs positions, which independent crops put on different content:
        auto is shared on pretrained backbones and, literally, independent from scratch.
    crop, flip, brightness, contrast_jitter, saturation, hue, grey, blur, noise : float
        Strengths of the views; hue and grey are off in the literal recipe.
    label_weight : float or None, default None
        w, the labels' share of the score; None: as much as their number and a cross-validated gain justify.
    label_cap : float (preset)
        The most that labels of fewer than two known types may weigh.
    heads : tuple of str (preset)
        Summaries of the deviations, each with one kernel ridge head; see :data:`~anomem.detectors.anomem.heads.BLOCKS`.
    label_head : {"kernel", "distance"}
        What labels teach the score: kernel ridge heads (default), or, literally, g of Eq. 10 to 13, which otherwise
        gives the evidence map alone; it is not cross-validated, and w is 1 unless ``label_weight`` says otherwise.
    margin : float, default 2.0
        M of Eq. 11.
    cache_mb : int, default 1024
        Memory for cached images, features and views of stage 1, megabytes.

    References
    ----------
    Jezequel, Vu, Beaudet and Histace, "Anomaly Detection via Multi-Scale Contrasted Memory", 2022.

    Examples
    --------
    >>> AnoMem(preset="object", beta=8.0)
    AnoMem(preset='object', beta=8.0)
    """

    name: ClassVar[str] = "anomem"
    supervision: ClassVar[Supervision] = "optional"
    localizes: ClassVar[bool] = True
    paper: ClassVar[str] = "Jezequel et al., Anomaly Detection via Multi-Scale Contrasted Memory, 2022"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = PRESETS
    test_params: ClassVar[dict[str, Any]] = {"size": 64, "memory_size": (16,), "memory_share": 1}

    size: int | None = param(None, Range(16, 4096, integer=True), doc="Input side, pixels.", preset=True)
    preset: str = param("surface", OneOf(tuple(PRESETS)), doc="Named set of parameters.")
    backbone: str = param(DEFAULT_BACKBONE, Text("a timm model's name"), doc="A timm model.")
    weights: str | None = param("default", Text("default, a file, a timm tag"), doc="Its weights.", optional=True)
    width: float = param(1.0, Range(0.05, 4.0), doc="Multiplies a residual backbone's channels.")
    stages: tuple[int | str, ...] | None = param(
        None,
        Each(Either((Range(-8, 8, integer=True), Text("a layer's name")))),
        doc="Feature maps that carry a memory.",
        preset=True,
    )
    embedding: bool | None = param(None, FLAG, doc="The pooled embedding is one more scale.", preset=True)
    neighbourhood: tuple[int, ...] | None = param(
        None, Each(OneOf((1, 3, 5, 7))), doc="Average pooling around each position.", preset=True
    )
    memory: str = param("hopfield", OneOf(("hopfield", "kmeans", "none")), doc="How normality is recalled.")
    memory_size: tuple[int, ...] | None = param(
        None, Each(Range(1, 65536, integer=True)), doc="Items of each scale at most.", preset=True
    )
    memory_share: int | None = param(None, Range(1, integer=True), doc="Feature vectors an item at least.", preset=True)
    seeding: str | None = param(None, OneOf(("farthest", "kmeans", "random")), doc="First items.", preset=True)
    normalise: str | None = param(
        None, OneOf(("whiten", "unit", "layernorm", "raw")), doc="Space of the association.", preset=True
    )
    position_mean: bool | None = param(None, FLAG, doc="Whiten around a mean of each position.", preset=True)
    max_grid: tuple[int, ...] | None = param(
        None, Each(Range(1, integer=True)), doc="Positions a side at most; finer maps are averaged.", preset=True
    )
    whitening: float | None = param(
        None, Range(0.0, 1.0), doc="1: divide by standard deviations; less: by a power of them.", preset=True
    )
    shrinkage: float | None = param(None, Range(0.0, 1.0), doc="Of the covariance when whitening.", preset=True)
    beta: float | str | None = param(
        None, Either((POSITIVE, OneOf(("hard",)))), doc="Inverse temperature of the retrieval.", preset=True
    )
    retrieval_steps: int | None = param(
        1, Range(1, 100, integer=True), doc="Updates of Eq. 1; none: until convergence.", optional=True
    )
    association: str = param("euclidean", OneOf(("euclidean", "dot")), doc="How near an item is.")
    scale_weights: tuple[float, ...] | None = param(None, Each(POSITIVE), doc="lambda of Eq. 13.", preset=True)
    standardise: str | None = param(
        None, OneOf(("position", "scale", "none")), doc="What tune normals take out.", preset=True
    )
    reduction: str | None = param(None, OneOf(("l2", "max", "top")), doc="From map to image score.", preset=True)
    top: float = param(0.005, SHARE, doc="Share of the map that counts when reduction is top.")
    smoothing: float = param(4.0, Range(0.0, 64.0), doc="Gaussian on the map, pixels of the input.")
    train_steps: int = param(0, Range(0, integer=True), doc="Optimiser steps of stage 1.")
    train_backbone: str = param("none", OneOf(("none", "last", "all")), doc="What stage 1 trains beside memories.")
    train_batch: int = param(64, Range(2, integer=True), doc="Images a step.")
    lr: float = param(0.03, POSITIVE, doc="Peak learning rate of stage 1.")
    weight_decay: float = param(5e-4, Range(0.0), doc="Weight decay of stage 1.")
    contrast: str = param("simclr", OneOf(("simclr", "barlow")), doc="Base of the contrasted memory loss.")
    temperature: float = param(0.1, POSITIVE, doc="tau of Eq. 5.")
    variance: str = param("batch", OneOf(("batch", "sample")), doc="Reading of Eq. 6.")
    variance_hinge: bool = param(False, FLAG, doc="Hinge on the deviation in Eq. 6.")
    variance_weight: float = param(0.05, Range(0.0), doc="lambda_V.")
    sampling_ratio: tuple[float, ...] = param((0.3, 1.0), Each(SHARE), doc="r of each scale.")
    projection_dim: int | None = param(None, Range(1, integer=True), doc="Projection head.", optional=True)
    geometry: str = param("auto", OneOf(("auto", "shared", "independent")), doc="Crop and flip of the views.")
    crop: float = param(0.2, SHARE, doc="Smallest share of the area that a crop keeps.")
    flip: float = param(0.5, Range(0.0, 1.0), doc="Chance of a horizontal flip.")
    brightness: float = param(0.4, Range(0.0, 1.0), doc="Strength of brightness jitter.")
    contrast_jitter: float = param(0.4, Range(0.0, 1.0), doc="Strength of contrast jitter.")
    saturation: float = param(0.4, Range(0.0, 1.0), doc="Strength of saturation jitter.")
    hue: float = param(0.0, Range(0.0, 0.5), doc="Strength of hue jitter.")
    grey: float = param(0.0, Range(0.0, 1.0), doc="Chance of grey.")
    blur: float = param(0.5, Range(0.0, 1.0), doc="Chance of a Gaussian blur.")
    noise: float = param(0.02, Range(0.0, 1.0), doc="Standard deviation of noise.")
    label_weight: float | None = param(None, Range(0.0, 1.0), doc="Share of labels in the score.", optional=True)
    label_cap: float | None = param(None, Range(0.0, 1.0), doc="Most that labels of one type may weigh.", preset=True)
    heads: tuple[str, ...] | None = param(
        None, Each(OneOf(tuple(BLOCKS))), doc="Summaries of the deviations that labels are learnt on.", preset=True
    )
    label_head: str = param(
        "kernel", OneOf(("kernel", "distance")), doc="Kernel ridge heads, or the paper's distance g for the score too."
    )
    margin: float = param(2.0, Range(1.0), doc="M of Eq. 11.")
    cache_mb: int = param(1024, Range(1, integer=True), doc="Memory for caches of stage 1, MB.")

    def prototypes(self) -> list[tuple[str, UInt8Image]]:
        """Return pictures of what the most used items of each scale stand for: (caption, (48, 48, 3) uint8)."""
        scorer = self.scorer_
        if not isinstance(scorer, MultiScaleScorer):
            return []
        rows = zip(scorer.prototype_usage.tolist(), scorer.prototype_pictures, strict=True)
        return [(f"scale {int(s) + 1}, {share:.1%} of positions", p.cpu().numpy()) for (s, share), p in rows]

    def _fit(
        self, learn: ImageSet, tune: ImageSet, labelled: Labelled | None, run: Run
    ) -> Generator[Record, None, Scorer]:
        p = run.params
        scorer = empty_scorer(p).to(run.device).eval()
        profile = yield from seed_memories(
            scorer,
            learn,
            sizes=each(p.memory_size, len(scorer.memories())) if p.memory != "none" else [0] * len(scorer.scales),
            share=p.memory_share,
            seeding=p.seeding,
            shrinkage=p.shrinkage,
            whitening=p.whitening,
            rng=run.rng,
            precision=run.fit_precision,
            batch_size=run.batch_size,
        )
        if p.train_steps:
            yield from train_stage_one(scorer, learn, labelled, run)
            options = {"precision": p.precision, "batch_size": run.batch_size}
            profile = yield from look_again(scorer, learn, **options)
            if p.weights is None or p.train_backbone != "none":
                yield from pool_again(scorer, learn, **options, rng=run.rng)
        scorer.eval().requires_grad_(False)
        yield from learn_statistics(
            scorer, tune, profile, precision=p.precision, batch_size=run.batch_size, rng=run.rng
        )
        yield from learn_prototype_pictures(
            scorer, learn, count=12, images=48, precision=run.fit_precision, batch_size=run.batch_size
        )
        return scorer

    def _refit(self, scorer: TwoStageScorer, labelled: Labelled, run: Run) -> Generator[Record, None, None]:
        if not isinstance(scorer, MultiScaleScorer):
            raise TypeError("AnoMem refits its own scorers only")
        yield from fit_second_stage(scorer, labelled, run)

    @classmethod
    def _build(cls, config: dict[str, Any]) -> Scorer:
        return MultiScaleScorer(config)
