"""PLAD: a small classifier of normal images against their own learnt pixel-wise perturbations."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from anomem.data.imageset import ImageSet
from anomem.detector import Detector, Supervision
from anomem.detectors.plume.loss import (
    PRINTED,
    Weights,
    classification_loss,
    kl_divergence,
    noise_constraint,
    total_loss,
)
from anomem.detectors.plume.perturbator import Perturbator, add_mult, relative_size
from anomem.fitting import Labelled, Run
from anomem.nn.endless import Mapped
from anomem.nn.feature_store import FeatureStore
from anomem.nn.scorer import Output, Scorer
from anomem.params import OneOf, Range, param, parameters
from anomem.training import Recipe, train
from anomem.types import Record

POSITIVE = Range(0.0, low_open=True)
DEPTH = 4
"""Number of blocks of the classifier, each of which halves the image's side."""


class PixelClassifier(nn.Sequential):
    """LeNet-like: four blocks of convolution, batch normalisation, LeakyReLU and pooling, then three linear layers.

    Parameters
    ----------
    size : int
        Side of the images, pixels.
    channels : int
        Channels of the first block; every block doubles them.
    """

    def __init__(self, size: int, channels: int) -> None:
        blocks: list[nn.Module] = []
        before, side = 3, size
        for width in (channels * 2**i for i in range(DEPTH)):
            blocks += [
                nn.Conv2d(before, width, 5, padding=2, bias=False),
                nn.BatchNorm2d(width, eps=1e-4, affine=False),
                nn.LeakyReLU(),
                nn.MaxPool2d(2),
            ]
            before, side = width, side // 2
        flat = before * side * side
        head = [nn.Linear(flat, 128, bias=False), nn.LeakyReLU(), nn.Linear(128, 64, bias=False), nn.LeakyReLU()]
        super().__init__(*blocks, nn.Flatten(), *head, nn.Linear(64, 1, bias=False))


class PLADScorer(Scorer):
    """Classifier alone; the perturbator is not needed to score and is not kept.

    Parameters
    ----------
    config : dict
        ``size`` and ``channels``, as for :class:`PixelClassifier`.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self.classifier = PixelClassifier(config["size"], config["channels"])

    def pixels(self, images: Tensor) -> Tensor:
        """Return images (B, 3, S, S) with values 0 to 255 as vectors of values 0 to 1, (B, 3 S S) float32."""
        return (images.float() / 255).flatten(1)

    def logits(self, pixels: Tensor) -> Tensor:
        """Return logits (B,), high where normal, of images as vectors."""
        side = self.config["size"]
        found: Tensor = self.classifier(pixels.view(-1, 3, side, side))
        return found[:, 0]

    def forward(self, images: Tensor) -> Output:
        """Score prepared images (B, 3, S, S) by the negative logit; no maps."""
        return Output(-self.logits(self.pixels(images)).float())


class PerturbedImages(nn.Module):
    """Trained modules of PLAD: classifier and perturbator, with one loss.

    Parameters
    ----------
    scorer : PLADScorer
        Its classifier is trained in place.
    p : PLAD
        Hyperparameters of :class:`PLAD`.
    rng : torch.Generator
        Generator of latent draws.
    """

    def __init__(self, scorer: PLADScorer, p: PLAD, rng: torch.Generator) -> None:
        super().__init__()
        self.scorer, self.rng = scorer, rng
        self.perturbator = Perturbator(3 * p.size**2, p.perturbator_width)
        self.weights = Weights(p.constraint_weight, 1.0, 0.0)

    def loss(self, x: Tensor) -> tuple[Tensor, Mapping[str, float]]:
        """Return cross entropy + constraint (alpha to 1, beta to 0) + divergence for a batch of vectors (N, D)."""
        drawn = self.perturbator(x, self.rng)
        pseudo = add_mult(x, drawn.alpha, drawn.beta)
        normal_logits, pseudo_logits = self.scorer.logits(torch.cat([x, pseudo])).chunk(2)
        terms = {
            "classification": classification_loss(normal_logits, pseudo_logits),
            "constraint": noise_constraint(drawn.alpha, drawn.beta, PRINTED),
            "divergence": kl_divergence(drawn.mu, drawn.log_variance).mean(),
        }
        figures = {name: float(term.detach()) for name, term in terms.items()}
        figures["relative_size"] = float(relative_size(x, pseudo.detach()).mean())
        return total_loss(**terms, contrast=x.new_zeros(()), weights=self.weights), figures


@parameters
class PLAD(Detector):
    """Perturbation learning in pixel space: PLUME's predecessor.

    A variational auto-encoder predicts for every image a factor and a shift per pixel that make it a
    pseudo-anomaly, alpha * x + beta, as small as the jointly trained classifier needs to separate both. PLAD
    scores whole images by the classifier's logit and draws no maps.

    References
    ----------
    Cai and Fan, "Perturbation Learning Based Anomaly Detection", NeurIPS 2022.
    """

    name: ClassVar[str] = "plad"
    supervision: ClassVar[Supervision] = "none"
    localizes: ClassVar[bool] = False
    paper: ClassVar[str] = "Cai and Fan, Perturbation Learning Based Anomaly Detection, 2022"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "surface": {"size": 64},
        "object": {"size": 32},
        "paper": {"size": 32, "perturbator_width": None},
    }
    test_params: ClassVar[dict[str, Any]] = {"size": 16, "perturbator_width": 16, "channels": 4, "steps": 20}
    contract_skips: ClassVar[dict[str, str]] = {
        "defects_rank_above_normals": "a small classifier of perturbed pixels does not detect planted defects"
    }

    size: int = param(None, Range(16, 256, integer=True), doc="Side of the square input, pixels.", preset=True)
    preset: str = param(
        "surface",
        OneOf(("surface", "object", "paper")),
        doc="Named set of parameters: surface for a 64 px input, object for 32 px.",
    )
    constraint_weight: float = param(5.0, Range(0.0), doc="Weight lambda of ||alpha - 1||^2 + ||beta||^2.")
    channels: int = param(
        16, Range(1, 1024, integer=True), doc="Channels of the classifier's first block; every block doubles them."
    )
    perturbator_width: int | None = param(
        256,
        Range(1, 65536, integer=True),
        doc="Hidden and latent width of the perturbator; none: as wide as its input.",
        optional=True,
        preset=True,
    )
    steps: int = param(500, Range(1, integer=True), doc="Maximum number of optimiser steps.")
    epochs: int = param(100, Range(1, integer=True), doc="Maximum number of passes over the images.")
    train_batch: int = param(32, Range(2, integer=True), doc="Images per step.")
    lr: float = param(1e-3, POSITIVE, doc="Peak learning rate of AdamW along one cycle.")
    weight_decay: float = param(0.01, Range(0.0), doc="Decoupled weight decay.")
    cache_mb: int = param(512, Range(0, integer=True), doc="Memory for images, MB; beyond it a temporary file is used.")

    def _fit(
        self, learn: ImageSet, tune: ImageSet, labelled: Labelled | None, run: Run[Self]
    ) -> Generator[Record, None, Scorer]:
        p = run.params
        scorer = PLADScorer({"size": p.size, "channels": p.channels}).to(run.device)
        with FeatureStore(p.cache_mb) as store:
            for batch in learn.batches(run.batch_size):
                store.add(scorer.pixels(batch.images))
                yield Record("images", len(store), max(len(store), len(learn)))
            model = PerturbedImages(scorer, p, run.rng).to(run.device).train()
            steps = min(p.steps, p.epochs * -(-len(store) // p.train_batch))
            recipe = Recipe(steps, p.lr, "adamw", weight_decay=p.weight_decay, warmup=0.3, schedule="one_cycle")
            batches = Mapped(lambda x: x.to(run.device), store.batches(p.train_batch, run.rng))
            yield from train(model, model.loss, batches, recipe, device=run.device, rng=run.rng)
        return scorer

    @classmethod
    def _build(cls, config: dict[str, Any]) -> Scorer:
        return PLADScorer(config)
