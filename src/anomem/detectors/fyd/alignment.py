"""Coarse alignment: small networks that predict the warp of an image or a feature map into a common frame.

A warp is a matrix theta (B, 2, 3) in the convention of spatial transformers (Eq. 1): from a place (x, y, 1) of the
result to the place of the source it is read from, both axes running from -1 to 1 over the image, edge to edge.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anomem.errors import ParameterError

Padding = Literal["reflection", "border", "zeros"]

VIEW_SIDE = 64
"""Maximum side, pixels, at which images are viewed and compared: fine structure has false minima."""

CENTRE_MOMENTUM = 0.1
"""Weight of a batch in the running mean of the numbers."""

FCA_BOUNDS = (math.pi / 6, 0.2, 0.2, 0.2, 0.2, 0.2)
"""Largest rotation (radians), log-scale along x and y, shear, and shift along x and y (1: half the map's side)."""


def identity(count: int, like: Tensor) -> Tensor:
    """Return `count` identity warps: (count, 2, 3) float32 on the device of `like`."""
    return torch.eye(2, 3, device=like.device).expand(count, 2, 3)


def rotation(angle: Tensor) -> Tensor:
    """Return warps that turn by `angle` (B,) radians: counter-clockwise as seen, rows running downwards."""
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    return torch.stack([torch.stack([cos, -sin, zero], dim=1), torch.stack([sin, cos, zero], dim=1)], dim=1)


def angle_of(theta: Tensor) -> Tensor:
    """Return the rotation angle (B,), in radians, of each warp (B, 2, 3)."""
    return torch.atan2(theta[:, 1, 0] - theta[:, 0, 1], theta[:, 0, 0] + theta[:, 1, 1])


def affine(numbers: Tensor) -> Tensor:
    """Return warps from (B, 6): angle, log-scale of x and y, shear, shift of x and y; zeros are the identity."""
    angle, log_x, log_y, shear, shift_x, shift_y = numbers.unbind(dim=1)
    rows = [(log_x.exp(), shear, shift_x), (torch.zeros_like(angle), log_y.exp(), shift_y)]
    return compose(rotation(angle), torch.stack([torch.stack(row, dim=1) for row in rows], dim=1))


def compose(first: Tensor, second: Tensor) -> Tensor:
    """Return the warp that equals warping by `first`, then the result by `second`: (B, 2, 3) each."""
    # Products written out: autocast would round those of matrices.
    linear = (first[:, :, :2, None] * second[:, None, :2, :2]).sum(dim=2)
    return torch.cat([linear, _applied(first, second[:, :, 2])[:, :, None]], dim=2)


def invert(theta: Tensor) -> Tensor:
    """Return the warp that undoes `theta` (B, 2, 3), whose linear part must not be singular."""
    a, b, c, d = theta[:, 0, 0], theta[:, 0, 1], theta[:, 1, 0], theta[:, 1, 1]
    rows = torch.stack([torch.stack([d, -b], dim=1), torch.stack([-c, a], dim=1)], dim=1)
    linear = rows / (a * d - b * c)[:, None, None]
    return torch.cat([linear, -(linear * theta[:, None, :, 2]).sum(dim=2, keepdim=True)], dim=2)


def _applied(theta: Tensor, point: Tensor) -> Tensor:
    """Return the place (B, 2) that a warp (B, 2, 3) reads for a place (B, 2)."""
    return (theta[:, :, :2] * point[:, None, :]).sum(dim=2) + theta[:, :, 2]


def places(theta: Tensor, hw: tuple[int, int]) -> Tensor:
    """Return the place read for each position of a result of size `hw`: (B, h, w, 2) as (x, y), float32."""
    y, x = ((torch.arange(side, dtype=torch.float32, device=theta.device) + 0.5) * (2 / side) - 1 for side in hw)
    across, down, start = theta.float()[:, None, None].unbind(dim=4)
    return across * x[None, None, :, None] + down * y[None, :, None, None] + start


def warp(maps: Tensor, theta: Tensor, *, padding: Padding = "reflection", hw: tuple[int, int] | None = None) -> Tensor:
    """Resample maps by `theta`, bilinearly.

    Parameters
    ----------
    maps : Tensor
        (B, C, h, w).
    theta : Tensor
        (B, 2, 3).
    padding : {"reflection", "border", "zeros"}
        Content beyond the edge. Zeros are for weights, not for training: a network that may look past the
        edge learns to zoom out until all images look alike.
    hw : tuple of int, optional
        Size of the result; by default that of `maps`.

    Returns
    -------
    Tensor
        (B, C, H, W) float32; see :func:`in_frame` for which positions show the maps' own content.
    """
    grid = places(theta, (maps.shape[2], maps.shape[3]) if hw is None else hw)
    return F.grid_sample(maps.float(), grid, padding_mode=padding, align_corners=False)


def in_frame(theta: Tensor, hw: tuple[int, int]) -> Tensor:
    """Return 1 where a warp by `theta` reads inside its source, 0 where it pads: (B, h, w) float32."""
    return (places(theta, hw).abs().amax(dim=3) <= 1).float()


class Localiser(nn.Module):
    """Two convolutions and two fully-connected layers: a map to some numbers, initially zero.

    Parameters
    ----------
    channels : int
        C of its input.
    hw : tuple of int
        Height and width of its input, at least 4 each.
    outputs : int
        Number of outputs.
    hidden : int
        Width between the fully-connected layers.
    max_grid : int
        Maximum side of the input, positions, after averaging down, so that 14 x 14 of them reach the
        fully-connected layers.

    Notes
    -----
    Conv 3x3 to 64, batch norm, ReLU, max-pool; conv 3x3 to 16, batch norm, ReLU, max-pool; flatten; two layers.
    """

    def __init__(
        self, channels: int, hw: tuple[int, int], outputs: int, *, hidden: int = 128, max_grid: int = 56
    ) -> None:
        super().__init__()
        if min(hw) < 4:
            raise ParameterError(f"a map of {hw[0]} x {hw[1]} is too small to be aligned; take a larger size")
        self.shrink = max(1, -(-max(hw) // max_grid))
        height, width = ((side // self.shrink) // 4 for side in hw)
        self.look = nn.Sequential(
            nn.Conv2d(channels, 64, 3, padding=1, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Conv2d(64, 16, 3, padding=1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
        )
        self.hidden = nn.Linear(16 * height * width, hidden)
        self.last = nn.Linear(hidden, outputs)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, maps: Tensor) -> Tensor:
        """Predict numbers of maps: (B, C, h, w) to (B, outputs) float32."""
        if self.shrink > 1:
            maps = F.avg_pool2d(maps, self.shrink)
        seen = self.look(maps).flatten(1)
        predicted: Tensor = self.last(self.hidden(seen).relu())
        return predicted.float()


class ImageAligner(nn.Module):
    """ICA: one rotation angle per image (Supplement, Fig. 4).

    Parameters
    ----------
    size : int
        Side of the images, pixels.
    max_angle : float
        Largest rotation either way, radians.
    vector : bool
        Predict a direction in the plane and take its angle (it can follow an object
        all the way round), instead of the angle itself (the paper; a continuous function of the image that cannot).
    hidden : int
        As for :class:`Localiser`.

    Notes
    -----
    The images are averaged down to at most :data:`VIEW_SIDE` pixels a side first: 56 for images of 224, so that 14 x 14
    positions reach the fully-connected layers.
    """

    direction: Tensor

    def __init__(self, size: int, *, max_angle: float = math.pi, vector: bool = True, hidden: int = 128) -> None:
        super().__init__()
        self.max_angle, self.vector, self.shrink = max_angle, vector, -(-size // VIEW_SIDE)
        side = size // self.shrink
        self.localiser = Localiser(3, (side, side), 2 if vector else 1, hidden=hidden)
        self.register_buffer("direction", torch.tensor([1.0, 0.0]))

    def view(self, images: Tensor) -> Tensor:
        """Return the network's view of images (B, 3, S, S): averaged down, float32, values as they were."""
        return F.avg_pool2d(images.float(), self.shrink) if self.shrink > 1 else images.float()

    def turn(self, views: Tensor) -> Tensor:
        """Return warps (B, 2, 3) that turn each view, values 0 to 255, into the common direction."""
        numbers = self.localiser(views / 127.5 - 1)
        if not self.vector:
            return rotation(self.max_angle * torch.tanh(numbers[:, 0] / self.max_angle))
        # (1, 0) is no rotation: the output of the last layer turns away from there.
        x, y = F.normalize(torch.stack([1 + numbers[:, 0], numbers[:, 1]], dim=1), dim=1).unbind(dim=1)
        cos, sin = self.direction
        x, y = x * cos + y * sin, y * cos - x * sin
        if self.max_angle < math.pi:
            return rotation(self.max_angle * torch.tanh(torch.atan2(y, x) / self.max_angle))
        zero = torch.zeros_like(x)
        return torch.stack([torch.stack([x, -y, zero], dim=1), torch.stack([y, x, zero], dim=1)], dim=1)

    def forward(self, images: Tensor) -> Tensor:
        """Return warps (B, 2, 3) that turn each image (B, 3, S, S), values 0 to 255, into the common direction."""
        return self.turn(self.view(images))

    def angle(self, images: Tensor) -> Tensor:
        """Return angles (B,), float32 in radians, by which images are turned counter-clockwise."""
        return angle_of(self(images))

    def centre(self, thetas: Tensor) -> None:
        """Choose the common direction, which no loss determines, so that images are turned as little as possible.

        Parameters
        ----------
        thetas : Tensor
            Warps (N, 2, 3) by which this aligner turns normal images. Large rotations move corners out of
            the frame, and padding in. Where they fall into two groups half a turn apart, their common axis counts.
        """
        if not self.vector:
            return
        angles = angle_of(thetas.detach().float())
        means = [torch.stack([(k * angles).cos().mean(), (k * angles).sin().mean()]) for k in (1, 2)]
        k = 1 if means[0].norm() >= means[1].norm() else 2
        surplus = torch.atan2(means[k - 1][1], means[k - 1][0]) / k
        self.direction = rotation(surplus[None])[0, :, :2] @ self.direction


class FeatureAligner(nn.Module):
    """FCA: six affine numbers per feature map.

    Parameters
    ----------
    channels : int
        C of the maps.
    hw : tuple of int
        Their height and width.
    bounds : sequence of float or None
        Largest absolute value of each number, in the order of :func:`affine`; None: the six numbers are added to the
        identity matrix as they are.
    centred : bool
        Take the numbers relative to their mean over the batch, in evaluation mode its running mean. The part of a warp
        shared by all images aligns nothing; left free, it drifts towards places where images look alike by
        themselves, such as an enlarged middle, and loses the rest.
    hidden : int
        As for :class:`Localiser`.
    """

    centre: Tensor

    def __init__(
        self,
        channels: int,
        hw: tuple[int, int],
        *,
        bounds: Sequence[float] | None = FCA_BOUNDS,
        centred: bool = True,
        hidden: int = 128,
    ) -> None:
        super().__init__()
        self.bounds, self.centred = None if bounds is None else tuple(bounds), centred
        self.localiser = Localiser(channels, hw, 6, hidden=hidden)
        self.register_buffer("centre", torch.zeros(6))

    def forward(self, maps: Tensor) -> Tensor:
        """Return warps (B, 2, 3) that bring each map (B, C, h, w) into the common frame."""
        numbers = self.localiser(maps)
        if self.centred:
            numbers = numbers - self._centre(numbers)
        if self.bounds is None:
            free: Tensor = numbers.view(-1, 2, 3) + identity(numbers.shape[0], numbers)
            return free
        limits = torch.tensor(self.bounds, device=numbers.device)
        return affine(limits * torch.tanh(numbers / limits))

    def _centre(self, numbers: Tensor) -> Tensor:
        if not self.training:
            return self.centre
        mean = numbers.mean(dim=0)
        self.centre.lerp_(mean.detach(), CENTRE_MOMENTUM)
        return mean
