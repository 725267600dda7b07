"""k-means for seeding memories: bounded in time and memory, deterministic for a seeded generator."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from anomem.errors import InputError, ParameterError
from anomem.nn.nearest import largest

_CHUNK_ELEMENTS = 2**21
"""Number of elements of a distance matrix held at once (8 MB in float32)."""

_MIN_CANDIDATES = 16_384
_CANDIDATES_PER_CENTRE = 16
"""Number of vectors, at least and per centre, that seeding draws from at most."""

_SEEDING_ROUNDS = 128
"""Maximum k for which centres are drawn one by one; above it, k/128 at a time."""

_RELATIVE_GAIN = 1e-4
"""Relative fall of the inertia below which Lloyd's algorithm ends early."""


@torch.no_grad()
def kmeans(vectors: Tensor, k: int, generator: torch.Generator, iterations: int = 10) -> Tensor:
    """Find k centres of some vectors: k-means++ seeding, then Lloyd's algorithm.

    Time is of the order of iterations * M * k * C. Up to k = 128 each centre is the best of
    2 + ln k draws (greedy k-means++); above, k/128 centres are drawn at a time, with probability
    proportional to the squared distance from all earlier rounds. A cluster left empty takes over one
    of the vectors farthest from their centres.

    Parameters
    ----------
    vectors : Tensor, (M, C), floating
        Finite vectors; half precision is computed in float32.
    k : int, from 1 to M
        Number of centres.
    generator : torch.Generator
        CPU generator; the only source of randomness.
    iterations : int, >= 0
        Maximum number of Lloyd updates; fewer when the inertia no longer falls.

    Returns
    -------
    Tensor, (k, C)
        Centres on the vectors' device, float32 (float64 for float64 vectors).

    Raises
    ------
    InputError
        If there are fewer vectors than centres, or one is not finite.
    ParameterError
        If k or iterations is out of range.

    References
    ----------
    Arthur and Vassilvitskii, "k-means++", SODA 2007; Bahmani et al., "Scalable k-means++", VLDB 2012.

    Examples
    --------
    >>> line = torch.tensor([[0.0], [0.2], [10.0], [10.2]])
    >>> kmeans(line, 2, torch.Generator().manual_seed(0)).sort(dim=0).values
    tensor([[ 0.1000],
            [10.1000]])
    """
    _check_arguments(vectors, k, iterations)
    if vectors.dtype in (torch.float16, torch.bfloat16):
        vectors = vectors.float()
    # Around their mean, ||v||^2 - 2 v.c + ||c||^2 loses fewer digits.
    origin = vectors.mean(dim=0)
    centred = vectors - origin
    squared_norms = centred.square().sum(dim=1)
    centres = _plus_plus(centred, squared_norms, k, generator)
    inertia = float("inf")
    for _ in range(iterations):
        assigned, distances = _assign(centred, squared_norms, centres)
        before, inertia = inertia, float(distances.sum(dtype=torch.float64))
        if before - inertia <= _RELATIVE_GAIN * inertia:
            break
        centres = _means(centred, assigned, distances, k)
    return centres + origin


def _plus_plus(centred: Tensor, squared_norms: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """Draw k centres, (M, C) to (k, C), in proportion to the squared distance from those drawn before."""
    n_candidates = max(_MIN_CANDIDATES, _CANDIDATES_PER_CENTRE * k)
    if len(centred) > n_candidates:
        kept = torch.randperm(len(centred), generator=generator)[:n_candidates].to(centred.device)
        centred, squared_norms = centred[kept], squared_norms[kept]
    per_round = -(-k // _SEEDING_ROUNDS)
    drawn = torch.randint(len(centred), (1,), generator=generator).to(centred.device)
    chosen = [drawn]
    distances = torch.full_like(squared_norms, float("inf"))
    n_chosen = 1
    while n_chosen < k:
        _, nearest = _assign(centred, squared_norms, centred[drawn])
        # A drawn vector is excluded for good (-1), even where all other distances are zero.
        distances = torch.minimum(distances, nearest)
        distances[drawn] = -1
        if per_round == 1:
            n_trials = min(2 + int(math.log(k)), len(centred) - n_chosen)
            drawn = _best(centred, distances, _draw(distances, n_trials, generator))
        else:
            drawn = _draw(distances, min(per_round, k - n_chosen), generator)
        chosen.append(drawn)
        n_chosen += len(drawn)
    return centred[torch.cat(chosen)]


def _draw(weights: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Draw without replacement, in proportion to the weights: largest weight / Exp(1) first."""
    waits = torch.empty(len(weights)).exponential_(generator=generator)
    return (weights / waits.to(weights)).topk(count).indices


def _best(centred: Tensor, distances: Tensor, trials: Tensor) -> Tensor:
    """Keep the trial (1,) that leaves the smallest sum of distances (greedy k-means++)."""
    to_trials = torch.cdist(centred, centred[trials]).square()
    left = torch.minimum(to_trials, distances.clamp_min(0)[:, None]).sum(dim=0)
    return trials[left.argmin()][None]


def _assign(centred: Tensor, squared_norms: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """Return the nearest centre of each vector (M,) int64, and the squared distance to it (M,), >= 0."""
    bias = -0.5 * centres.square().sum(dim=1)
    step = max(1, _CHUNK_ELEMENTS // len(centres))
    assigned = torch.empty(len(centred), dtype=torch.int64, device=centred.device)
    nearness = torch.empty_like(squared_norms)
    for start in range(0, len(centred), step):
        part = slice(start, start + step)
        nearness[part], assigned[part] = largest(torch.addmm(bias, centred[part], centres.T))
    return assigned, (squared_norms - 2 * nearness).clamp_min_(0)


def _means(centred: Tensor, assigned: Tensor, distances: Tensor, k: int) -> Tensor:
    counts = torch.bincount(assigned, minlength=k)
    sums = centred.new_zeros(k, centred.shape[1]).index_add_(0, assigned, centred)
    means = sums / counts.clamp_min(1).to(sums)[:, None]
    empty = (counts == 0).nonzero().squeeze(1)
    if len(empty):
        means[empty] = centred[distances.topk(len(empty)).indices]
    return means


def _check_arguments(vectors: Tensor, k: int, iterations: int) -> None:
    if k < 1:
        raise ParameterError(f"k must be at least 1, got {k}")
    if iterations < 0:
        raise ParameterError(f"iterations must be at least 0, got {iterations}")
    if len(vectors) < k:
        raise InputError(
            f"feature vectors: {len(vectors)} cannot make {k} prototypes; give more images or a smaller memory"
        )
    if not bool(torch.isfinite(vectors).all()):
        raise InputError("feature vectors: NaN or infinity found; check the images and the backbone")
