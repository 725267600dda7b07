"""What FYD is made of beside its networks: the scorer, the stages of its training, its Gaussians."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, ClassVar

import torch
from torch import Tensor

from anomem.data.imageset import ImageSet
from anomem.errors import ParameterError
from anomem.fitting import Run
from anomem.nn.aligned_backbone import Aligned, AlignedBackbone
from anomem.nn.alignment import ImageAligner, in_frame, invert, warp
from anomem.nn.backbones import Backbone, load_backbone
from anomem.nn.contrastive import Feed
from anomem.nn.deviation import MapFusion, smooth
from anomem.nn.fine_alignment import DenseAlignment, PixelAlignment, Pose, Weights, mean_distance
from anomem.nn.folding import fold_batch_norm
from anomem.nn.gaussian import GaussianMoments, PositionGaussian, choose_channels, concatenate_maps, split_channels
from anomem.nn.inference import autocast
from anomem.nn.scorer import Output, Scorer
from anomem.training import Recipe, train
from anomem.types import Record

GAIN = 0.05
"""An image aligner that is to prove itself must bring tune normals nearer to each other by this share."""

COMPARED = 64
"""Images that are compared with each other, or whose distances are looked at, at most."""


class FYDScorer(Scorer):
    """Mahalanobis distance of every position's features to the normal ones there, in the common frame, and back.

    Parameters
    ----------
    config : dict
        ``backbone`` (keyword arguments of :class:`~anomem.nn.backbones.Backbone`), ``aligned`` (those of
        :class:`~anomem.nn.aligned_backbone.AlignedBackbone`), ``size``, ``hw`` of the finest stage, ``counts``
        (channels that are kept of each stage), ``smoothing``.
    backbone : Backbone or None
        One with its weights; None: an empty one is built.
    """

    continuous: ClassVar[bool] = False  # a place counts where the common frame covers more than half of it

    channels: Tensor

    def __init__(self, config: dict[str, Any], backbone: Backbone | None = None) -> None:
        super().__init__(config)
        self.hw = (int(config["hw"][0]), int(config["hw"][1]))
        found = Backbone(**config["backbone"]) if backbone is None else backbone
        self.backbone = AlignedBackbone(found, config["size"], **config["aligned"])
        # Positions among the channels of their own stage, one stage after the other.
        self.register_buffer("channels", torch.zeros(sum(config["counts"]), dtype=torch.int64))
        self.gaussian = PositionGaussian(sum(config["counts"]), self.hw)
        options: dict[str, Any] = {"reduction": "max", "top": 1.0, "standardise": "none"}
        self.fusion = MapFusion([self.hw], [1.0], size=config["size"], smoothing=config["smoothing"], **options)

    def embed(self, found: Aligned) -> Tensor:
        """The drawn channels of all stages on the finest grid, (B, C, h, w) float32, in the common frame."""
        return concatenate_maps([m.float() for m in found.maps], self.channels.split(self.config["counts"]))

    def forward(self, images: Tensor) -> Output:
        """Score prepared images (B, 3, S, S).

        Returns
        -------
        Output
            The score is the maximum of the map. The map (B, g, g) is in the images' own frame, 0 where the common frame
            shows nothing of them, which :meth:`covered` tells.
        """
        found = self.backbone(images)
        with torch.autocast(images.device.type, enabled=False):
            distances = self.gaussian(self.embed(found))
            if not self.backbone.aligns:
                return Output(*self.fusion([distances]))
            maps = self._warped_back(distances, found)
            return Output(maps.amax(dim=(1, 2)), maps)

    def covered(self, images: Tensor) -> Tensor:
        """Which places of the map lie within the common frame: (B, g, g) bool."""
        return self._cover(self.backbone(images))[:, 0] > 0.5

    def _cover(self, found: Aligned) -> Tensor:
        """How much of each place of the map the common frame shows, (B, 1, g, g)."""
        return self._back(found.seen(self.hw), found)

    def _back(self, values: Tensor, found: Aligned) -> Tensor:
        """Bring values of the common frame (B, h, w) to the images' own, 0 outside of it: (B, 1, g, g)."""
        back, hw = invert(found.theta()), (self.fusion.grid, self.fusion.grid)
        return warp(values[:, None], back, padding="border", hw=hw) * in_frame(back, hw)[:, None]

    def _warped_back(self, distances: Tensor, found: Aligned) -> Tensor:
        """Bring distances to the images' frame and smooth them; what was made up has no weight in either."""
        cover, kernel = self._cover(found), self.fusion.kernel
        there = smooth(self._back(distances * found.seen(self.hw), found), kernel)
        averaged = there / smooth(cover, kernel).clamp_min(1e-6)
        return torch.where(cover > 0.5, averaged, torch.zeros_like(averaged))[:, 0]


def empty_scorer(p: SimpleNamespace, rng: torch.Generator, *, alone: bool) -> FYDScorer:
    """A scorer with a pretrained backbone, aligners that change nothing yet, and its channels drawn.

    Parameters
    ----------
    p : SimpleNamespace
        Resolved hyperparameters.
    rng : torch.Generator
        Draws the channels.
    alone : bool
        Whether there is one image only, which nothing can be aligned with.
    """
    trains = p.train_steps > 0 and not alone
    # With its pretrained statistics a normalisation is one affine map; folded, it costs nothing.
    options = {
        "name": p.backbone,
        "stages": list(p.stages),
        "folded": not trains or p.batch_norm == "pretrained" or p.train_backbone == "none",
    }
    backbone = load_backbone(**options, weights=p.weights).eval()
    maps = backbone.describe(p.size)
    counts = [m.channels for m in maps]
    if p.n_channels is not None and p.n_channels > sum(counts):
        raise ParameterError(
            f"n_channels={p.n_channels} is not allowed: the stages have {sum(counts)} channels; None takes all"
        )
    channels = split_channels(choose_channels(sum(counts), p.n_channels, rng), counts)
    image = {"max_angle": math.radians(p.max_angle), "vector": p.angle == "direction", "hidden": p.hidden}
    feature = {"centred": p.centred, "hidden": p.hidden, **({} if p.bounded else {"bounds": None})}
    config = {
        "backbone": options,
        "aligned": {
            "image": None if p.image_alignment == "off" or alone else image,
            "feature": feature if p.feature_alignment and trains else None,
            "padding": p.padding,
            "common_frame": p.common_frame,
        },
        "size": p.size,
        "hw": list(max(maps, key=lambda m: m.hw[0] * m.hw[1]).hw),
        "counts": [len(c) for c in channels],
        "smoothing": p.smoothing,
    }
    scorer = FYDScorer(config, backbone)
    scorer.channels.copy_(torch.cat(channels))
    return scorer


def align_images(scorer: FYDScorer, learn: ImageSet, tune: ImageSet, run: Run) -> Generator[Record, None, None]:
    """Train the image aligner by pixels alone (Algorithm 2); where it is to prove itself and fails, leave it out."""
    p, aligner = run.params, scorer.backbone.image_aligner
    if aligner is None or not p.image_steps:
        return
    scorer.requires_grad_(False)
    aligner.requires_grad_(True).train()
    pixels = PixelAlignment(aligner, _pose(p), run.rng)
    recipe = _recipe(p, p.image_steps, p.image_lr)
    options: dict[str, Any] = {"device": run.device, "precision": run.fit_precision, "stage": "image alignment"}
    yield from train(pixels, pixels.loss, _pictures(learn, run), recipe, **options)
    scorer.eval().requires_grad_(False)
    if p.centred:
        with torch.no_grad():
            aligner.centre(aligner.turn(_views(aligner, learn, run)))
    if p.image_alignment != "auto":
        return
    views = _views(aligner, tune, run)
    with torch.no_grad():
        before, after = mean_distance(views), mean_distance(warp(views, aligner.turn(views), padding=p.padding))
    kept = after < (1 - GAIN) * before
    if not kept:
        scorer.backbone.image_aligner = None
        scorer.config["aligned"]["image"] = None
    verdict = "image alignment kept" if kept else "image alignment left out"
    yield Record(verdict, 1, 1, {"before": before, "after": after})


@torch.no_grad()
def _views(aligner: ImageAligner, images: ImageSet, run: Run) -> Tensor:
    """What an image aligner sees of some images, at most :data:`COMPARED` of them."""
    views: list[Tensor] = []
    for batch in images.batches(run.batch_size):
        views.append(aligner.view(batch.images.to(run.device)))
        if sum(map(len, views)) >= COMPARED:
            break
    return torch.cat(views)[:COMPARED]


def align_features(scorer: FYDScorer, learn: ImageSet, run: Run) -> Generator[Record, None, None]:
    """Train the feature aligners and the backbone, and the image aligner where asked for, together (Eq. 5)."""
    p, backbone = run.params, scorer.backbone
    if not p.train_steps:
        return
    joint = p.joint and backbone.image_aligner is not None
    if p.train_backbone == "none" and backbone.feature_aligners is None and not joint:
        raise ParameterError("train_steps trains nothing here; set it to 0, or train_backbone or feature_alignment")
    # Without an image aligner, turned images would be new ones rather than the same in another pose.
    pose = _pose(p) if joint else Pose(0.0, p.zooms, p.padding)
    weights = Weights(p.image_weight, p.feature_weight)
    model = DenseAlignment(backbone, width=p.width, weights=weights, pose=pose, rng=run.rng).to(run.device)
    scorer.requires_grad_(False)
    model.fine.requires_grad_(True)
    model.train()
    if backbone.feature_aligners is not None:
        backbone.feature_aligners.requires_grad_(True)
    if backbone.image_aligner is not None:
        backbone.image_aligner.requires_grad_(joint).train(joint)
    backbone.segments.train(p.batch_norm == "batch" and p.train_backbone != "none")
    for segment in backbone.segments[{"all": 0, "late": 1, "none": len(backbone.segments)}[p.train_backbone] :]:
        segment.requires_grad_(True)
    rates = {"backbone.image_aligner": p.image_lr, "backbone.feature_aligners": p.feature_lr, "fine": p.head_lr}
    recipe = _recipe(p, p.train_steps, p.lr, rates)
    # Depthwise convolutions learn more slowly in bfloat16 than in float32 on a processor.
    precision = "float32" if run.device.type == "cpu" else run.fit_precision
    options: dict[str, Any] = {"device": run.device, "precision": precision, "stage": "feature alignment"}
    yield from train(model, model.loss, _pictures(learn, run), recipe, **options)
    scorer.eval().requires_grad_(False)
    if not scorer.config["backbone"]["folded"]:
        for segment in backbone.segments:
            fold_batch_norm(segment)
        scorer.config["backbone"]["folded"] = True


def _recipe(p: SimpleNamespace, steps: int, rate: float, rates: Mapping[str, float] | None = None) -> Recipe:
    options: dict[str, Any] = {"weight_decay": p.weight_decay, "warmup": 0.0, "rates": rates or {}}
    return Recipe(steps, rate, p.optimiser, nesterov=False, **options)


def _pose(p: SimpleNamespace) -> Pose:
    return Pose(math.radians(p.turns), p.zooms, p.padding)


def _pictures(learn: ImageSet, run: Run) -> Iterator[Tensor]:
    """Endless batches of images to learn from, on the device.

    Full ones, also where images are cut into tiles, which come image by image: one tile alone has no pair.
    """
    wanted, held = run.params.train_batch, torch.empty(0, dtype=torch.uint8)
    if learn.preprocessing.tile is None:
        wanted = min(wanted, len(learn))
    for images, _ in Feed(learn, None, wanted, run.params.cache_mb, run.rng):
        held = torch.cat([held, images]) if len(held) else images
        while len(held) >= wanted:
            yield held[:wanted].to(run.device)
            held = held[wanted:]


def _aligned(scorer: FYDScorer, images: ImageSet, run: Run) -> Iterator[Aligned]:
    """Batches of images in the common frame, without gradient.

    In the precision that the model scores in: the rounding of another would be a bias of every distance.
    """
    for batch in images.batches(run.batch_size):
        with torch.no_grad(), autocast(run.device, run.params.precision):
            found: Aligned = scorer.backbone(batch.images.to(run.device))
        yield found


def learn_gaussians(scorer: FYDScorer, parts: Sequence[ImageSet], run: Run) -> Generator[Record, None, None]:
    """Mean and covariance at each position of the common frame (Eq. 6), in one pass.

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
def _compactness(scorer: FYDScorer, images: ImageSet, run: Run) -> dict[str, float]:
    """Distance variance (Eq. 10) of some normals, and relative to their mean squared distance."""
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
