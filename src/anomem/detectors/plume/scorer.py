"""Scorer of PLUME: a classifier on normalised features of a frozen backbone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from anomem.detectors.baselines._pooled import (
    PooledScorer,
)
from anomem.nn.backbones import Backbone
from anomem.nn.normalise import Whitening
from anomem.nn.precision import without_autocast
from anomem.nn.scorer import Output


class Classifier(nn.Module):
    """f = f2 o f1: layers of Linear without bias, BatchNorm without affine parameters and LeakyReLU; then one logit.

    Parameters
    ----------
    dim : int
        D, values per feature.
    hidden : sequence of int
        Widths of the layers; the last is that of the embedding z.
    """

    def __init__(self, dim: int, hidden: Sequence[int]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width in hidden:
            layers += [nn.Linear(dim, width, bias=False), nn.BatchNorm1d(width, eps=1e-4, affine=False), nn.LeakyReLU()]
            dim = width
        self.embed = nn.Sequential(*layers)
        self.decide = nn.Linear(dim, 1, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return embeddings (B, E) and logits (B,), high where normal, of features (B, D)."""
        z = self.embed(x)
        return z, self.decide(z)[:, 0]


class PlumeScorer(PooledScorer):
    """Backbone, normalisation and classifier; the perturbator is not needed to score and is not kept.

    Parameters
    ----------
    config : dict
        ``backbone`` (a timm model's name), ``dim`` (D), ``normalise``, ``hidden`` (widths of the classifier).
    backbone : Backbone or None
        As for :class:`~anomem.detectors.baselines._pooled.PooledScorer`.
    """

    def __init__(self, config: dict[str, Any], backbone: Backbone | None = None) -> None:
        super().__init__(config, backbone)
        whitened = config["normalise"] == "whiten"
        self.norm = Whitening(config["dim"]) if whitened else nn.BatchNorm1d(config["dim"], affine=False)
        self.classifier = Classifier(config["dim"], config["hidden"])

    def embed(self, features: list[Tensor]) -> Tensor:
        """Return pooled embeddings brought to D values by adaptive average pooling, (B, D) float32."""
        pooled = super().embed(features)
        dim = self.config["dim"]
        return pooled if pooled.shape[1] == dim else F.adaptive_avg_pool1d(pooled, dim)

    def forward(self, images: Tensor) -> Output:
        """Score prepared images (B, 3, S, S) by the negative logit; no maps."""
        x = self.embed(self.backbone(images))
        with without_autocast(x.device):
            return Output(-self.classifier(self.norm(x))[1])
