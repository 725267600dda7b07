"""FYD's training: dense non-contrastive learning on aligned maps, and the alignment of images by their pixels."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from anomem.detectors.fyd.aligned_backbone import AlignedBackbone, spread_of
from anomem.detectors.fyd.alignment import ImageAligner, Padding, affine, warp
from anomem.detectors.fyd.loss import derangement, image_alignment_loss, non_contrastive_loss, unit_deviation
from anomem.nn.precision import without_autocast


class FineAlignment(nn.Module):
    """Encoder f, three 1x1 convolutions, and predictor g, two (Algorithm 1).

    Parameters
    ----------
    channels : int
        C of the maps.
    width : int
        Width of all layers.
    """

    def __init__(self, channels: int, width: int = 256) -> None:
        super().__init__()
        self.encoder = nn.Sequential(*_layer(channels, width), *_layer(width, width), nn.Conv2d(width, width, 1))
        self.predictor = nn.Sequential(*_layer(width, width), nn.Conv2d(width, width, 1))

    def forward(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Return z = f(x) and p = g(z) of maps (B, C, h, w): (B, width, h, w) each."""
        encoded = self.encoder(maps)
        return encoded, self.predictor(encoded)


def _layer(channels: int, width: int) -> list[nn.Module]:
    return [nn.Conv2d(channels, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]


@dataclass(frozen=True)
class Pose:
    """Random poses for training images, so that aligners see more poses than there are images.

    Parameters
    ----------
    turns : float
        Largest rotation either way, radians.
    zooms : float
        Largest logarithm of the magnification either way.
    padding : {"reflection", "border"}
        Content beyond an image's edge.
    """

    turns: float = 0.0
    zooms: float = 0.0
    padding: Padding = "reflection"

    def __call__(self, images: Tensor, rng: torch.Generator) -> Tensor:
        """Warp each image (B, 3, S, S) by a pose of its own; float32."""
        if self.turns == 0 and self.zooms == 0:
            return images.float()
        angle, zoom = (2 * torch.rand(2, len(images), generator=rng) - 1).to(images.device)
        numbers = torch.zeros(len(images), 6, device=images.device)
        numbers[:, 0] = self.turns * angle
        numbers[:, 1] = numbers[:, 2] = self.zooms * zoom
        return warp(images, affine(numbers), padding=self.padding)


class PixelAlignment(nn.Module):
    """Training of an image aligner by the images it turns, compared pixel by pixel (Eq. 2, Algorithm 2).

    Parameters
    ----------
    aligner : ImageAligner
        Image aligner (ICA).
    pose : Pose
        Random pose applied to the images first; the paper: none.
    rng : torch.Generator
        Generator of pairs and poses.
    """

    def __init__(self, aligner: ImageAligner, pose: Pose, rng: torch.Generator) -> None:
        super().__init__()
        self.aligner, self.pose, self.rng = aligner, pose, rng

    def loss(self, images: Tensor) -> tuple[Tensor, Mapping[str, float]]:
        """Return Eq. 2 for a batch (B, 3, S, S) with values 0 to 255; figures: the spread of the angles, degrees."""
        views = self.pose(self.aligner.view(images), self.rng)
        theta = self.aligner.turn(views)
        value = pixel_loss(warp(views, theta, padding=self.pose.padding), self.rng)
        return value, {"angle_spread": spread_of([theta])["angle_spread"]}


@dataclass(frozen=True)
class Weights:
    """lambda_1 and lambda_2 of Eq. 5; `summed`: Eq. 4 is a sum over positions, not their mean."""

    image: float = 1.0
    feature: float = 1.0
    summed: bool = False


class DenseAlignment(nn.Module):
    """Modules that FYD trains together (Eq. 5).

    Parameters
    ----------
    backbone : AlignedBackbone
        Backbone with the aligners that take part. An image aligner that is not trained takes no part in the loss.
    width : int
        Width of f and g.
    weights : Weights
        Weights of the two losses.
    pose : Pose
        Random pose applied to the images first; the paper: none.
    rng : torch.Generator
        Generator of pairs and poses.
    """

    def __init__(
        self, backbone: AlignedBackbone, *, width: int, weights: Weights, pose: Pose, rng: torch.Generator
    ) -> None:
        super().__init__()
        self.backbone, self.weights, self.pose, self.rng = backbone, weights, pose, rng
        self.fine = FineAlignment(backbone.maps[-1].channels, width)

    def loss(self, images: Tensor) -> tuple[Tensor, Mapping[str, float]]:
        """Return Eq. 5 for a batch (B, 3, S, S) with values 0 to 255.

        Returns
        -------
        Tensor
            Scalar loss.
        dict
            ``feature_loss`` (Eq. 4), ``image_loss`` (Eq. 2), ``z_deviation`` (the collapse watch, times the square root
            of the width: 1 while vectors point everywhere, 0 once they coincide) and the spread of the warps.
        """
        found = self.backbone(self.pose(images, self.rng))
        encoded, predicted = self.fine(found.last)
        pairing = derangement(len(images), self.rng).to(images.device)
        with without_autocast(images.device):
            value = non_contrastive_loss(predicted.float(), encoded.float(), pairing)
        figures = {
            "feature_loss": float(value.detach()),
            "z_deviation": float(unit_deviation(encoded)) * math.sqrt(encoded.shape[1]),
            **spread_of(found.thetas),
        }
        positions = encoded.shape[2] * encoded.shape[3] if self.weights.summed else 1
        value = self.weights.feature * positions * value
        aligner = self.backbone.image_aligner
        if aligner is not None and any(p.requires_grad for p in aligner.parameters()):
            pixels = pixel_loss(aligner.view(found.images), self.rng)
            figures["image_loss"] = float(pixels.detach())
            value = value + self.weights.image * pixels
        return value, figures


def pixel_loss(aligned: Tensor, rng: torch.Generator) -> Tensor:
    """Return Eq. 2 between images and the permuted batch, 0 to 255 in units of white, within the inscribed circle."""
    pairing = derangement(len(aligned), rng).to(aligned.device)
    return image_alignment_loss(aligned / 255, pairing, disc(aligned).expand(len(aligned), -1, -1))


def disc(images: Tensor) -> Tensor:
    """Return the inscribed circle, the part of a square that every rotation keeps, as ones: (h, w) float32."""
    y, x = ((torch.arange(side, device=images.device) + 0.5) * (2 / side) - 1 for side in images.shape[-2:])
    return (y.square()[:, None] + x.square()[None, :] <= 1).float()
