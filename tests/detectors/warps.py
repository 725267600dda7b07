"""Pictures and warps for the tests of FYD's alignment."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor

from anomem.detectors.fyd.alignment import FCA_BOUNDS, affine, places

numbers = st.lists(st.floats(-0.5, 0.5), min_size=6, max_size=6)
"""Six affine numbers."""


def generator(seed: int = 0) -> torch.Generator:
    """A seeded generator."""
    return torch.Generator().manual_seed(seed)


def smooth(count: int = 2, side: int = 64, seed: int = 0) -> Tensor:
    """Pictures without fine structure, so that resampling loses next to nothing."""
    coarse = torch.rand(count, 3, 6, 6, generator=generator(seed)) * 255
    return F.interpolate(coarse, (side, side), mode="bicubic", align_corners=True)


def thetas(count: int, seed: int, strength: float = 1.0) -> Tensor:
    """Random warps within `strength` times the bounds of feature aligners."""
    limits = strength * torch.tensor(FCA_BOUNDS)
    return affine(limits * (2 * torch.rand(count, 6, generator=generator(seed)) - 1))


def well_inside(theta: Tensor) -> Tensor:
    """1 where a warp of 64 x 64 pixels reads at least two of them away from the edge."""
    return (places(theta, (64, 64)).abs().amax(dim=3) < 1 - 4 / 64).float()
