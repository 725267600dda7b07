"""Losses of classifiers of normals against their own perturbations: PLUME's and its predecessor PLAD's.

Equation numbers are those of PLUME (Hermary, Gaudilliere, Shabayek, Aouada, "Removing Geometric Bias in One-Class
Anomaly Detection with Adaptive Feature Perturbation", 2025). The paper writes y = 1 for normal, and so does its
classifier: a high logit is a normal sample, and the anomaly score of anomem is the logit's negative.

Shapes: N normal samples of a batch, each with one pseudo-anomaly; D values per sample; E values per embedding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from anomem.errors import ParameterError

Contrast = Literal["full", "mean", "none"]
Target = tuple[float, float]

PRINTED: Target = (1.0, 0.0)
"""Targets of alpha and beta in Eq. 1 that keep alpha * x + beta near x."""
REVERSED: Target = (0.0, 1.0)
"""Targets of the authors' code, which keep x + alpha (beta^T x) near x."""


def noise_constraint(alpha: Tensor, beta: Tensor, target: Target = REVERSED, *, summed: bool = False) -> Tensor:
    """Return the distance of alpha and beta from their targets, Eq. 1: ||alpha - target_0||^2 + ||beta - target_1||^2.

    As printed the targets are 1 and 0. With Eq. 2 this drives all columns of A - I along the vector of ones, so that
    every pseudo-anomaly lies in that one direction from its sample; the authors' code drives alpha to 0 and beta to 1,
    and directions stay free.

    Parameters
    ----------
    alpha, beta : Tensor, (N, D), floating
        Parameters of the perturbation per sample.
    target : (float, float)
        :data:`REVERSED` (default) or :data:`PRINTED`.
    summed : bool
        Sum over D as printed; the default takes the mean. A sum outweighs the classifier by a factor D.

    Returns
    -------
    Tensor, ()
        Mean over N.
    """
    squares = (alpha - target[0]).square() + (beta - target[1]).square()
    each = squares.sum(dim=1) if summed else squares.mean(dim=1)
    return each.mean()


def kl_divergence(mu: Tensor, log_variance: Tensor) -> Tensor:
    """Return the Kullback-Leibler divergence of each sample's latent distribution from N(0, I), Eq. 4.

    Parameters
    ----------
    mu, log_variance : Tensor, (N, L), floating
        Mean and log sigma^2.

    Returns
    -------
    Tensor, (N,)
        Sum over the latent dimensions, >= 0.
    """
    return 0.5 * (log_variance.exp() + mu.square() - 1 - log_variance).sum(dim=1)


def classification_loss(normal: Tensor, pseudo: Tensor) -> Tensor:
    """Return the classifier's binary cross entropy, Eq. 5, with target 1 for normals and 0 for pseudo-anomalies.

    Parameters
    ----------
    normal, pseudo : Tensor, (N,), floating
        Logits, high where the classifier predicts normal.

    Returns
    -------
    Tensor, ()
        Sum over the 2N samples divided by N, as Eq. 8 and the authors' code have it.
    """
    return F.softplus(-normal).mean() + F.softplus(pseudo).mean()


def contrastive_loss(normal: Tensor, pseudo: Tensor, temperature: float = 0.5) -> Tensor:
    """Return the contrast of normal embeddings with those of pseudo-anomalies, Eq. 7 with the similarity of Eq. 6.

    Every normal is an anchor; all other normals are its positives; its denominator holds all other normals and all
    pseudo-anomalies, s(z_i, z~_l) for every l. Pseudo-anomalies are never anchors.

    Parameters
    ----------
    normal, pseudo : Tensor, (N, E), floating
        Embeddings z and z~ of any length: similarity is cosine.
    temperature : float, > 0
        tau.

    Returns
    -------
    Tensor, ()
        Mean over N; 0 for N = 1, where there are no positives.

    Raises
    ------
    ParameterError
        If the temperature is not positive.
    """
    _check_temperature(temperature)
    n = len(normal)
    if n < 2:
        return normal.sum() * 0
    z, z_pseudo = F.normalize(normal, dim=1), F.normalize(pseudo, dim=1)
    itself = torch.eye(n, dtype=torch.bool, device=z.device)
    among = z @ z.T / temperature
    against = z @ z_pseudo.T / temperature
    denominators = torch.cat([among.masked_fill(itself, -math.inf), against], dim=1).logsumexp(dim=1)
    positives = among.masked_fill(itself, 0.0).sum(dim=1) / (n - 1)
    return (denominators - positives).mean()


def mean_contrastive_loss(normal: Tensor, pseudo: Tensor, temperature: float = 0.5) -> Tensor:
    """Return Eq. 7 with the two mean embeddings in place of all pairs: the row "Mean" of Table 1c.

    The equation is in a supplement; the authors' code has -log(exp s(z_i, mean z) / exp s(z_i, mean z~)) without the
    temperature, which Eq. 6 has and which is kept here.

    Parameters
    ----------
    normal, pseudo, temperature
        As for :func:`contrastive_loss`.

    Returns
    -------
    Tensor, ()
        Mean over N, between -2 / tau and 2 / tau.
    """
    _check_temperature(temperature)
    z = F.normalize(normal, dim=1)
    towards = z @ F.normalize(normal.mean(dim=0), dim=0)
    against = z @ F.normalize(pseudo.mean(dim=0), dim=0)
    return (against - towards).mean() / temperature


def contrast(kind: Contrast, normal: Tensor, pseudo: Tensor, temperature: float) -> Tensor:
    """Return the contrastive term of this kind; "none" is 0."""
    if kind == "full":
        return contrastive_loss(normal, pseudo, temperature)
    if kind == "mean":
        return mean_contrastive_loss(normal, pseudo, temperature)
    return normal.sum() * 0


@dataclass(frozen=True)
class Weights:
    """Weights of the terms of Eq. 8: lambda of the constraint, nu of the divergence, gamma of the contrast."""

    constraint: float = 5.0
    divergence: float = 1.0
    contrast: float = 1.0


def total_loss(
    classification: Tensor, constraint: Tensor, divergence: Tensor, contrast: Tensor, weights: Weights
) -> Tensor:
    """Sum the four terms, Eq. 8.

    Parameters
    ----------
    classification, constraint, divergence, contrast : Tensor, ()
        Means of Eq. 5, 1, 4 and 7 over the batch.
    weights : Weights
        lambda, nu, gamma.

    Returns
    -------
    Tensor, ()
    """
    return (
        classification + weights.constraint * constraint + weights.divergence * divergence + weights.contrast * contrast
    )


def _check_temperature(temperature: float) -> None:
    if not temperature > 0:
        raise ParameterError(f"temperature must be above 0, got {temperature}")
