"""Perturbation losses against their equations, sample by sample."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from anomem.detectors.plume.loss import (
    PRINTED,
    REVERSED,
    Weights,
    classification_loss,
    contrast,
    contrastive_loss,
    kl_divergence,
    mean_contrastive_loss,
    noise_constraint,
    total_loss,
)
from anomem.errors import ParameterError


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cosine(a: Tensor, b: Tensor) -> float:
    return float(a @ b / (a.norm() * b.norm()))


@pytest.mark.parametrize("summed", [False, True])
@pytest.mark.parametrize("target", [PRINTED, REVERSED])
def test_constraint_is_eq_1(target: tuple[float, float], summed: bool) -> None:
    alpha, beta = random(5, 7), random(5, 7, seed=1)
    total = 0.0
    for i in range(5):
        squares = [(float(alpha[i, d]) - target[0]) ** 2 + (float(beta[i, d]) - target[1]) ** 2 for d in range(7)]
        total += sum(squares) / (1 if summed else 7)
    assert float(noise_constraint(alpha, beta, target, summed=summed)) == pytest.approx(total / 5)


def test_constraint_is_zero_at_its_target_alone() -> None:
    ones, zeros = torch.ones(3, 4), torch.zeros(3, 4)
    assert float(noise_constraint(ones, zeros, PRINTED)) == 0
    assert float(noise_constraint(zeros, ones, REVERSED)) == 0
    assert float(noise_constraint(zeros, ones, PRINTED)) == 2
    assert float(noise_constraint(ones, zeros, REVERSED, summed=True)) == 8


def test_divergence_is_eq_4() -> None:
    mu, log_variance = random(4, 6), random(4, 6, seed=1)
    found = kl_divergence(mu, log_variance)
    for i in range(4):
        variance = [math.exp(float(v)) for v in log_variance[i]]
        wanted = 0.5 * sum(v + float(m) ** 2 - 1 - math.log(v) for v, m in zip(variance, mu[i], strict=True))
        assert float(found[i]) == pytest.approx(wanted)


def test_divergence_is_torchs() -> None:
    mu, log_variance = random(4, 6), random(4, 6, seed=1)
    latent = torch.distributions.Normal(mu, (0.5 * log_variance).exp())
    prior = torch.distributions.Normal(torch.zeros_like(mu), torch.ones_like(mu))
    wanted = torch.distributions.kl_divergence(latent, prior).sum(dim=1)
    torch.testing.assert_close(kl_divergence(mu, log_variance), wanted)
    assert float(kl_divergence(torch.zeros(1, 3), torch.zeros(1, 3))) == 0


def test_classification_is_eq_5() -> None:
    normal, pseudo = random(6), random(6, seed=1)
    total = 0.0
    for logit, y in [*((float(v), 1) for v in normal), *((float(v), 0) for v in pseudo)]:
        probability = 1 / (1 + math.exp(-logit))
        total -= y * math.log(probability) + (1 - y) * math.log(1 - probability)
    assert float(classification_loss(normal, pseudo)) == pytest.approx(total / 6)


def test_a_high_logit_is_normal_and_never_overflows() -> None:
    high, low = torch.full((2,), 1e4), torch.full((2,), -1e4)
    assert float(classification_loss(high, low)) == 0
    assert float(classification_loss(low, high)) == 2e4


def test_contrast_is_eq_7() -> None:
    z, z_pseudo, tau, n = random(5, 8), random(5, 8, seed=1), 0.5, 5
    total = 0.0
    for i in range(n):
        denominator = sum(math.exp(cosine(z[i], z_pseudo[j]) / tau) for j in range(n))
        denominator += sum(math.exp(cosine(z[i], z[j]) / tau) for j in range(n) if j != i)
        for j in range(n):
            if j != i:
                total -= math.log(math.exp(cosine(z[i], z[j]) / tau) / denominator) / (n - 1)
    assert float(contrastive_loss(z, z_pseudo, tau)) == pytest.approx(total / n)


def test_every_pseudo_anomaly_stands_against_every_normal() -> None:
    """s(z_i, z~_l) for all l: which pseudo-anomaly came from which normal plays no part."""
    z, z_pseudo = random(6, 4), random(6, 4, seed=1)
    shuffled = contrastive_loss(z, z_pseudo[torch.tensor([3, 5, 0, 1, 2, 4])])
    torch.testing.assert_close(shuffled, contrastive_loss(z, z_pseudo))


def test_anchors_are_normals_alone() -> None:
    """Swapping the roles changes the loss: similarity among pseudo-anomalies is not in Eq. 7."""
    tight, spread = random(6, 4) * 0.01 + 1, random(6, 4, seed=1)
    assert float(contrastive_loss(tight, spread)) < float(contrastive_loss(spread, tight)) - 0.5


def test_mean_contrast_looks_at_means_alone() -> None:
    z, z_pseudo, tau = random(5, 8), random(5, 8, seed=1), 0.5
    total = 0.0
    for i in range(5):
        towards, against = cosine(z[i], z.mean(dim=0)), cosine(z[i], z_pseudo.mean(dim=0))
        total -= math.log(math.exp(towards / tau) / math.exp(against / tau))
    assert float(mean_contrastive_loss(z, z_pseudo, tau)) == pytest.approx(total / 5)


def test_contrast_knows_no_length() -> None:
    z, z_pseudo = random(4, 3), random(4, 3, seed=1)
    lengths = torch.tensor([[0.1], [2.0], [30.0], [1.0]], dtype=torch.float64)
    torch.testing.assert_close(contrastive_loss(z * lengths, z_pseudo * 7), contrastive_loss(z, z_pseudo))
    torch.testing.assert_close(mean_contrastive_loss(z * 3, z_pseudo * 7), mean_contrastive_loss(z, z_pseudo))


def test_one_normal_has_no_positive() -> None:
    z = random(1, 3).requires_grad_()
    loss = contrastive_loss(z, random(1, 3, seed=1))
    loss.backward()
    assert float(loss.detach()) == 0
    assert not z.grad.any()


def test_kinds() -> None:
    z, z_pseudo = random(4, 3), random(4, 3, seed=1)
    assert float(contrast("none", z, z_pseudo, 0.5)) == 0
    assert contrast("full", z, z_pseudo, 0.2) == contrastive_loss(z, z_pseudo, 0.2)
    assert contrast("mean", z, z_pseudo, 0.2) == mean_contrastive_loss(z, z_pseudo, 0.2)


@pytest.mark.parametrize("kind", ["full", "mean"])
def test_temperature_is_checked(kind: str) -> None:
    with pytest.raises(ParameterError, match="temperature must be above 0, got 0"):
        contrast(kind, random(2, 3), random(2, 3), 0)  # type: ignore[arg-type]


def test_total_is_eq_8() -> None:
    terms = [torch.tensor(v) for v in (2.0, 3.0, 5.0, 7.0)]
    assert float(total_loss(*terms, Weights(5.0, 0.5, 10.0))) == 2 + 5 * 3 + 0.5 * 5 + 10 * 7
    assert float(total_loss(*terms, Weights())) == 2 + 5 * 3 + 5 + 7


@pytest.mark.parametrize("kind", ["full", "mean"])
def test_gradients_are_those_of_finite_differences(kind: str) -> None:
    inputs = [random(3, 4, seed=s).requires_grad_() for s in range(2)]
    assert torch.autograd.gradcheck(lambda a, b: contrast(kind, a, b, 0.5), inputs)  # type: ignore[arg-type]
    assert torch.autograd.gradcheck(noise_constraint, inputs)
    assert torch.autograd.gradcheck(lambda a, b: kl_divergence(a, b).mean(), inputs)
    assert torch.autograd.gradcheck(lambda a, b: classification_loss(a[0], b[0]), inputs)
