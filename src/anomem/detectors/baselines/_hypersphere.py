"""Networks without biases for hypersphere objectives, and the autoencoders that pretrain them.

With biases, or with activations that saturate, one constant output would bring every image to the centre (Ruff et al.,
"Deep One-Class Classification", ICML 2018, Propositions 2 and 3). Here layers have none, batch normalisation has no
learnt shift, and the activation is a leaky ReLU.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from anomem.errors import ParameterError
from anomem.nn.precision import without_autocast

SLOPE = 0.1
"""Slope of the leaky ReLU below 0."""
LEAST_SIDE = 4
"""Side of the convolutional encoder's last map, positions."""


class Hypersphere(nn.Module):
    """Encoder and centre: score by the distance of outputs from the centre.

    Parameters
    ----------
    encoder : Module
        Network from inputs to (B, D).
    dim : int
        Number of outputs, D.
    """

    centre: Tensor

    def __init__(self, encoder: nn.Module, dim: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.register_buffer("centre", torch.zeros(dim))

    def forward(self, inputs: Tensor) -> Tensor:
        """Return Euclidean distances of the outputs to the centre, (B,) float32: s(x) of Deep SAD."""
        return squared_distance(self.encoder(inputs), self.centre).sqrt()


class Autoencoder(nn.Module):
    """Encoder with a decoder that reconstructs its input."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def forward(self, inputs: Tensor) -> Tensor:
        """Reconstruct the inputs."""
        return self.decoder(self.encoder(inputs))  # type: ignore[no-any-return]


def dense(dims: list[int]) -> nn.Sequential:
    """Return layers from dims[0] to dims[-1] values, with leaky ReLUs between them."""
    layers: list[nn.Module] = []
    for before, after in pairwise(dims):
        layers += [nn.Linear(before, after, bias=False), nn.LeakyReLU(SLOPE)]
    return nn.Sequential(*layers[:-1])


def lenet_encoder(size: int, dim: int) -> nn.Sequential:
    """Return a convolutional encoder of (B, 3, size, size) images; at 32 px Ruff et al.'s LeNet for CIFAR-10.

    Each block (5x5 convolution, batch normalisation, leaky ReLU, maximum of 2x2) halves the side until it is 4.

    Raises
    ------
    ParameterError
        For a size that does not halve down to 4 pixels.
    """
    channels = _channels(size)
    layers: list[nn.Module] = []
    for before, after in pairwise([3, *channels]):
        layers += [_convolution(before, after), _normalisation(after), nn.LeakyReLU(SLOPE), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels[-1] * LEAST_SIDE**2, dim, bias=False))


def lenet_decoder(size: int, dim: int) -> nn.Sequential:
    """Return the mirror image of :func:`lenet_encoder`: (B, dim) to (B, 3, size, size)."""
    channels = _channels(size)[::-1]
    layers: list[nn.Module] = [
        nn.Linear(dim, channels[0] * LEAST_SIDE**2, bias=False),
        nn.Unflatten(1, (channels[0], LEAST_SIDE, LEAST_SIDE)),
    ]
    for before, after in pairwise([*channels, channels[-1]]):
        layers += [_normalisation(before), nn.LeakyReLU(SLOPE), nn.Upsample(scale_factor=2)]
        layers.append(_convolution(before, after))
    return nn.Sequential(*layers, _normalisation(channels[-1]), nn.LeakyReLU(SLOPE), _convolution(channels[-1], 3))


@torch.no_grad()
def draw_weights(module: nn.Module, rng: torch.Generator) -> None:
    """Draw the weights of dense and convolutional layers (Glorot and Bengio 2010) from `rng`; biases become 0."""
    gain = nn.init.calculate_gain("leaky_relu", SLOPE)
    for layer in module.modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            nn.init.xavier_uniform_(layer.weight, gain, generator=rng)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def _channels(size: int) -> list[int]:
    """Return output channels per block."""
    blocks = (size // LEAST_SIDE).bit_length() - 1
    if blocks < 1 or size != LEAST_SIDE * 2**blocks:
        raise ParameterError(f"size={size} does not halve down to {LEAST_SIDE} px for lenet; take 32, 64, 128 or 256")
    return [min(32 * 2**b, 128) for b in range(blocks)]


def _convolution(before: int, after: int) -> nn.Conv2d:
    return nn.Conv2d(before, after, 5, padding=2, bias=False)


def _normalisation(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-4, affine=False)


EPSILON = 1e-6
"""Constant added to a squared distance before its reciprocal, as in the authors' code."""


def squared_distance(outputs: Tensor, centre: Tensor) -> Tensor:
    """Return squared Euclidean distances of (B, D) outputs to the centre (D,): (B,) float32 or wider."""
    with without_autocast(outputs.device):
        wide = outputs if outputs.dtype == torch.float64 else outputs.float()
        return (wide - centre).square().sum(dim=1)


def deep_sad(outputs: Tensor, centre: Tensor, anomalous: Tensor, *, eta: float = 1.0) -> Tensor:
    """Return the batch mean of d for normal or unlabelled images and of eta / (d + 1e-6) for labelled anomalies.

    Parameters
    ----------
    outputs : Tensor
        Outputs (B, D) of the network for the images.
    centre : Tensor
        Centre c, (D,); fixed.
    anomalous : Tensor
        Labelled anomalies, (B,) bool.
    eta : float, > 0
        Weight of the labelled anomalies.

    Returns
    -------
    Tensor, ()
        d is the squared Euclidean distance to the centre. Without anomalies this is the one-class Deep SVDD objective.

    Raises
    ------
    ParameterError
        If eta is not positive.
    """
    if not eta > 0:
        raise ParameterError(f"eta must be above 0, got {eta}")
    distance = squared_distance(outputs, centre)
    return torch.where(anomalous, eta / (distance + EPSILON), distance).mean()


@torch.no_grad()
def hypersphere_centre(outputs: Tensor, *, floor: float = 0.1) -> Tensor:
    """Return c, the mean (D,) of (N, D) outputs, no coordinate nearer to 0 than `floor`; one at 0 goes to +floor.

    A network without biases maps to 0 with all weights 0: a centre away from 0 keeps that from being a solution.
    """
    mean = outputs.mean(dim=0)
    away = torch.where(mean < 0, -floor, floor).to(mean.dtype)
    return torch.where(mean.abs() < floor, away, mean)
