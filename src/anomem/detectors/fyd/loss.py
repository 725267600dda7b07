"""FYD's losses: dense non-contrastive learning, image alignment, and compactness of a distribution."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from anomem.errors import ParameterError


def derangement(count: int, generator: torch.Generator) -> Tensor:
    """Draw a permutation of `count` places that leaves none where it is: (count,) int64, on the CPU.

    Raises
    ------
    ParameterError
        For fewer than two places: there is none.

    Notes
    -----
    Uniform over all such permutations: plain ones are drawn until one has no fixed point, 2.7 on average.
    """
    if count < 2:
        raise ParameterError(f"{count} images cannot be paired with others; a batch needs at least 2")
    places = torch.arange(count)
    while True:
        drawn = torch.randperm(count, generator=generator)
        if not bool((drawn == places).any()):
            return drawn


def negative_cosine(predicted: Tensor, target: Tensor) -> Tensor:
    """Return -cos between two maps at every position, averaged (Eq. 3, function D of Algorithm 1).

    Parameters
    ----------
    predicted, target : Tensor
        (B, C, h, w). No gradient reaches `target` (the stop-gradient of Eq. 4).

    Notes
    -----
    Along the channels, dim=1, as in Eq. 3: one vector per position. The pseudocode's dim=-1 would compare rows of the
    image, channel by channel.
    """
    return -F.cosine_similarity(predicted, target.detach(), dim=1).mean()


def non_contrastive_loss(predicted: Tensor, encoded: Tensor, pairing: Tensor) -> Tensor:
    """Return the symmetrised dense non-contrastive loss of a batch and the permuted batch (Eq. 4, Algorithm 1).

    Parameters
    ----------
    predicted : Tensor
        p = g(f(x)), (B, C, h, w).
    encoded : Tensor
        z = f(x), (B, C, h, w).
    pairing : Tensor
        Index of each image's partner, (B,) int64; see :func:`derangement`.

    Returns
    -------
    Tensor
        Scalar in [-1, 1]: D(p, z[pairing]) / 2 + D(p[pairing], z) / 2.

    Notes
    -----
    f and g commute with the permutation of the batch: they run once.
    """
    forth = negative_cosine(predicted, encoded[pairing])
    back = negative_cosine(predicted[pairing], encoded)
    return 0.5 * (forth + back)


def image_alignment_loss(aligned: Tensor, pairing: Tensor, weight: Tensor | None = None) -> Tensor:
    """Return the L2 distance of paired, aligned images (Eq. 2, Algorithm 2), averaged over pixels and pairs.

    Parameters
    ----------
    aligned : Tensor
        (B, C, h, w) images after their alignment.
    pairing : Tensor
        Index of each image's partner, (B,) int64.
    weight : Tensor, optional
        Weight (B, h, w) of each pixel of each image, 0 where padded; all 1 by default.

    Notes
    -----
    Eq. 2 sums; the mean differs from it by a constant factor only.
    """
    # The root has no slope at 0: a floor far below one grey level keeps the gradient finite.
    distances = (aligned - aligned[pairing]).square().sum(dim=1).add(1e-12).sqrt()
    if weight is None:
        return distances.mean()
    both = weight * weight[pairing]
    return (distances * both).sum() / both.sum().clamp_min(1.0)


def unit_deviation(encoded: Tensor) -> Tensor:
    """Return the standard deviation of unit-normalised vectors, averaged over channels; near 0 at collapse.

    Parameters
    ----------
    encoded : Tensor
        z, (B, C, h, w).

    Returns
    -------
    Tensor
        Scalar, over all positions of all images: near 1 / sqrt(C) while vectors point everywhere, 0 once they coincide
        (Chen and He, 2021, Section 4).
    """
    units = F.normalize(encoded.detach().float(), dim=1)
    return units.transpose(0, 1).flatten(1).std(dim=1, correction=0).mean()


def distance_variance(features: Tensor, *, ridge: float = 0.0, scale_free: bool = False) -> float:
    """Return the variance of normal images' distances to their centre (Eq. 8 to 10); lower is more compact.

    Parameters
    ----------
    features : Tensor
        (N, C, h, w) of normal images, aligned.
    ridge : float
        Ridge added to the diagonal of the covariance per position. With a fixed ridge the value depends on the scale of
        the features: smaller features have smaller distances, whatever their shape.
    scale_free : bool
        Make the ridge relative to the mean variance of the position's channels, so that multiplying the features
        by a number changes nothing; without a ridge the value is scale-free anyway.

    Returns
    -------
    float
        The mean over positions of the variance of D_nij over images. Eq. 11 is the mean of such values over categories.

    Raises
    ------
    ParameterError
        Without a ridge, when there are no more images than channels: every distance would be the same.
    """
    count, channels = features.shape[:2]
    if ridge == 0 and count <= channels + 1:
        raise ParameterError(
            f"{count} images do not determine {channels} channels' covariance; give a ridge, or {channels + 2} images"
        )
    vectors = features.double().flatten(2).permute(2, 0, 1)  # positions, images, channels
    centred = vectors - vectors.mean(dim=1, keepdim=True)
    covariance = centred.transpose(1, 2) @ centred / (count - 1)
    level = covariance.diagonal(dim1=1, dim2=2).mean(dim=1) if scale_free else torch.ones(len(vectors))
    eye = torch.eye(channels, dtype=torch.float64, device=features.device)
    added = ridge * level.to(covariance)[:, None, None] * eye
    solved = torch.linalg.solve(covariance + added, centred.transpose(1, 2)).transpose(1, 2)
    distances = (centred * solved).sum(dim=2).clamp_min(0).sqrt()
    return float(distances.var(dim=1, correction=0).mean())
