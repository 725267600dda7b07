"""Histogram error estimation: what of a reconstruction error every pixel has (Sec. III-C of PMB)."""

from __future__ import annotations

import torch
from torch import Tensor


def unavoidable_error(error: Tensor, share: float) -> Tensor:
    """mu: the mean of the smallest errors of an image, which the reconstruction makes on normal pixels too.

    Parameters
    ----------
    error : Tensor, (B, H, W)
        A = |X - X_R| of each pixel, at least 0.
    share : float, from 0 to 1
        delta_H: how many of the pixels count. 0: mu is 0.

    Returns
    -------
    Tensor, (B,)

    Examples
    --------
    >>> unavoidable_error(torch.tensor([[[1.0, 3.0], [2.0, 9.0]]]), 0.5)
    tensor([1.5000])
    """
    flat = error.flatten(1)
    count = round(share * flat.shape[1])
    if count == 0:
        return torch.zeros_like(flat[:, 0])
    return flat.topk(count, dim=1, largest=False, sorted=False).values.mean(dim=1)


def corrected_error(images: Tensor, reconstructed: Tensor, share: float) -> Tensor:
    """A': absolute error, mean over channels, without what is unavoidable (Eq. 1 and 6).

    Parameters
    ----------
    images, reconstructed : Tensor, (B, C, H, W), float32
        X and X_R.
    share : float, from 0 to 1
        delta_H.

    Returns
    -------
    Tensor, (B, H, W), at least 0
        Its sum is the anomaly score.
    """
    error = (images - reconstructed).abs().mean(dim=1)
    return (error - unavoidable_error(error, share)[:, None, None]).clamp_min(0)
