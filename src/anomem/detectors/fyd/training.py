"""Training of FYD: the scorer, the stages of its training, its Gaussians."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from anomem.data.defects import DEFECTS, plant
from anomem.data.imageset import ImageSet
from anomem.detectors.fyd.aligned_backbone import Aligned
from anomem.detectors.fyd.alignment import ImageAligner
from anomem.detectors.fyd.fine_alignment import DenseAlignment, PixelAlignment, Pose, Weights
from anomem.detectors.fyd.scorer import FYDScorer
from anomem.errors import ParameterError
from anomem.fitting import Run
from anomem.nn.endless import FullBatches, Mapped
from anomem.nn.folding import fold_batch_norm
from anomem.nn.gaussian import GaussianMoments
from anomem.nn.precision import autocast
from anomem.nn.scorer import Output
from anomem.nn.views import Feed
from anomem.training import Recipe, train
from anomem.types import Record

if TYPE_CHECKING:
    from anomem.detectors.fyd.detector import FYD, ImageAlignment

GAIN = 0.05
"""Minimum relative gain for an aligner with keep="auto", in how far planted defects stand out."""

COMPARED = 64
"""Maximum number of images that defects are planted in, or whose distances are measured."""

DEFECT_SIZE = 0.1
"""Diameter of planted defects relative to the shorter side."""


def align_images(scorer: FYDScorer, learn: ImageSet, tune: ImageSet, run: Run[FYD]) -> Generator[Record, None, None]:
    """Train the image aligner by pixels alone (Algorithm 2); with keep="auto", drop it unless it helps."""
    p, aligner = run.params, scorer.backbone.image_aligner
    how = p.image_aligner
    if aligner is None or how is None or not how.steps:
        return
    scorer.requires_grad_(False)
    aligner.requires_grad_(True).train()
    pixels = PixelAlignment(aligner, _pose(p, how), run.rng)
    recipe = _recipe(p, how.steps, how.lr)
    options: dict[str, Any] = {"device": run.device, "precision": run.fit_precision, "stage": "image alignment"}
    options["rng"] = run.rng
    yield from train(pixels, pixels.loss, _pictures(learn, run), recipe, **options)
    scorer.eval().requires_grad_(False)
    if p.centred:
        with torch.no_grad():
            aligner.centre(aligner.turn(_views(aligner, learn, run)))
    yield from gate(scorer, "image", learn, tune, run)


@torch.no_grad()
def _views(aligner: ImageAligner, images: ImageSet, run: Run[FYD]) -> Tensor:
    """Return the image aligner's views of some images, at most :data:`COMPARED` of them."""
    views: list[Tensor] = []
    for batch in images.batches(run.batch_size):
        views.append(aligner.view(batch.images.to(run.device)))
        if sum(map(len, views)) >= COMPARED:
            break
    return torch.cat(views)[:COMPARED]


def align_features(scorer: FYDScorer, learn: ImageSet, run: Run[FYD]) -> Generator[Record, None, None]:
    """Train the feature aligners and the backbone, and the image aligner where asked for, together (Eq. 5)."""
    p, backbone, how, images = run.params, scorer.backbone, run.params.training, run.params.image_aligner
    if how is None:
        return
    joint = images is not None and images.joint and backbone.image_aligner is not None
    if how.train_backbone == "none" and backbone.feature_aligners is None and not joint:
        raise ParameterError(
            "training: nothing to train; set it to None, or set training.train_backbone or feature_aligner"
        )
    # Without an image aligner, turned images would be new ones rather than the same in another pose.
    pose = _pose(p, images if joint else None)
    weights = Weights(images.weight if images else 0.0, how.weight, summed=how.reduction == "sum")
    model = DenseAlignment(backbone, width=how.width, weights=weights, pose=pose, rng=run.rng).to(run.device)
    scorer.requires_grad_(False)
    model.fine.requires_grad_(True)
    model.train()
    if backbone.feature_aligners is not None:
        backbone.feature_aligners.requires_grad_(True)
    if backbone.image_aligner is not None:
        backbone.image_aligner.requires_grad_(joint).train(joint)
    backbone.segments.train(how.batch_norm == "batch" and how.train_backbone != "none")
    for segment in backbone.segments[{"all": 0, "late": 1, "none": len(backbone.segments)}[how.train_backbone] :]:
        segment.requires_grad_(True)
    rates = {"fine": how.head_lr}
    if images is not None:
        rates["backbone.image_aligner"] = images.lr
    if p.feature_aligner is not None:
        rates["backbone.feature_aligners"] = p.feature_aligner.lr
    recipe = _recipe(p, how.steps, how.lr, rates)
    # Depthwise convolutions learn more slowly in bfloat16 than in float32 on a processor.
    precision = "float32" if run.device.type == "cpu" else run.fit_precision
    options: dict[str, Any] = {"device": run.device, "precision": precision, "stage": "feature alignment"}
    options["rng"] = run.rng
    yield from train(model, model.loss, _pictures(learn, run), recipe, **options)
    scorer.eval().requires_grad_(False)
    if not scorer.config["backbone"]["folded"]:
        for segment in backbone.segments:
            fold_batch_norm(segment)
        scorer.config["backbone"]["folded"] = True


def gate(
    scorer: FYDScorer, which: Literal["image", "feature"], learn: ImageSet, tune: ImageSet, run: Run[FYD]
) -> Generator[Record, None, None]:
    """With keep="auto", drop an aligner unless defects planted in tune normals stand out 5 % more with it.

    A warp can bring normals nearer to each other and hide defects, at corners and by interpolation, or move edges, and
    a normal image's highest distance with them. Both ways have Gaussians of their own, learnt from the same images.
    """
    name = "image_aligner" if which == "image" else "feature_aligners"
    how, aligner = run.params[f"{which}_aligner"], getattr(scorer.backbone, name)
    if how is None or how.keep != "auto" or aligner is None:
        return
    found = []
    for kept in (None, aligner):
        setattr(scorer.backbone, name, kept)
        yield from learn_gaussians(scorer, [learn], run)
        found.append(_separation(scorer, tune, run))
    before, after = found
    helps = after > before + GAIN * abs(before)
    if not helps:
        setattr(scorer.backbone, name, None)
        scorer.config["aligned"][which] = None
    word = "kept" if helps else "left out"
    yield Record(f"{which} alignment {word}", 1, 1, {"before": before, "after": after})


@torch.no_grad()
def _separation(scorer: FYDScorer, normals: ImageSet, run: Run[FYD]) -> float:
    """Return how far planted defects of every kind stand out: difference of mean log scores, in deviations (d')."""
    rng = np.random.default_rng(int(run.params.seed))  # The same defects for both ways.
    as_they_are: list[Tensor] = []
    planted: list[Tensor] = []
    for batch in normals.batches(run.batch_size):
        as_they_are.append(_log_scores(scorer, batch.images, run))
        pictures = batch.images.permute(0, 2, 3, 1).cpu().numpy()
        for kind in DEFECTS:
            spoilt = np.stack([plant(picture, kind, rng, DEFECT_SIZE)[0] for picture in pictures])
            planted.append(_log_scores(scorer, torch.from_numpy(spoilt).permute(0, 3, 1, 2), run))
        if sum(map(len, as_they_are)) >= COMPARED:
            break
    normal, anomalous = torch.cat(as_they_are), torch.cat(planted)
    deviation = ((normal.var(correction=0) + anomalous.var(correction=0)) / 2).sqrt().clamp_min(1e-12)
    return float((anomalous.mean() - normal.mean()) / deviation)


def _log_scores(scorer: FYDScorer, images: Tensor, run: Run[FYD]) -> Tensor:
    with autocast(run.device, run.params.precision):
        output: Output = scorer(images.to(run.device))
    return output.score.double().clamp_min(1e-12).log()


def _recipe(p: FYD, steps: int, rate: float, rates: Mapping[str, float] | None = None) -> Recipe:
    options: dict[str, Any] = {"weight_decay": p.weight_decay, "warmup": 0.0, "rates": rates or {}}
    return Recipe(steps, rate, p.optimiser, nesterov=False, **options)


def _pose(p: FYD, images: ImageAlignment | None) -> Pose:
    return Pose(math.radians(images.turns if images else 0.0), p.zooms, p.padding)


def _pictures(learn: ImageSet, run: Run[FYD]) -> Mapped[Tensor]:
    """Return endless batches of training images, on the device.

    Batches are full, also where images are cut into tiles, which come image by image: one tile alone has no pair.
    """
    wanted = run.params.train_batch
    if learn.preprocessing.tile is None:
        wanted = min(wanted, len(learn))
    feed = Feed(learn, None, wanted, run.params.cache_mb, run.rng)
    return Mapped(lambda images: images.to(run.device), FullBatches(Mapped(itemgetter(0), feed), wanted))


def _aligned(scorer: FYDScorer, images: ImageSet, run: Run[FYD]) -> Iterator[Aligned]:
    """Yield batches of images in the common frame, without gradient.

    Features have the precision used for scoring: the rounding of another would bias every distance.
    """
    for batch in images.batches(run.batch_size):
        with torch.no_grad(), autocast(run.device, run.params.precision):
            found: Aligned = scorer.backbone(batch.images.to(run.device))
        yield found


def learn_gaussians(scorer: FYDScorer, parts: Sequence[ImageSet], run: Run[FYD]) -> Generator[Record, None, None]:
    """Learn mean and covariance per position of the common frame (Eq. 6), in one pass.

    Padding counts: it continues the image plausibly, and without it positions near the edge would have fewer images
    than the rest, and larger distances of fresh normals.
    """
    moments = GaussianMoments(scorer.gaussian.channels, scorer.hw)
    done, total = 0, sum(len(part) for part in parts)
    for part in parts:
        for found in _aligned(scorer, part, run):
            moments.update(scorer.embed(found))
            done += len(found.last)
            yield Record("features", done, max(done, total))
    scorer.gaussian = moments.result(run.params.ridge).to(run.device)
    yield Record("covariances", 1, 1, _compactness(scorer, parts[0], run))


@torch.no_grad()
def _compactness(scorer: FYDScorer, images: ImageSet, run: Run[FYD]) -> dict[str, float]:
    """Return the distance variance (Eq. 10) of some normals, absolute and relative to their mean squared distance."""
    count, sums, squares = (torch.zeros(scorer.hw, device=run.device, dtype=torch.float64) for _ in range(3))
    for number, found in enumerate(_aligned(scorer, images, run)):
        if number * run.batch_size >= COMPARED:
            break
        seen = found.seen(scorer.hw).double()
        distances = scorer.gaussian(scorer.embed(found)).double() * seen
        count += seen.sum(dim=0)
        sums += distances.sum(dim=0)
        squares += distances.square().sum(dim=0)
    looked = count > 0
    mean, level = sums[looked] / count[looked], squares[looked] / count[looked]
    variance = float((level - mean.square()).clamp_min(0).mean())
    return {"distance_variance": variance, "relative_distance_variance": variance / max(float(level.mean()), 1e-12)}
