"""Losses of autoencoders as pure functions: squared error, structural similarity, entropy of addressing.

Equation numbers are those of PMB (Xing and Li, "Visual Anomaly Detection Via Partition Memory Bank Module and Error
Estimation") unless another paper is named. Images have values from 0 to 1; losses are computed in float32, under
autocast too.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from anomem.errors import ParameterError
from anomem.nn.precision import without_autocast

Kind = Literal["mse+ssim", "mse", "ssim"]
KINDS = ("mse+ssim", "mse", "ssim")

WINDOW = 11
SIGMA = 1.5
"""Side and deviation of Wang et al.'s Gaussian window for SSIM, pixels."""
_C1, _C2 = 0.01**2, 0.03**2
"""Wang et al.'s constants for values from 0 to 1."""


def squared_error(images: Tensor, reconstructed: Tensor) -> Tensor:
    """Return the mean squared error, Eq. 7.

    The paper prints a norm; as in its weighting against Eq. 8, which is a mean, the mean of the squares is taken.

    Parameters
    ----------
    images, reconstructed : Tensor, (B, C, H, W), floating

    Returns
    -------
    Tensor, ()
    """
    return (_full(images) - _full(reconstructed)).square().mean()


def structural_similarity(images: Tensor, reconstructed: Tensor, window: int = WINDOW, sigma: float = SIGMA) -> Tensor:
    """Return SSIM at every pixel of every channel (Wang et al., "Image quality assessment", IEEE TIP 2004).

    Moments are weighted by a Gaussian; at the border, by its part within the image, so that every pixel counts as
    Eq. 8 asks. Variances are those of the population.

    Parameters
    ----------
    images, reconstructed : Tensor, (B, C, H, W), floating
    window : int, odd
        Side of the window, pixels.
    sigma : float, > 0
        Standard deviation of the Gaussian, pixels.

    Returns
    -------
    Tensor, (B, C, H, W)
        From -1 to 1; 1 where both agree.

    Raises
    ------
    ParameterError
        If the window is not odd.
    """
    if window < 1 or window % 2 == 0:
        raise ParameterError(f"the window of SSIM must be odd, not {window}")
    with without_autocast(images.device):
        x, y = _full(images), _full(reconstructed)
        vertical = _blurring(x.shape[-2], window, sigma, x)
        horizontal = _blurring(x.shape[-1], window, sigma, x).T
        moments = torch.stack([x, y, x.square() + y.square(), x * y])
        # Products with banded matrices: on processors faster than convolutions of few channels.
        mean_x, mean_y, squares, product = vertical @ (moments.flatten(0, -2) @ horizontal).view(moments.shape)
        both = mean_x * mean_y
        energy = mean_x.square() + mean_y.square()
        luminance = (2 * both + _C1) / (energy + _C1)
        index: Tensor = luminance * (2 * (product - both) + _C2) / (squares - energy + _C2)
    return index


def dissimilarity(images: Tensor, reconstructed: Tensor, window: int = WINDOW) -> Tensor:
    """Return the mean of 1 - SSIM over pixels, channels and images, Eq. 8; arguments as for `structural_similarity`."""
    return 1 - structural_similarity(images, reconstructed, window).mean()


def reconstruction_loss(
    images: Tensor, reconstructed: Tensor, kind: Kind = "mse+ssim", ssim_weight: float = 0.1, window: int = WINDOW
) -> Tensor:
    """Return squared error + lambda_SSIM (1 - SSIM), Eq. 9, or one of the two alone.

    Parameters
    ----------
    images, reconstructed : Tensor, (B, C, H, W), floating, 0 to 1
    kind : {"mse+ssim", "mse", "ssim"}
        The second and third are the paper's AE-L2 and AE-SSIM.
    ssim_weight : float, >= 0
        lambda_SSIM.
    window : int, odd
        Side of SSIM's window, pixels.

    Returns
    -------
    Tensor, ()

    Raises
    ------
    ParameterError
        If ``kind`` is unknown.
    """
    if kind not in KINDS:
        raise ParameterError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    if kind == "mse":
        return squared_error(images, reconstructed)
    if kind == "ssim":
        return dissimilarity(images, reconstructed, window)
    return squared_error(images, reconstructed) + ssim_weight * dissimilarity(images, reconstructed, window)


def addressing_entropy(weights: Tensor) -> Tensor:
    """Return the entropy of a memory's weights, mean over queries (Gong et al., MemAE, ICCV 2019, Eq. 9).

    Parameters
    ----------
    weights : Tensor, (..., m), at least 0
        Weights of m items; each row sums to 1.

    Returns
    -------
    Tensor, ()
        Entropy from 0 (one item each) to log m.
    """
    full = _full(weights)
    negative: Tensor = torch.special.xlogy(full, full.clamp_min(1e-12)).sum(dim=-1).mean()
    return -negative


def _blurring(side: int, window: int, sigma: float, like: Tensor) -> Tensor:
    """Return the blur as a matrix (side, side): row i holds the weights of the window around pixel i, of sum 1."""
    positions = torch.arange(side, device=like.device, dtype=like.dtype)
    apart = (positions[:, None] - positions).abs()
    weights = torch.exp(-apart.square() / (2 * sigma**2)) * (apart <= window // 2)
    return weights / weights.sum(dim=1, keepdim=True)


def _full(values: Tensor) -> Tensor:
    """Convert half precision to float32; leave float32 and float64 as they are."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
