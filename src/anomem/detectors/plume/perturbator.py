"""Variational perturbators: networks that predict, per sample, the change of a normal sample into a pseudo-anomaly.

Equation numbers are those of PLUME (Hermary et al., 2025). PLAD (Cai and Fan, "Perturbation Learning Based Anomaly
Detection", NeurIPS 2022) has the same generator and perturbs by alpha * x + beta.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn


class Perturbation(NamedTuple):
    """Outputs of a perturbator for a batch.

    Parameters
    ----------
    alpha, beta : Tensor
        (N, D) parameters of the perturbation.
    mu, log_variance : Tensor
        (N, L) latent distributions that they were drawn from.
    """

    alpha: Tensor
    beta: Tensor
    mu: Tensor
    log_variance: Tensor


class Perturbator(nn.Module):
    """Variational auto-encoder (Kingma and Welling 2014) whose decoder gives alpha and beta instead of x.

    D -> W, LeakyReLU -> (mu, log sigma^2) in R^L; a draw from N(mu, sigma^2) -> W, LeakyReLU -> 2D = (alpha, beta).

    Parameters
    ----------
    dim : int
        D, values per sample.
    width : int or None
        W and L; None: D, as in PLUME.
    start : (float, float) or None
        Initial alpha and beta: the decoder's random last layer is scaled to a hundredth, around these. None:
        at random, as in PLUME.
    """

    def __init__(self, dim: int, width: int | None = None, start: tuple[float, float] | None = None) -> None:
        super().__init__()
        width = dim if width is None else width
        self.encoder = nn.Sequential(nn.Linear(dim, width), nn.LeakyReLU())
        self.mu = nn.Linear(width, width)
        self.log_variance = nn.Linear(width, width)
        last = nn.Linear(width, 2 * dim)
        self.decoder = nn.Sequential(nn.Linear(width, width), nn.LeakyReLU(), last)
        if start is not None:
            with torch.no_grad():
                last.weight.mul_(0.01)
                last.bias.mul_(0.01).add_(torch.tensor(start).repeat_interleave(dim))

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log variance of each sample's latent distribution: (N, D) to two (N, L)."""
        hidden = self.encoder(x)
        return self.mu(hidden), self.log_variance(hidden)

    def decode(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        """Return alpha and beta, (N, D) each, of latent vectors (N, L)."""
        alpha, beta = self.decoder(latent).chunk(2, dim=1)
        return alpha, beta

    def forward(self, x: Tensor, rng: torch.Generator) -> Perturbation:
        """Draw a perturbation per sample.

        Parameters
        ----------
        x : Tensor
            (N, D) floating.
        rng : torch.Generator
            CPU generator, so that the draw is the same on every device.
        """
        mu, log_variance = self.encode(x)
        noise = torch.randn(mu.shape, generator=rng).to(mu)
        alpha, beta = self.decode(mu + noise * (0.5 * log_variance).exp())
        return Perturbation(alpha, beta, mu, log_variance)

    @torch.no_grad()
    def adaptivity(self, x: Tensor, rng: torch.Generator) -> float:
        """Return how far the decoder's alpha depends on x: the share of its variance that the samples explain, 0 to 1.

        Parameters
        ----------
        x : Tensor
            (N, D), at least two samples.
        rng : torch.Generator
            Generator of the draws that the share is measured against.

        Notes
        -----
        The variance over samples of alpha at the latent mean, over that plus the variance which the draw adds. A
        generator whose divergence (Eq. 4) has fallen to 0 gives 0: it perturbs every sample alike.
        """
        central = self.decode(self.encode(x)[0])[0]
        drawn = self(x, rng).alpha
        between = central.var(dim=0).sum()
        within = (drawn - central).square().mean(dim=0).sum()
        return float(between / (between + within).clamp_min(torch.finfo(x.dtype).tiny))


def draw_likelihood(
    alpha: Tensor, beta: Tensor, constraint_weight: float, rng: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw alpha and beta around the decoder's output, (N, D) each.

    A decoder whose output is held to a target by lambda times the squared difference (Eq. 1) is one with a Gaussian
    likelihood of variance 1 / (2 lambda). Taken at its mean it becomes a constant once the constraint is met, and a
    linear map the identity; drawn from, perturbations keep a size that lambda sets, in all directions.

    Parameters
    ----------
    alpha, beta : Tensor
        (N, D) floating, the decoder's means.
    constraint_weight : float, > 0
        lambda.
    rng : torch.Generator
        On the CPU.
    """
    std = (2 * constraint_weight) ** -0.5
    return gaussian(alpha, std, rng), gaussian(beta, std, rng)


def linear_map(x: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    """Apply A = I + alpha beta^T to each sample (Eq. 2, 3), (N, D), as x + alpha (beta^T x): no D x D matrix."""
    return x + alpha * (beta * x).sum(dim=1, keepdim=True)


def add_mult(x: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    """Apply PLAD's multiplicative and additive noise, alpha * x + beta, (N, D)."""
    return alpha * x + beta


def gaussian(x: Tensor, std: float, rng: torch.Generator) -> Tensor:
    """Add Gaussian noise that is independent of the sample, (N, D): the row "Gaussian" of Table 1c."""
    return x + std * torch.randn(x.shape, generator=rng).to(x)


def relative_size(x: Tensor, perturbed: Tensor) -> Tensor:
    """Return ||x~ - x|| / ||x|| per sample, (N,)."""
    moved = (perturbed - x).norm(dim=1)
    relative: Tensor = moved / x.norm(dim=1).clamp_min(torch.finfo(x.dtype).tiny)
    return relative
