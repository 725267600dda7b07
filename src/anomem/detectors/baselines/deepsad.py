"""Deep SAD: normal images near a centre, labelled anomalies far from it."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from anomem.data.imageset import ImageSet
from anomem.detector import Supervision
from anomem.detectors.baselines._hypersphere import (
    Autoencoder,
    Hypersphere,
    deep_sad,
    dense,
    draw_weights,
    hypersphere_centre,
    lenet_decoder,
    lenet_encoder,
)
from anomem.detectors.baselines._pooled import (
    PRESET_DOC,
    NormalisedFeatures,
    NormalisedScorer,
    Pretrained,
    anomalous_vectors,
    empty_config,
    learn_vectors,
    load_pooled,
)
from anomem.fitting import Labelled, Run
from anomem.nn.backbones import Backbone
from anomem.nn.endless import Mapped
from anomem.nn.precision import without_autocast
from anomem.nn.scorer import Output, Scorer
from anomem.nn.views import Feed
from anomem.params import Each, OneOf, Range, param, parameters
from anomem.training import Recipe, train
from anomem.types import Record

POSITIVE = Range(0.0, low_open=True)
Batch = tuple[Tensor, Tensor]
"""Batch of encoder inputs with a bool mask of labelled anomalies."""


class DeepSADScorer(NormalisedScorer):
    """Distance to the centre of a frozen embedding mapped by dense layers.

    Parameters
    ----------
    config : dict
        As for :class:`~anomem.detectors.baselines._pooled.NormalisedScorer`, and ``hidden``, ``rep_dim``.
    """

    def __init__(self, config: dict[str, Any], backbone: Backbone | None = None) -> None:
        super().__init__(config, backbone)
        layers = [config["dim"], *config["hidden"], config["rep_dim"]]
        self.sphere = Hypersphere(dense(layers), config["rep_dim"])

    def forward(self, images: Tensor) -> Output:
        """Score prepared images; no maps."""
        vectors = self.vectors(images)
        with without_autocast(vectors.device):
            return Output(self.sphere(vectors))


class DeepSADImageScorer(Scorer):
    """Distance to the centre of an image mapped by a convolutional encoder trained from scratch.

    Parameters
    ----------
    config : dict
        ``size``, ``rep_dim``, and ``encoder``, which is "lenet".
    """

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self.sphere = Hypersphere(lenet_encoder(config["size"], config["rep_dim"]), config["rep_dim"])

    def forward(self, images: Tensor) -> Output:
        """Score prepared images; no maps."""
        return Output(self.sphere(images.float() / 255))


# 20,000 steps of 128 images are 150 epochs and more of most sets.
PRESETS: dict[str, Mapping[str, Any]] = {
    **Pretrained.presets,
    "paper": {
        "size": 32,
        "aspect": "square",
        "encoder": "lenet",
        "rep_dim": 128,
        "train_steps": 20_000,
        "lr": 1e-4,
        "pretrain_lr": 1e-4,
    },
}


@parameters
class DeepSAD(NormalisedFeatures):
    """Deep SAD: an encoder without biases that brings normal images near a centre and labelled anomalies far from it.

    The encoder is pretrained in an autoencoder; the centre is the mean of its outputs for normal images, and stays. The
    anomaly score is the distance to it. Without labels this is one-class Deep SVDD.

    References
    ----------
    Ruff, Vandermeulen, Goernitz, Binder, Mueller, Mueller and Kloft, "Deep Semi-Supervised Anomaly Detection", ICLR
    2020.

    Examples
    --------
    >>> DeepSAD(encoder="lenet", size=32, rep_dim=128)
    DeepSAD(size=32, encoder='lenet', rep_dim=128)
    """

    name: ClassVar[str] = "deepsad"
    supervision: ClassVar[Supervision] = "optional"
    paper: ClassVar[str] = "Ruff et al., Deep Semi-Supervised Anomaly Detection, 2020"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = PRESETS
    test_params: ClassVar[dict[str, Any]] = {
        "size": 64,
        "max_items": 14,
        "hidden": (32,),
        "rep_dim": 16,
        "pretrain_steps": 20,
        "train_steps": 20,
        "train_batch": 16,
    }

    preset: str = param(
        "surface", OneOf(tuple(PRESETS)), doc=f"{PRESET_DOC}; paper: the CIFAR-10 network, from scratch, at 32 pixels."
    )
    encoder: str = param(
        "dense",
        OneOf(("dense", "lenet")),
        doc="Dense layers on frozen embeddings, or a convolutional network on images, from scratch (sizes 16, 32, 64, "
        "128, ...), which uses neither backbone, weights nor normalise.",
        preset=True,
    )
    hidden: tuple[int, ...] = param(
        (256,),
        Each(Range(1, 65536, integer=True)),
        doc="Widths of the hidden layers of encoder=dense.",
        when="encoder=dense",
    )
    rep_dim: int = param(64, Range(1, 65536, integer=True), doc="Length of the encoder's output.", preset=True)
    eta: float = param(1.0, POSITIVE, doc="Weight of the labelled anomalies.")
    pretrain_steps: int = param(300, Range(0, integer=True), doc="Optimiser steps of the autoencoder.")
    pretrain_lr: float = param(
        1e-3, POSITIVE, doc="Peak learning rate of the autoencoder.", preset=True, when="pretrain_steps"
    )
    pretrain_weight_decay: float = param(
        5e-4, Range(0.0), doc="Weight decay of the autoencoder.", when="pretrain_steps"
    )
    train_steps: int = param(300, Range(0, integer=True), doc="Optimiser steps of the objective.", preset=True)
    train_batch: int = param(
        128, Range(2, integer=True), doc="Images per step; labelled anomalies in their share, at least one."
    )
    lr: float = param(1e-3, POSITIVE, doc="Peak learning rate of the objective.", preset=True, when="train_steps")
    weight_decay: float = param(5e-7, Range(0.0), doc="Weight decay of the objective.", when="train_steps")
    cache_mb: int = param(
        1024, Range(1, integer=True), doc="Memory for prepared images of encoder=lenet, MB.", when="encoder=lenet"
    )

    def input_strides(self) -> tuple[int, int] | None:
        """Return the backbone's stride; None for lenet, the publication's network for square images."""
        return super().input_strides() if self.encoder != "lenet" else None

    def _fit(
        self, learn: ImageSet, tune: ImageSet, labelled: Labelled | None, run: Run[Self]
    ) -> Generator[Record, None, Scorer]:
        if run.params.encoder == "lenet":
            return (yield from _fit_images(learn, labelled, run))
        return (yield from _fit_vectors(learn, labelled, run))

    @classmethod
    def _build(cls, config: dict[str, Any]) -> Scorer:
        return DeepSADImageScorer(config) if config.get("encoder") == "lenet" else DeepSADScorer(config)


def _fit_vectors(learn: ImageSet, labelled: Labelled | None, run: Run[DeepSAD]) -> Generator[Record, None, Scorer]:
    p = run.params
    backbone = load_pooled(run)
    config = {**empty_config(backbone, run), "hidden": list(p.hidden), "rep_dim": p.rep_dim}
    scorer = DeepSADScorer(config, backbone)
    normals = yield from learn_vectors(scorer, learn, run)
    anomalies = normals[:0]
    if labelled is not None:
        anomalies = yield from anomalous_vectors(scorer, labelled, run)
    normals, anomalies = normals.to(run.device), anomalies.to(run.device)
    autoencoder = Autoencoder(scorer.sphere.encoder, dense([p.rep_dim, *reversed(p.hidden), config["dim"]]))
    batches = mixed(normals, anomalies, p.train_batch, run.rng)
    yield from _train(scorer.sphere, autoencoder, batches, [normals], run, precision="float32")
    return scorer


def _fit_images(learn: ImageSet, labelled: Labelled | None, run: Run[DeepSAD]) -> Generator[Record, None, Scorer]:
    p = run.params
    scorer = DeepSADImageScorer({"encoder": "lenet", "size": p.size, "rep_dim": p.rep_dim})
    autoencoder = Autoencoder(scorer.sphere.encoder, lenet_decoder(p.size, p.rep_dim))
    anomalies = None if labelled is None else labelled.anomalies()
    feed = Feed(learn, anomalies, p.train_batch, p.cache_mb, run.rng)
    batches = Mapped(lambda fed: (fed[0].to(run.device) / 255, ~fed[1].to(run.device)), feed)
    yield from _train(scorer.sphere, autoencoder, batches, _some(learn, run), run, precision=run.fit_precision)
    return scorer


def _some(learn: ImageSet, run: Run[DeepSAD]) -> Iterator[Tensor]:
    """Return batches of normal images, at most `max_items` images, in random order."""
    p = run.params
    order = torch.randperm(len(learn), generator=run.rng)[: p.max_items].numpy()
    for batch in learn.batches(run.batch_size, order=order):
        yield batch.images.to(run.device) / 255


def mixed(normals: Tensor, anomalies: Tensor, batch_size: int, rng: torch.Generator) -> Iterator[Batch]:
    """Yield endless batches of vectors, labelled anomalies in their share, at least one where there are any."""
    n, m = len(normals), len(anomalies)
    share = min(max(1, round(batch_size * m / (n + m))), batch_size - 1) if m else 0
    flags = torch.arange(batch_size, device=normals.device) >= batch_size - share
    while True:
        rows = torch.randint(n, (batch_size - share,), generator=rng).to(normals.device)
        others = torch.randint(max(m, 1), (share,), generator=rng).to(normals.device)
        yield torch.cat([normals[rows], anomalies[others]]), flags


def _train(
    sphere: Hypersphere,
    autoencoder: Autoencoder,
    batches: Iterable[Batch],
    normals: Iterable[Tensor],
    run: Run[DeepSAD],
    *,
    precision: str,
) -> Generator[Record, None, None]:
    """Pretrain the encoder, fix the centre, train the objective."""
    p = run.params
    draw_weights(autoencoder, run.rng)
    sphere.to(run.device)
    autoencoder.to(run.device).train()

    def reconstruction(batch: Batch) -> tuple[Tensor, Mapping[str, float]]:
        return F.mse_loss(autoencoder(batch[0]).float(), batch[0]), {}

    def objective(batch: Batch) -> tuple[Tensor, Mapping[str, float]]:
        return deep_sad(sphere.encoder(batch[0]), sphere.centre, batch[1], eta=p.eta), {}

    options: dict[str, Any] = {"device": run.device, "precision": precision, "rng": run.rng}
    recipe = Recipe(p.pretrain_steps, p.pretrain_lr, "adamw", p.pretrain_weight_decay)
    yield from train(autoencoder, reconstruction, batches, recipe, **options, stage="autoencoder")
    sphere.eval()
    with torch.no_grad():
        sphere.centre = hypersphere_centre(torch.cat([sphere.encoder(part) for part in normals]))
    sphere.train()
    recipe = Recipe(p.train_steps, p.lr, "adamw", p.weight_decay)
    yield from train(sphere.encoder, objective, batches, recipe, **options, stage="hypersphere")
    sphere.eval()
