"""U-Net-like autoencoder whose connections pass features on, read them from a memory, or are missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anomem.errors import ParameterError

Activation = Literal["relu", "leaky"]
LEAK = 0.2
"""Slope of a leaky rectifier below zero."""


class Autoencoder(nn.Module):
    """Encoder and decoder of L levels, each half as fine as the one before (Ronneberger et al., "U-Net", 2015).

    A level is two 3x3 convolutions, each with batch normalisation and ReLU; 2x2 maximum pooling leads down, a
    transposed 2x2 convolution up, a 1x1 convolution to the image.

    Parameters
    ----------
    widths : sequence of int
        Channels per level, full resolution first; its length is L.
    links : mapping of int to Module
        Module between encoder and decoder per level (from 0): the identity for a skip connection, a memory for its
        reads. Its output is concatenated with the decoder's map from below. A level without a module has no connection.
        The deepest level must have one: the decoder begins there.
    channels : int
        Channels of the images.
    carried : sequence of int or None
        Channels that each level's link returns; None: those of the level.
    activation : {"relu", "leaky"}
        Rectifier behind each convolution; leaky: of slope 0.2 below zero, so that no channel dies.

    Raises
    ------
    ParameterError
        If there is no width, or the deepest level has no link.

    Examples
    --------
    >>> plain = Autoencoder((4, 8), {1: nn.Identity()}).eval()
    >>> plain(torch.zeros(1, 3, 16, 16)).shape
    torch.Size([1, 3, 16, 16])
    """

    def __init__(
        self,
        widths: Sequence[int],
        links: Mapping[int, nn.Module],
        channels: int = 3,
        *,
        carried: Sequence[int] | None = None,
        activation: Activation = "relu",
    ) -> None:
        super().__init__()
        if not widths or len(widths) - 1 not in links:
            raise ParameterError("autoencoder: a level has no width, or the deepest no connection; give both")
        deepest = len(widths) - 1
        given = tuple(widths) if carried is None else tuple(carried)
        entering = [*widths[:-1], given[-1]]
        self.links = nn.ModuleDict({str(level): links[level] for level in sorted(links)})
        self.down = nn.ModuleList(_stage(a, b, activation) for a, b in pairwise((channels, *widths)))
        self.up = nn.ModuleList(nn.ConvTranspose2d(entering[i + 1], widths[i], 2, stride=2) for i in range(deepest))
        self.merge = nn.ModuleList(
            _stage(widths[i] + (given[i] if i in links else 0), widths[i], activation) for i in range(deepest)
        )
        self.last = nn.Conv2d(widths[0] if deepest else given[0], channels, 1)

    def encode(self, images: Tensor) -> list[Tensor]:
        """Return F_1 to F_L of images (B, 3, S, S): L feature maps (B, C_l, S / 2^(l-1), S / 2^(l-1))."""
        maps: list[Tensor] = []
        for stage in self.down:
            maps.append(stage(F.max_pool2d(maps[-1], 2) if maps else images))
        return maps

    def decode(self, passed: Sequence[Tensor | None]) -> Tensor:
        """Decode what each level passes on (None where nothing) to images (B, 3, S, S)."""
        found = passed[-1]
        if found is None:
            raise ParameterError("the deepest level passes nothing on; give it a connection")
        for level in reversed(range(len(self.up))):
            above, risen = passed[level], self.up[level](found)
            found = self.merge[level](risen if above is None else torch.cat([above, risen], dim=1))
        image: Tensor = self.last(found)
        return image

    def forward(self, images: Tensor) -> Tensor:
        """Reconstruct images (B, 3, S, S); not bounded to their range."""
        maps = self.encode(images)
        passed = [self.links[str(i)](m) if str(i) in self.links else None for i, m in enumerate(maps)]
        return self.decode(passed)


def _stage(channels: int, width: int, activation: Activation) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs in (channels, width):
        layers += [nn.Conv2d(inputs, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), _rectifier(activation)]
    return nn.Sequential(*layers)


def _rectifier(activation: Activation) -> nn.Module:
    return nn.ReLU(inplace=True) if activation == "relu" else nn.LeakyReLU(LEAK, inplace=True)
